"""Whose turn it is: work that one process does for all that share a database. One question, asked again and again.

On PostgreSQL the answer is a lock of the session (https://www.postgresql.org/docs/current/explicit-locking.html,
advisory locks), which goes when its holder's connection does, however that ended. On SQLite it is a lock of a file
beside the database's, which the kernel lets go.
"""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import filelock
import sqlalchemy as sa


class Turn:
    """The right to do one kind of work; safe to be asked from several threads."""

    def __init__(self, engine: sa.Engine, work: str) -> None:
        self._engine, self._work = engine, work
        self._lock = threading.Lock()
        self._connection: sa.Connection | None = None
        self._file: filelock.FileLock | None = None

    def mine(self) -> bool:
        """Take the turn, or tell whether it still is this process's; raises nothing: no database, no turn."""
        with self._lock:
            return self._hold_file() if self._engine.dialect.name == "sqlite" else self._hold_session()

    def close(self) -> None:
        """Let another process have it."""
        with self._lock:
            if self._connection is not None:
                self._connection.invalidate()  # the session ends, and the lock with it
                self._connection.close()
                self._connection = None
            if self._file is not None:
                self._file.release()
                self._file = None

    def _hold_session(self) -> bool:
        try:
            if self._connection is not None:
                self._connection.execute(sa.text("SELECT 1"))
                return True
            connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        except sa.exc.SQLAlchemyError:
            self._drop()
            return False
        try:
            if connection.execute(sa.text("SELECT pg_try_advisory_lock(:key)"), {"key": self._key}).scalar_one():
                self._connection = connection
                return True
        except sa.exc.SQLAlchemyError:
            connection.invalidate()
        connection.close()
        return False

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
            self._connection = None

    def _hold_file(self) -> bool:
        database = self._engine.url.database
        if not database or database == ":memory:":
            return True
        if self._file is None:
            self._file = filelock.FileLock(f"{Path(database).absolute()}.{self._work}.lock", thread_local=False)
        if self._file.is_locked:
            return True
        try:
            self._file.acquire(blocking=False)
        except (filelock.Timeout, OSError):
            return False
        return True

    @property
    def _key(self) -> int:
        """Sixty-four bits that no other user of the database is likely to use."""
        return int.from_bytes(hashlib.sha256(f"ptebot {self._work}".encode()).digest()[:8], signed=True)
