"""The sweep over a real local Hub: what webhooks missed is queued once, and nothing else is."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from bot.errors import DatabaseUnavailable
from bot.server import sweep as sweeps
from bot.server.records import Asked, Asker, Failure
from bot.server.settings import Settings
from bot.server.store import Store
from bot.server.sweep import Sweep
from tests.bot.hubs import Repository, repository
from tests.bot.reports import MODEL_FILES
from tests.bot.server.doing import Kept


@pytest.fixture
def actions(local_store: Store) -> Kept:
    return Kept(local_store)


@pytest.fixture
def repos(repo: Repository, tmp_path: Path) -> list[Repository]:
    return [repo, *(repository(repo.hub, tmp_path / str(number)) for number in range(2))]


def sweep_of(repo: Repository, actions: Kept, *watch: str, **fields: Any) -> Sweep:
    settings = Settings(endpoint=repo.hub.endpoint, token=repo.bot_token, watch=watch or ("acme",), **fields)
    return Sweep(settings, actions.store, actions)


def named(repos: list[Repository]) -> tuple[str, ...]:
    return tuple(one.repo_id for one in repos)


def test_what_nobody_queued_is_queued_once(repos: list[Repository], actions: Kept) -> None:
    sweep = sweep_of(repos[0], actions)
    first = sweep.run_once()
    heads = {(one.repo_id, one.head) for one in repos}
    jobs = actions.store.jobs()
    assert heads <= {(job.asked.repo_id, job.asked.sha) for job in jobs}
    assert {job.asker.trigger for job in jobs} == {"sweep"} and first.queued == len(jobs)
    again = sweep.run_once()
    assert (again.queued, again.known) == (0, first.queued)
    repos[1].push({"config.json": b'{"model_type": "llama", "e": 1}'})
    third = sweep.run_once()
    assert third.queued == 1
    assert actions.store.job(Asked(repo_id=repos[1].repo_id, sha=repos[1].head).id) is not None


def test_the_list_is_cheap(repos: list[Repository], actions: Kept) -> None:
    sweep = sweep_of(repos[0], actions)
    sweep.run_once()
    repos[0].hub.traffic.clear()
    sweep.run_once()
    assert len(repos[0].hub.traffic) == 1, "one request for all that is known"


def test_pages_are_followed(repos: list[Repository], actions: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    real = sweeps.hub_lists.rows

    def small(*args: Any, **params: Any) -> Any:
        return real(*args, **{**params, "limit": 1})

    monkeypatch.setattr(sweeps.hub_lists, "rows", small)
    swept = sweep_of(repos[0], actions).run_once()
    assert swept.looked >= 3
    assert sum(one.path == "/api/models" for one in repos[0].hub.traffic) == swept.looked


def test_repositories_by_name(repos: list[Repository], actions: Kept) -> None:
    one, two, gone = repos
    gone.owner.delete_repo(gone.repo_id)
    swept = sweep_of(one, actions, *named(repos)).run_once()
    assert (swept.looked, swept.queued, swept.gone, swept.left) == (2, 2, 1, False)
    assert {job.asked.repo_id for job in actions.store.jobs()} == {one.repo_id, two.repo_id}


def test_what_is_no_model_gets_no_job(repo: Repository, actions: Kept, tmp_path: Path) -> None:
    empty = repository(repo.hub, tmp_path, files={"README.md": b"# Nothing yet"})
    quantized = repository(repo.hub, tmp_path, files={"model.gguf": b"GGUF", "config.json": b"{}"})
    swept = sweep_of(repo, actions, *named([empty, quantized])).run_once()
    assert (swept.looked, swept.no_model, swept.queued) == (2, 2, 0)
    assert "model.safetensors" in MODEL_FILES


def state(actions: Kept, job_id: str, name: str, failure: str | None = None, attempt: int = 1) -> None:
    told = Failure(name=failure, exit_code=1, title="", what="", advice="") if failure else None
    actions.store.update(job_id, state=name, attempt=attempt, failure=told)


@pytest.mark.parametrize(
    ("ended", "failure", "attempt", "again"),
    [
        ("superseded", None, 1, True),
        ("error", "HubUnreachable", 1, True),
        ("error", "HubUnreachable", sweeps.MOST_ATTEMPTS, False),
        ("error", "UnsupportedModel", 1, False),
        ("passed", None, 1, False),
        ("failed", None, 1, False),
        ("unchanged", None, 1, False),
        ("cancelled", None, 1, False),
    ],
)
def test_which_ended_jobs_are_done_again(
    repo: Repository, actions: Kept, ended: str, failure: str | None, attempt: int, again: bool
) -> None:
    """A commit that was superseded is at the head again when somebody takes the newer one back."""
    job, _ = actions.submit(Asked(repo_id=repo.repo_id, sha=repo.head), Asker(trigger="webhook"))
    state(actions, job.id, ended, failure, attempt)
    swept = sweep_of(repo, actions, repo.repo_id).run_once()
    assert actions.retried == ([job.id] if again else [])
    assert swept.queued == again


def test_what_a_person_asked_for_is_left_alone(repo: Repository, actions: Kept) -> None:
    asked = Asked(repo_id=repo.repo_id, sha=repo.head, options={"backends": ["xnnpack"]}, again="1")
    actions.submit(asked, Asker(trigger="comment"))
    assert sweep_of(repo, actions, repo.repo_id).run_once().queued == 0
    assert len(actions.store.jobs()) == 1


def test_a_list_that_is_old_ends_no_newer_job(repo: Repository, actions: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    old = repo.head
    new = repo.push({"config.json": b'{"model_type": "llama", "f": 1}'})
    job, _ = actions.submit(Asked(repo_id=repo.repo_id, sha=new), Asker(trigger="webhook"))
    monkeypatch.setattr(sweeps.hub_lists, "rows", lambda *_, **__: iter([{"id": repo.repo_id, "sha": old}]))
    assert sweep_of(repo, actions).run_once().known == 1
    (only,) = actions.store.jobs()
    assert (only.id, only.state) == (job.id, "queued")


def test_a_run_queues_so_many_and_leaves_the_rest(
    repos: list[Repository], actions: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeps, "MOST_QUEUED", 2)
    sweep = sweep_of(repos[0], actions, *named(repos))
    assert (first := sweep.run_once()).left and first.queued == 2
    assert not (second := sweep.run_once()).left and second.queued == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_hub_that_asks_to_wait_is_asked_nothing_more(repos: list[Repository], actions: Kept, status: int) -> None:
    sweep, hub = sweep_of(repos[0], actions, *named(repos)), repos[0].hub
    hub.traffic.clear()
    hub.fail("/api/models/", status, times=-1)
    swept = sweep.run_once()
    assert swept.left and swept.queued == 0
    assert len(hub.traffic) == sweeps.MOST_UNANSWERED
    hub.clear_faults()
    hub.fail(f"/api/models/{repos[0].repo_id}", status, times=1)
    swept = sweep.run_once()
    assert swept.left and swept.queued == 2, "one that fails alone keeps no other waiting"
    assert sweep.run_once().queued == 1


def test_a_database_that_is_gone_ends_the_run(repo: Repository, actions: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: str) -> None:
        raise DatabaseUnavailable("gone")

    monkeypatch.setattr(actions.store, "job", gone)
    with pytest.raises(DatabaseUnavailable):
        sweep_of(repo, actions, repo.repo_id).run_once()


@pytest.mark.parametrize(
    "row",
    [
        {}, {"id": 5}, {"id": "../x", "sha": "1" * 40}, {"id": "acme/x\n", "sha": "1" * 40}, {"id": "acme/x"},
        {"id": "acme/x", "sha": "main"}, {"id": "acme/x", "sha": "1" * 40, "disabled": True},
        {"id": "mallory/x", "sha": "1" * 40},
    ],
)  # fmt: skip
def test_a_hostile_list(repo: Repository, actions: Kept, monkeypatch: pytest.MonkeyPatch, row: Any) -> None:
    monkeypatch.setattr(sweeps.hub_lists, "rows", lambda *_, **__: iter([row]))
    assert sweep_of(repo, actions).run_once().looked == 0
    assert actions.store.jobs() == []


def test_it_looks_when_it_starts_and_ends_when_told(repo: Repository, actions: Kept) -> None:
    queued = threading.Event()
    real = actions.submit
    actions.submit = lambda *args, **options: (real(*args, **options), queued.set())[0]  # type: ignore[method-assign]
    sweep = sweep_of(repo, actions, repo.repo_id)
    sweep.start()
    assert queued.wait(20)
    sweep.stop()
    assert not sweep._thread.is_alive()
    off = sweep_of(repo, actions, sweep_interval=0)
    off.start()
    assert not off._thread.is_alive()
    off.stop()
