"""What is forgotten and what is not: rows of all tables, the job engine's, files, and the space that they took."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from filelock import FileLock

from bot import workspace
from bot.errors import HubUnreachable
from bot.server import retention, tables
from bot.server.records import Asked, Asker, Delivery, Event
from bot.server.retention import Removed, Retention
from bot.server.settings import Settings
from bot.server.store import Store

DAY = 86400.0


def job(store: Store, number: int, *, age: float | None, state: str = "passed") -> str:
    """A job that ended so many seconds ago, or lives."""
    record, _ = store.add(Asked(repo_id=f"acme/m{number}", sha="a" * 40), Asker(trigger="webhook"))
    ended = None if age is None else time.time() - age
    store.update(record.id, state=state, ended_at=ended)
    store.append([Event(job_id=record.id, at=1.0, kind="log", message="said") for _ in range(3)])
    store.put_report(record.id, "", "{}")
    return record.id


def rows(store: Store, table: sa.Table) -> int:
    with store.transaction() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


def settings(tmp_path: Path, **more: Any) -> Settings:
    return Settings(data=tmp_path, **{"retention": "30d", **more})


def test_old_jobs_go_with_all_that_was_kept(store: Store, tmp_path: Path) -> None:
    old = [job(store, number, age=31 * DAY, state=state) for number, state in enumerate(("passed", "error"))]
    kept = [job(store, 10, age=29 * DAY), job(store, 11, age=None, state="running")]
    # One that an administrator had done again still has its first end in nobody's table but in a row's: it lives.
    kept.append(job(store, 12, age=90 * DAY, state="running"))
    forgotten: list[str] = []
    done = Retention(settings(tmp_path), store, forget=forgotten.extend).run()
    assert done.jobs == 2 and sorted(forgotten) == sorted(old)
    assert {one.id for one in store.jobs()} == set(kept)
    assert all(store.events(one) == [] and store.reports(one) == {} for one in old)
    assert all(len(store.events(one)) == 3 and store.reports(one) for one in kept)
    assert Retention(settings(tmp_path), store).run() == Removed()


def test_in_small_batches(local_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH_JOBS", 2)
    monkeypatch.setattr(retention, "BATCH_ROWS", 2)
    for number in range(5):
        job(local_store, number, age=31 * DAY)
    calls: list[int] = []
    forget = lambda ids: calls.append(len(ids))  # noqa: E731
    assert Retention(settings(tmp_path), local_store, forget=forget).run().jobs == 5
    assert calls == [2, 2, 1]
    assert rows(local_store, tables.events) == rows(local_store, tables.results) == 0


def test_without_a_limit_nothing_goes(local_store: Store, tmp_path: Path) -> None:
    job(local_store, 1, age=9999 * DAY)
    assert Retention(settings(tmp_path, retention=0), local_store).run() == Removed()
    assert rows(local_store, tables.jobs) == 1


def test_an_engine_that_cannot_forget_keeps_the_rows(local_store: Store, tmp_path: Path) -> None:
    job(local_store, 1, age=31 * DAY)

    def forget(_: Sequence[str]) -> None:
        raise HubUnreachable("away")

    with pytest.raises(HubUnreachable):
        Retention(settings(tmp_path), local_store, forget=forget).run()
    assert rows(local_store, tables.jobs) == 1, "or nobody would know what the engine is to forget"


def test_a_job_that_is_retried_at_this_moment_stays(local_store: Store, tmp_path: Path) -> None:
    one = job(local_store, 1, age=31 * DAY)

    def forget(ids: Sequence[str]) -> None:
        local_store.update(ids[0], state="queued", ended_at=None)

    assert Retention(settings(tmp_path), local_store, forget=forget).run().jobs == 0
    assert local_store.job(one) is not None and local_store.reports(one)


def test_handled_webhooks(store: Store, tmp_path: Path) -> None:
    store.deliver([Delivery(key=key, kind="push", repo_id="acme/tiny", received_at=1.0) for key in "abc"])
    store.handled("a", "done")
    store.handled("b", "done")
    with store.transaction() as connection:
        table = tables.deliveries
        connection.execute(sa.update(table).where(table.c.key == "a").values(handled_at=time.time() - 2 * DAY))
    brief = settings(tmp_path, retention="1s")
    assert Retention(brief, store).run().deliveries == 1, "the Hub may deliver again what was handled just now"
    assert [one.key for one in store.waiting()] == ["c"], "what is not handled is never forgotten"
    assert rows(store, tables.deliveries) == 2


def test_sessions_that_are_over(store: Store, tmp_path: Path) -> None:
    with store.transaction() as connection:
        for name, left in (("over", -5.0), ("open", 500.0)):
            row = {"id": name, "data": b"x", "expires_at": time.time() + left}
            connection.execute(sa.insert(tables.sessions).values(row))
    Retention(settings(tmp_path), store).run()
    assert rows(store, tables.sessions) == 1


def test_the_file_gives_its_space_back(local_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    transaction = local_store.transaction
    monkeypatch.setattr(local_store, "transaction", lambda: (begun.append(1), transaction())[1])
    path = Path(str(local_store.engine.url.database))
    one = job(local_store, 1, age=31 * DAY)
    local_store.append([Event(job_id=one, at=1.0, kind="log", message="x" * 1000) for _ in range(3_000)])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    before = path.stat().st_size
    done = Retention(settings(tmp_path), local_store).run()
    local_store.close()
    assert before > 3_000_000 and path.stat().st_size < 1_000_000
    assert done.file_bytes > 2_000_000
    # 750 free pages and more: many in one transaction, or it would take a day for a busy server's file.
    assert len(begun) < 50


def old(path: Path, age: float) -> Path:
    """A folder with a file, both so old."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "file").write_text("x", encoding="utf-8")
    for one in (path / "file", path, path.parent):
        os.utime(one, (time.time() - age,) * 2)
    return path


def test_files_that_nobody_waits_for(local_store: Store, tmp_path: Path) -> None:
    job(local_store, 1, age=None, state="queued")
    models, work = tmp_path / "models", tmp_path / "work"
    gone = [old(models / "acme--m2" / "a", 2 * DAY), old(work / "x-1" / "export-key", 2 * DAY)]
    gone.append(old(models / ".gone-1-left" / "a", 2 * DAY))
    gone.append(old(tmp_path / "tmp" / "ptebot-read-1", 2 * DAY))
    kept = [old(models / "acme--m1" / "a", 9 * DAY), old(models / "acme--m3" / "a", 60.0)]
    kept += [old(work / "x-2" / "export-key", 60.0), old(work / "x-3" / "export-key", 2 * DAY)]
    growing = old(work / "x-4" / "export-key", 2 * DAY)
    (growing / "file").write_text("written a moment ago", encoding="utf-8")
    outside = old(tmp_path / "outside" / "a", 9 * DAY)
    (models / "acme--link").symlink_to(outside.parent)
    (work / "x-1" / "link").symlink_to(outside)
    with FileLock(work / "x-3" / workspace.LOCK):
        done = Retention(settings(tmp_path), local_store).run()
    assert done.folders == 4
    assert not any(one.exists() for one in gone)
    assert all(one.exists() for one in [*kept, growing, outside])
    assert not list(tmp_path.rglob(".gone-*/*"))


def test_it_ends_when_it_is_told(local_store: Store, tmp_path: Path) -> None:
    job(local_store, 1, age=31 * DAY)
    seen = threading.Event()
    running = Retention(settings(tmp_path), local_store, forget=lambda _: seen.set())
    running.start()
    assert seen.wait(30)
    running.stop()
    assert rows(local_store, tables.jobs) == 0


def test_a_database_that_is_away_is_looked_for_again(
    local_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "EVERY_SECONDS", 0.01)
    job(local_store, 1, age=31 * DAY)
    tried: list[int] = []
    done = threading.Event()

    def forget(_: Sequence[str]) -> None:
        tried.append(1)
        if len(tried) < 3:
            raise sa.exc.OperationalError("x", {}, Exception("away"))
        done.set()

    running = Retention(settings(tmp_path), local_store, forget=forget)
    running.start()
    assert done.wait(30)
    running.stop()
