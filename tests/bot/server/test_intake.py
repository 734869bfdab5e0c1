"""The intake: kept deliveries into jobs, with the real local Hub to ask, and what happens when it does not answer."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa

from bot.errors import DatabaseUnavailable, HubUnreachable
from bot.server import intake as intakes
from bot.server import tables
from bot.server.intake import Intake
from bot.server.records import Delivery
from bot.server.settings import Settings
from bot.server.store import Store
from bot.server.turn import Turn
from tests.bot.hubs import Repository, repository
from tests.bot.server.doing import Kept
from tests.bot.web.receiving import SECRET, receiving


@pytest.fixture
def actions(local_store: Store) -> Kept:
    return Kept(local_store)


def settings_for(repo: Repository, **fields: Any) -> Settings:
    return Settings(
        **{
            "endpoint": repo.hub.endpoint,
            "token": repo.bot_token,
            "watch": ("acme",),
            "webhook_secret": SECRET,
            **fields,
        }
    )


@pytest.fixture
def intake(repo: Repository, local_store: Store, actions: Kept, monkeypatch: pytest.MonkeyPatch) -> Intake:
    monkeypatch.setattr(intakes, "FIRST_PAUSE", 0.0)
    return Intake(settings_for(repo), local_store, actions)


def push(repo: Repository, sha: str, key: str = "") -> Delivery:
    return Delivery(key=key or f"push:{sha}", kind="push", repo_id=repo.repo_id, data={"sha": sha})


def outcome(store: Store, key: str) -> str | None:
    query = sa.select(tables.deliveries.c.outcome).where(tables.deliveries.c.key == key)
    with store.engine.begin() as connection:
        return connection.execute(query).scalar_one()


def test_a_push_becomes_a_job(repo: Repository, local_store: Store, intake: Intake) -> None:
    local_store.deliver([push(repo, repo.head)])
    assert intake.drain() is None
    (job,) = local_store.jobs()
    assert (job.asked.repo_id, job.asked.sha, job.asker.trigger, job.state) == (
        repo.repo_id, repo.head, "webhook", "queued",
    )  # fmt: skip
    assert outcome(local_store, f"push:{repo.head}") == job.id
    assert local_store.waiting() == []


def test_a_late_delivery_gives_the_newest_commit_and_ends_no_newer_job(
    repo: Repository, local_store: Store, intake: Intake
) -> None:
    old = repo.head
    new = repo.push({"config.json": b'{"model_type": "llama", "b": 1}'})
    local_store.deliver([push(repo, new), push(repo, old, "late")])
    intake.drain()
    (job,) = local_store.jobs()
    assert job.asked.sha == new and job.state == "queued"
    assert outcome(local_store, "late") == job.id


def test_a_commit_that_the_hub_does_not_show_yet_is_waited_for(
    repo: Repository, local_store: Store, intake: Intake
) -> None:
    coming = "c" * 40
    local_store.deliver([push(repo, coming)])
    intake.drain()
    assert local_store.jobs() == [] and len(local_store.waiting()) == 1
    for _ in range(intakes.NOT_SEEN_TRIES):
        intake.drain()
    (job,) = local_store.jobs()
    assert job.asked.sha == repo.head, "it was pushed away again: what main has counts"
    assert local_store.waiting() == []


def test_what_can_pass_is_tried_again_in_order(
    repo: Repository, local_store: Store, intake: Intake, tmp_path: Path
) -> None:
    other = repository(repo.hub, tmp_path / "other")
    first = repo.head
    local_store.deliver([push(repo, first), push(repo, first, "second"), push(other, other.head, "other")])
    repo.hub.fail(f"/api/models/{repo.repo_id}/revision/main", 500, times=1)
    intake.drain()
    assert [one.key for one in local_store.waiting()] == [f"push:{first}", "second"], "other repositories go on"
    intake.drain()
    assert local_store.waiting() == []
    assert {job.asked.repo_id for job in local_store.jobs()} == {repo.repo_id, other.repo_id}


def test_more_than_are_read_at_once(
    repo: Repository, local_store: Store, intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intakes, "MOST_WAITING", 2)
    local_store.deliver([push(repo, repo.head, str(number)) for number in range(3)])
    assert intake.drain() == 0.0, "the rest at once"
    assert intake.drain() is None and local_store.waiting() == []


def test_pauses_grow(repo: Repository, local_store: Store, actions: Kept) -> None:
    intake = Intake(settings_for(repo), local_store, actions)
    local_store.deliver([push(repo, repo.head)])
    repo.hub.fail("/api/models/", 429, times=-1)
    first = intake.drain()
    assert first is not None and 0.5 < first <= 1.2
    asked = len(repo.hub.traffic)
    assert intake.drain() is not None and len(repo.hub.traffic) == asked, "not before its time"


def test_a_hub_that_asks_to_wait_is_not_asked_for_every_delivery(
    repo: Repository, local_store: Store, actions: Kept
) -> None:
    intake = Intake(settings_for(repo), local_store, actions)
    local_store.deliver(
        [Delivery(key=f"push:{n}", kind="push", repo_id=f"acme/many-{n}", data={"sha": "1" * 40}) for n in range(30)]
    )
    repo.hub.fail("/api/models/", 429, times=-1)
    repo.hub.traffic.clear()
    pause = intake.drain()
    assert pause is not None and pause >= intakes.FIRST_PAUSE * 0.8
    assert len(repo.hub.traffic) == intakes.MOST_UNANSWERED


@pytest.mark.parametrize("kind", ["gone", "hidden", "unwatched"])
def test_what_cannot_pass_is_the_outcome(repo: Repository, local_store: Store, actions: Kept, kind: str) -> None:
    settings = settings_for(repo, watch=("somebody",)) if kind == "unwatched" else settings_for(repo)
    delivery = push(repo, repo.head, "one")
    if kind == "gone":
        repo.owner.delete_repo(repo.repo_id)
    elif kind == "hidden":
        repo.owner.update_repo_settings(repo.repo_id, private=True)
    local_store.deliver([delivery])
    Intake(settings, local_store, actions).drain()
    assert local_store.waiting() == [] and local_store.jobs() == []
    said = outcome(local_store, "one")
    assert said is not None and ("not watched" if kind == "unwatched" else "RepoNotFound") in said


def test_a_renamed_repository(repo: Repository, local_store: Store, intake: Intake, actions: Kept) -> None:
    """The local Hub leads on from no old name, so its answer is made to show the new one."""
    named = Intake(settings_for(repo, watch=(repo.repo_id,)), local_store, actions)
    moved = "elsewhere/tiny"
    for one, expected in ((intake, "not watched"), (named, None)):
        real = one._api.model_info

        def renamed(*args: Any, real: Any = real, **options: Any) -> Any:
            found = real(*args, **options)
            found.id = moved
            return found

        one._api.model_info = renamed  # type: ignore[method-assign]
        local_store.deliver([push(repo, repo.head, str(expected))])
        one.drain()
        said = outcome(local_store, str(expected))
        assert said is not None
        if expected:
            assert expected in said
        else:
            assert local_store.jobs()[0].asked.repo_id == moved


def test_a_death_between_the_job_and_the_note_does_it_again_once(
    repo: Repository, local_store: Store, intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    local_store.deliver([push(repo, repo.head)])
    with monkeypatch.context() as dying:
        dying.setattr(local_store, "handled", lambda *_: (_ for _ in ()).throw(DatabaseUnavailable("gone")))
        with pytest.raises(DatabaseUnavailable):
            intake.drain()
    assert len(local_store.waiting()) == 1 and len(local_store.jobs()) == 1
    intake.drain()
    assert local_store.waiting() == [] and len(local_store.jobs()) == 1


def test_a_defect_is_not_tried_for_ever(repo: Repository, local_store: Store, intake: Intake, actions: Kept) -> None:
    def broken() -> None:
        raise RuntimeError("a defect")

    actions.before = broken
    local_store.deliver([push(repo, repo.head, "one")])
    for _ in range(intakes.MOST_DEFECTS + 1):
        intake.drain()
    assert local_store.waiting() == [] and "given up: RuntimeError" in str(outcome(local_store, "one"))


def test_the_engine_that_cannot_be_reached_is_waited_for(
    repo: Repository, local_store: Store, intake: Intake, actions: Kept
) -> None:
    failures = [HubUnreachable("later"), DatabaseUnavailable("later")]

    def once() -> None:
        if failures:
            raise failures.pop()

    actions.before = once
    local_store.deliver([push(repo, repo.head)])
    for _ in range(3):
        intake.drain()
    assert local_store.waiting() == [] and len(local_store.jobs()) == 1


def test_from_a_push_to_a_job_over_the_wire(repo: Repository, local_store: Store, actions: Kept) -> None:
    """The Hub tells the endpoint, the endpoint wakes the intake; a lost answer and a replay change nothing."""
    done = threading.Event()
    intake = Intake(settings_for(repo), local_store, actions, poll=60, on_outcome=lambda *_: done.set())
    intake.start()
    try:
        with receiving(settings_for(repo), local_store, kept=intake.wake) as receiver:
            hook = repo.owner.create_webhook(
                url=receiver.url, watched=[{"type": "model", "name": repo.repo_id}], secret=SECRET
            )
            sha = repo.push({"config.json": b'{"model_type": "llama", "c": 1}'})
            assert done.wait(20)
            log = repo.hub.hub.database.rows("SELECT id FROM deliveries WHERE webhook_id = ?", hook.id)
            again = httpx2.post(
                f"{repo.hub.endpoint}/api/settings/webhooks/{hook.id}/replay/{log[0]['id']}",
                headers={"Authorization": f"Bearer {repo.owner.token}"},
            )
            assert again.json() == {"status": 202}
            repo.owner.delete_webhook(hook.id)
        assert receiver.results == {"accepted": 1, "duplicate": 1}
    finally:
        intake.stop()
    (job,) = local_store.jobs()
    assert job.asked.sha == sha


def test_only_one_process_drains(store: Store) -> None:
    """Two workers on one database: the second one waits until the first one's connection or file goes."""
    first, second = Turn(store.engine, "intake"), Turn(store.engine, "intake")
    other = Turn(store.engine, "sweep")
    assert first.mine() and first.mine() and not second.mine() and other.mine()
    first.close()
    assert second.mine() and not first.mine()
    second.close()
    other.close()


def test_a_lost_connection_gives_the_turn_back(store: Store) -> None:
    if store.engine.dialect.name == "sqlite":
        return  # the kernel lets the file go with its process
    first, second = Turn(store.engine, "intake"), Turn(store.engine, "intake")
    assert first.mine() and not second.mine()
    with store.engine.begin() as connection:
        connection.execute(
            sa.text("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted")
        )
    assert not first.mine()
    assert second.mine()
    second.close()
    first.close()
