"""What the server forgets: ended jobs with all that was kept of them, handled webhooks, files that nobody waits for.

In: settings, the store, a way to make the job engine forget. Out: how much went. Rows go in small batches, so that
nobody waits long for the database; done twice, or by two processes at once, it does no harm. A SQLite file gives its
space back.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from filelock import FileLock, Timeout

from bot import workspace
from bot.errors import DatabaseUnavailable
from bot.server import tables
from bot.server.records import LIVE
from bot.server.settings import Settings
from bot.server.store import Store

EVERY_SECONDS = 3600.0
BATCH_JOBS = 100
BATCH_ROWS = 5_000
BATCH_PAGES = 500
"""Of SQLite's file, 4 KiB each, given back in one transaction."""
PAUSE_SECONDS = 0.02
"""Between two of them: webhooks want the database too."""
LEAST_SECONDS = 86_400.0
"""For so long a handled webhook is kept whatever the settings say: the Hub may deliver it again."""
TRASH = ".gone-"
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Removed:
    """What one run removed."""

    jobs: int = 0
    deliveries: int = 0
    folders: int = 0
    file_bytes: int = 0
    """By which SQLite's file shrank."""


class Retention:
    """Looks every hour, from ``start`` to ``stop``; one in each process that does jobs, for its own files."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        *,
        forget: Callable[[Sequence[str]], None] = lambda _: None,
        leftovers: Callable[[], Sequence[str]] = lambda: (),
    ) -> None:
        """
        Args:
            forget: removes what the job engine keeps of ended jobs, by their ids.
            leftovers: removes what killed exports left elsewhere, containers for one; gives their names.
        """
        self._settings, self._store, self._forget, self._leftovers = settings, store, forget, leftovers
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retention", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self.run()
            except DatabaseUnavailable as error:
                log.warning("retention will look again later: %s", error.what)
            except Exception:  # a thread that ends here would be a part of the server that is silently off
                log.exception("retention failed; it looks again later")
            self._ended.wait(EVERY_SECONDS)

    def run(self) -> Removed:
        """Remove what is old; raises DatabaseUnavailable, and goes on from there the next time."""
        jobs = deliveries = 0
        if self._settings.retention > 0:
            jobs, deliveries = self._jobs(), self._deliveries()
        done = Removed(jobs=jobs, deliveries=deliveries, folders=self._files(), file_bytes=self._shrink())
        if done != Removed():
            log.info("removed: %s", done)
        if gone := self._leftovers():
            log.info("removed what killed exports left: %s", ", ".join(gone))
        return done

    # --- the database

    def _jobs(self) -> int:
        table, removed = tables.jobs, 0
        while not self._ended.is_set():
            with self._store.transaction() as connection:
                old = table.c.ended_at < self._store.clock - self._settings.retention
                query = sa.select(table.c.id).where(old, table.c.state.not_in(LIVE))
                ids = list(connection.execute(query.order_by(table.c.ended_at).limit(BATCH_JOBS)).scalars())
            if not ids:
                return removed
            self._forget(ids)  # first: with the rows gone, nobody would know what to have forgotten
            self._events(ids)
            with self._store.transaction() as connection:
                # Asked again: one that was retried meanwhile stays, and the engine mends what it forgot of it.
                gone = list(connection.execute(sa.select(table.c.id).where(table.c.id.in_(ids), old)).scalars())
                for other in (tables.results, tables.sealed):
                    connection.execute(sa.delete(other).where(other.c.job_id.in_(gone)))
                connection.execute(sa.delete(table).where(table.c.id.in_(gone)))
            removed += len(gone)
            if len(gone) < len(ids):
                return removed
        return removed

    def _events(self, job_ids: Sequence[str]) -> None:
        """One job may have a hundred thousand of them."""
        table = tables.events
        some = sa.select(table.c.number).where(table.c.job_id.in_(job_ids)).limit(BATCH_ROWS).scalar_subquery()
        while True:
            with self._store.transaction() as connection:
                count = connection.execute(sa.delete(table).where(table.c.number.in_(some))).rowcount
            if count < BATCH_ROWS:
                return
            self._ended.wait(PAUSE_SECONDS)

    def _deliveries(self) -> int:
        table, removed = tables.deliveries, 0
        age = max(self._settings.retention, LEAST_SECONDS)
        while not self._ended.is_set():
            with self._store.transaction() as connection:
                query = sa.select(table.c.key).where(table.c.handled_at < self._store.clock - age).limit(BATCH_ROWS)
                gone = sa.delete(table).where(table.c.key.in_(query.scalar_subquery()))
                count = connection.execute(gone).rowcount
                connection.execute(sa.delete(tables.sessions).where(tables.sessions.c.expires_at < self._store.clock))
            removed += count
            if count < BATCH_ROWS:
                break
        return removed

    def _shrink(self) -> int:
        """Bytes that SQLite's file lost; PostgreSQL looks after itself (autovacuum)."""
        if self._store.engine.dialect.name != "sqlite":
            return 0
        before = self._file_bytes()
        while not self._ended.is_set():
            with self._store.transaction() as connection:
                free = connection.exec_driver_sql("PRAGMA freelist_count").scalar() or 0
                if free == 0 or connection.exec_driver_sql("PRAGMA auto_vacuum").scalar() != 2:
                    break
                # One page a step (https://www.sqlite.org/pragma.html#pragma_incremental_vacuum), and Python's module
                # takes one step of a statement without columns, whatever number it asks for.
                driver: Any = connection.connection.driver_connection
                for _ in range(min(free, BATCH_PAGES)):
                    driver.execute("PRAGMA incremental_vacuum(1)")
            self._ended.wait(PAUSE_SECONDS)
        return max(0, before - self._file_bytes())

    def _file_bytes(self) -> int:
        with self._store.transaction() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar() or 0
            return int(pages) * int(connection.exec_driver_sql("PRAGMA page_size").scalar() or 0)

    # --- this process's files

    def _files(self) -> int:
        """Downloads and finished exports that no job of now can want."""
        before = time.time() - max(self._settings.job_timeout, 3600.0)
        with self._store.transaction() as connection:
            rows = connection.execute(sa.select(tables.jobs.c.repo_id).where(tables.jobs.c.state.in_(LIVE))).scalars()
            wanted = {repo_id.replace("/", "--").lower() for repo_id in rows}
        removed = 0
        for folder in _folders(self._settings.data / "models"):
            if folder.name.lower() in wanted:
                continue
            for revision in _folders(folder):
                if _untouched(revision, before):
                    removed += _remove(revision)
            if _untouched(folder, before):
                with suppress(OSError):  # somebody put something there at this moment
                    folder.rmdir()
        for left in _folders(self._settings.data / "tmp"):  # what TMPDIR may be, where /tmp is memory
            if _untouched(left, before):
                removed += _remove(left)
        for folder in _folders(self._settings.data / "work"):
            try:
                with FileLock(folder / workspace.LOCK, timeout=0):
                    removed += sum(_remove(one) for one in _folders(folder) if _untouched(one, before))
            except Timeout:
                continue  # somebody is at work there
        return removed


def _folders(path: Path) -> list[Path]:
    """Directories in it, links left alone."""
    try:
        return sorted(one for one in path.iterdir() if one.is_dir() and not one.is_symlink())
    except FileNotFoundError:
        return []


def _untouched(path: Path, before: float) -> bool:
    """Whether nothing in it was written since."""
    try:
        if path.lstat().st_mtime >= before:
            return False
        return all(one.lstat().st_mtime < before for one in path.rglob("*"))
    except FileNotFoundError:
        return False  # somebody is at work there


def _remove(path: Path) -> int:
    """Remove a folder; at no moment is a half of it there under its name."""
    gone = path.with_name(f"{TRASH}{os.getpid()}-{path.name}")
    try:
        path.rename(gone)
    except OSError as error:
        log.warning("%s cannot be removed: %s", path, error.strerror)
        return 0
    shutil.rmtree(gone, ignore_errors=True)
    return 1
