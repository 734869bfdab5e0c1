"""The SQLite file behind the local Hub: its schema, transactions, ids and timestamps.

Git holds what is in repositories; this file holds everything else (accounts, repository records,
discussions, webhooks) and the journal that keeps the two in step when the process is killed.
"""

from __future__ import annotations

import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bot.localhub.errors import InvalidHubData

SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE users (
  id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE COLLATE NOCASE, fullname TEXT NOT NULL,
  type TEXT NOT NULL CHECK (type IN ('user', 'org')), is_admin INTEGER NOT NULL DEFAULT 0, created TEXT NOT NULL);
CREATE TABLE members (
  org_id TEXT NOT NULL REFERENCES users(id), user_id TEXT NOT NULL REFERENCES users(id),
  role TEXT NOT NULL CHECK (role IN ('admin', 'write', 'contributor', 'read')), PRIMARY KEY (org_id, user_id));
CREATE TABLE tokens (
  id TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, user_id TEXT NOT NULL REFERENCES users(id), name TEXT NOT NULL,
  role TEXT NOT NULL CHECK (role IN ('read', 'write')), created TEXT NOT NULL);
CREATE TABLE repos (
  id TEXT PRIMARY KEY, owner_id TEXT NOT NULL REFERENCES users(id), name TEXT NOT NULL COLLATE NOCASE,
  private INTEGER NOT NULL, creator_id TEXT NOT NULL REFERENCES users(id), created TEXT NOT NULL,
  next_num INTEGER NOT NULL DEFAULT 1, xet_pool TEXT NOT NULL DEFAULT '', UNIQUE (owner_id, name));
CREATE TABLE objects (
  repo_id TEXT NOT NULL REFERENCES repos(id) ON DELETE CASCADE, sha256 TEXT NOT NULL, size INTEGER NOT NULL,
  xet_hash TEXT, PRIMARY KEY (repo_id, sha256));
CREATE TABLE discussions (
  id TEXT PRIMARY KEY, repo_id TEXT NOT NULL REFERENCES repos(id) ON DELETE CASCADE, num INTEGER NOT NULL,
  title TEXT NOT NULL, status TEXT NOT NULL, is_pr INTEGER NOT NULL, author_id TEXT NOT NULL REFERENCES users(id),
  base TEXT NOT NULL, merge_oid TEXT, ref_deleted INTEGER NOT NULL DEFAULT 0, created TEXT NOT NULL,
  UNIQUE (repo_id, num));
CREATE TABLE events (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
  discussion_id TEXT NOT NULL REFERENCES discussions(id) ON DELETE CASCADE, type TEXT NOT NULL,
  author_id TEXT NOT NULL REFERENCES users(id), created TEXT NOT NULL, data TEXT NOT NULL);
CREATE TABLE webhooks (
  id TEXT PRIMARY KEY, user_id TEXT NOT NULL REFERENCES users(id), url TEXT NOT NULL, secret TEXT,
  watched TEXT NOT NULL, domains TEXT NOT NULL, disabled TEXT NOT NULL DEFAULT 'no',
  failures INTEGER NOT NULL DEFAULT 0, created TEXT NOT NULL, last_trigger TEXT);
CREATE TABLE deliveries (
  id TEXT PRIMARY KEY, webhook_id TEXT NOT NULL REFERENCES webhooks(id) ON DELETE CASCADE, payload TEXT NOT NULL,
  status INTEGER, error TEXT, created TEXT NOT NULL);
CREATE TABLE ref_journal (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, repo_id TEXT NOT NULL, ref TEXT NOT NULL, new_oid TEXT);
"""


def new_id() -> str:
    """A fresh object id of 24 hexadecimal digits, as the Hub's are."""
    return secrets.token_hex(12)


def now() -> str:
    """The time in UTC with milliseconds, in the form that the Hub's API uses."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Database:
    """One SQLite connection behind one lock; every change goes through ``transaction()``.

    Raises:
        InvalidHubData: the file is not a database of this version of the local Hub.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self._depth = 0
        try:
            self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._connection.row_factory = sqlite3.Row
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA foreign_keys = ON")
            version = self._connection.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                self._connection.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        except sqlite3.DatabaseError as error:
            raise InvalidHubData(f"{path}: {error}") from error
        if version not in (0, SCHEMA_VERSION):
            raise InvalidHubData(f"{path} has schema version {version}; this program reads {SCHEMA_VERSION}")

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; a transaction inside another joins it."""
        with self._lock:
            if self._depth == 0:
                self._connection.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield
            except BaseException:
                self._depth -= 1
                if self._depth == 0:
                    self._connection.execute("ROLLBACK")
                raise
            self._depth -= 1
            if self._depth == 0:
                self._connection.execute("COMMIT")

    def rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock:
            return self._connection.execute(sql, values).fetchall()

    def row(self, sql: str, *values: Any) -> sqlite3.Row | None:
        found = self.rows(sql, *values)
        return found[0] if found else None

    def run(self, sql: str, *values: Any) -> int:
        """Execute one statement; the number of rows that it changed."""
        with self._lock:
            return self._connection.execute(sql, values).rowcount
