"""Open a data directory: one process at a time, made when it is new, repaired when its process had been killed."""

from __future__ import annotations

import fcntl
import os
import secrets
from pathlib import Path

from bot.localhub.accounts import Accounts
from bot.localhub.context import Hub, Limits
from bot.localhub.database import Database
from bot.localhub.deliveries import Deliveries
from bot.localhub.errors import InvalidHubData
from bot.localhub.repos import Repos


def open_hub(data: Path, limits: Limits | None = None) -> Hub:
    """The hub that a data directory holds; made when it is new, repaired when its process had been killed.

    Raises:
        InvalidHubData: the directory holds something else.
    """
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InvalidHubData(f"{data} is not a directory") from error
    data = data.resolve()
    lock = _only_process(data)
    try:
        return _load(data, lock, limits or Limits())
    except BaseException:
        os.close(lock)
        raise


def _load(data: Path, lock: int, limits: Limits) -> Hub:
    database = Database(data / "hub.sqlite3")
    accounts = Accounts(database)
    with database.transaction():
        database.run("INSERT OR IGNORE INTO settings VALUES ('signing_key', ?)", secrets.token_hex(32))
    row = database.row("SELECT value FROM settings WHERE key = 'signing_key'")
    key = bytes.fromhex(row["value"]) if row else b""
    return Hub(
        data=data,
        limits=limits,
        database=database,
        accounts=accounts,
        repos=Repos(database, accounts, data / "repos"),
        deliveries=Deliveries(database, accounts),
        signing_key=key,
        lock_file=lock,
    )


def _only_process(data: Path) -> int:
    """A lock on the data directory that ends with this process, or with ``Hub.close``.

    Raises:
        InvalidHubData: another process serves this directory.
    """
    descriptor = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise InvalidHubData(f"{data} is in use by another local Hub") from error
    return descriptor
