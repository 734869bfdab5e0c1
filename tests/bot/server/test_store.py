"""The store on both kinds of database: jobs once, states that hold, reports, deliveries, and what is private."""

from __future__ import annotations

import threading

import pytest

from bot.errors import DatabaseUnavailable
from bot.server import tables
from bot.server.records import Asked, Asker, Delivery, Event, Failure
from bot.server.store import Store, open_engine

SHA = "1" * 40


def test_the_same_asked_again_is_the_same_job(store: Store) -> None:
    asked = Asked(repo_id="acme/tiny", sha=SHA, options={"backends": ["xnnpack"]})
    job, new = store.add(asked, Asker(trigger="comment", name="ada", discussion=3, comment_id="c"))
    again, second = store.add(Asked(repo_id="ACME/Tiny", sha=SHA, options=asked.options), Asker(trigger="sweep"))
    assert (new, second) == (True, False) and again == job
    assert (job.asked, job.asker.name, job.priority) == (asked, "ada", 1)
    others = [
        Asked(repo_id="acme/tiny", sha="2" * 40, options=asked.options),
        Asked(repo_id="acme/tiny", sha=SHA),
        Asked(repo_id="acme/tiny", sha=SHA, options=asked.options, again="comment"),
        Asked(repo_id="acme/other", sha=SHA, options=asked.options),
    ]
    assert len({job.id, *(other.id for other in others)}) == 5


def test_an_end_is_an_end(store: Store) -> None:
    job, _ = store.add(Asked(repo_id="acme/tiny", sha=SHA), Asker(trigger="webhook"))
    store.seal(job.id, b"sealed")
    failure = Failure(name="DiskFull", exit_code=1, title="t", what="w", advice="a")
    assert store.end(job.id, "error", failure=failure)
    assert not store.end(job.id, "passed") and not store.update(job.id, only_if=("queued", "running"), stage="x")
    found = store.job(job.id)
    assert found is not None and (found.state, found.failure, found.live) == ("error", failure, False)
    assert found.ended_at is not None and found.ended_at >= found.created_at
    assert store.sealed(job.id) is None
    assert store.counts() == {"error": 1}


def test_jobs_are_found(store: Store) -> None:
    made = [store.add(Asked(repo_id=f"acme/m_{n}", sha=SHA), Asker(trigger="webhook"))[0] for n in range(5)]
    store.update(made[0].id, private=False)
    store.end(made[1].id, "passed")
    assert [job.id for job in store.jobs()] == [job.id for job in reversed(made)]
    assert [job.id for job in store.jobs(oldest_first=True, limit=2)] == [job.id for job in made[:2]]
    assert [job.id for job in store.jobs(before=made[1].created_at)] == [made[0].id]
    assert [job.id for job in store.jobs(repo_id="ACME/M_3")] == [made[3].id]
    assert [job.id for job in store.jobs(search="M_4")] == [made[4].id]
    assert store.jobs(search="m%4") == [], "what is searched for is no pattern"
    assert [job.id for job in store.jobs(states=("passed",))] == [made[1].id]
    assert [job.id for job in store.jobs(public=True)] == [made[0].id]
    assert store.counts(public=True) == {"queued": 1} and store.counts() == {"queued": 4, "passed": 1}


def test_events_and_reports(store: Store) -> None:
    job, _ = store.add(Asked(repo_id="acme/tiny", sha=SHA), Asker(trigger="webhook"))
    store.append(Event(job_id=job.id, at=1.0, kind="log", message=f"{n}") for n in range(10))
    store.append([])
    events = store.events(job.id)
    assert [event.message for event in events] == [f"{n}" for n in range(10)]
    assert [event.message for event in store.events(job.id, after=events[6].number, limit=2)] == ["7", "8"]
    assert [event.message for event in store.events(job.id, last=True, limit=2)] == ["8", "9"]
    assert store.events(job.id, kinds=("stage",)) == []
    for text in ("{}", '{"a": 1}'):
        store.put_report(job.id, "xnnpack", text)
    assert store.reports(job.id) == {"xnnpack": '{"a": 1}'}


def test_deliveries_are_kept_once_and_handled_in_order(store: Store) -> None:
    first, second = (Delivery(key=key, kind="push", repo_id="a/b", data={"sha": SHA}) for key in ("one", "two"))
    assert store.deliver([first, first, second]) == [True, False, True]
    assert [one.key for one in store.waiting()] == ["one", "two"]
    store.handled("one", "x" * 5000)
    assert [one.key for one in store.waiting()] == ["two"]
    assert store.deliver([first]) == [False], "handled is not forgotten"


def test_many_at_once_make_one_job(store: Store) -> None:
    news: list[bool] = []

    def add() -> None:
        news.append(store.add(Asked(repo_id="acme/tiny", sha=SHA), Asker(trigger="webhook"))[1])

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(news) == [False] * 7 + [True]


def test_who_reads_waits_for_no_writer(store: Store) -> None:
    job, _ = store.add(Asked(repo_id="acme/tiny", sha=SHA), Asker(trigger="webhook"))
    with store.transaction() as connection:
        connection.execute(tables.jobs.update().values(stage="unfinished"))
        found = store.job(job.id)
        assert found is not None and found.stage == "" and store.counts() == {"queued": 1}


@pytest.mark.parametrize("url", ["nonsense", "mysql://x/y", "postgresql://127.0.0.1:1/x", "sqlite:////no/such/place/x"])
def test_a_database_that_is_none(url: str) -> None:
    with pytest.raises(DatabaseUnavailable):
        Store(open_engine(url)).jobs()
