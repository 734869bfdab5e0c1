"""Progress and log lines on their way into the store: bounded, clean, and no more once the job is another's."""

from __future__ import annotations

import pytest

from bot.errors import DatabaseUnavailable
from bot.export_process import Progress
from bot.server import telling
from bot.server.records import Asked, Asker, JobRecord
from bot.server.store import Store
from bot.server.telling import Telling


@pytest.fixture
def job(local_store: Store) -> JobRecord:
    made, _ = local_store.add(Asked(repo_id="acme/tiny", sha="1" * 40), Asker(trigger="webhook"))
    local_store.update(made.id, state="running")
    return made


def test_a_new_stage_is_kept_at_once(local_store: Store, job: JobRecord) -> None:
    told = Telling(local_store, job.id)
    told.show(Progress(stage="lower", backend="xnnpack", precision="fp32", fraction=0.25, message="lowering"))
    (event,) = local_store.events(job.id)
    assert (event.kind, event.stage, event.backend, event.precision) == ("stage", "lower", "xnnpack", "fp32")
    now = local_store.job(job.id)
    assert now is not None and (now.stage, now.fraction) == ("lower xnnpack fp32", 0.25)


def test_of_much_progress_the_newest_is_kept(local_store: Store, job: JobRecord) -> None:
    told = Telling(local_store, job.id)
    for percent in range(1000):
        told.show(Progress(stage="fetch", fraction=percent / 1000, message=f"{percent}"))
    told.close()
    events = local_store.events(job.id)
    assert len(events) < 20 and events[-1].message == "999"
    assert [event.kind for event in events[:1]] == ["stage"]


def test_the_log_is_bounded_and_says_so(local_store: Store, job: JobRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "MOST_LOG_LINES", 10)
    told = Telling(local_store, job.id)
    for number in range(100):
        told.log(f"line {number}")
    told.close()
    lines = [event.message for event in local_store.events(job.id, kinds=("log",))]
    assert lines == [*(f"line {number}" for number in range(10)), "(no more than 10 lines of the log are kept)"]


def test_hostile_words_are_cut_and_cleaned(local_store: Store, job: JobRecord) -> None:
    told = Telling(local_store, job.id)
    told.show(Progress(stage="x\n\x1b[31m" * 1000, message="\u202e\x07" + "y" * 10_000))
    told.log("\x1b]0;title\x07" + "z" * 10_000)
    told.close()
    for event in local_store.events(job.id):
        assert len(event.message) <= telling.MOST_CHARACTERS and len(event.stage) <= 200
        assert not {"\x1b", "\x07", "\u202e"} & {*event.message, *event.stage} and "\n" not in event.stage


def test_what_is_told_too_late_is_not_shown(local_store: Store, job: JobRecord) -> None:
    mine = True
    told = Telling(local_store, job.id, mine=lambda: mine)
    told.show(Progress(stage="plan"))
    mine = False
    told.show(Progress(stage="lower"))
    told.close()
    assert [event.stage for event in local_store.events(job.id)] == ["plan"]
    now = local_store.job(job.id)
    assert now is not None and now.stage == "plan"


def test_endless_stages_do_not_fill_the_database(local_store: Store, job: JobRecord) -> None:
    told = Telling(local_store, job.id)
    for number in range(5_000):
        told.show(Progress(stage=f"{number}"))
    told.close()
    assert len(local_store.events(job.id, limit=10_000)) < telling.MOST_STAGES + 50


def test_a_database_that_is_away_for_a_moment_stops_nobody(
    local_store: Store, job: JobRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Telling(local_store, job.id)

    def away(_: object) -> None:
        raise DatabaseUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(local_store, "append", away)
        told.show(Progress(stage="plan"))
        told.log("a line")
    told.close()
    assert [(event.stage, event.message) for event in local_store.events(job.id)] == [("plan", ""), ("", "a line")]
