"""The database as one file, while the server runs, and back again when it does not.

In: settings and a file's name. Out: a whole, proven file in its place, or a refusal that changed nothing. What is
copied is everything that the server and its job engine know; the key in the data directory (``secret.key``) is not:
whoever has both reads the tokens of people who signed in.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from bot.errors import BackupFailed, DatabaseUnavailable
from bot.hubapi import scrub
from bot.publish.markdown import one_line
from bot.server import heartbeat, migrate
from bot.server.settings import Settings, database_url
from bot.server.store import Store, open_engine

DUMP_SECONDS = 3600.0
_MAGIC = b"SQLite format 3\0"


@dataclass(frozen=True, kw_only=True)
class Copied:
    """A backup that was made, or restored."""

    file: Path
    size_bytes: int
    version: str
    """Of the server's tables (``bot.server.migrate``)."""
    jobs: int | None
    """None where the file cannot be asked: a dump of PostgreSQL."""
    kept: Path | None = None
    """Where a restore put what was there before."""


def backup(settings: Settings, out: Path) -> Copied:
    """Write the database to ``out``, mode 0600; what was there is replaced at once, and only by a whole backup.

    Raises:
        BackupFailed: there is no database, the file cannot be written, or what came out is not whole.
        DatabaseTooNew: a newer ptebot made the database.
    """
    url = sa.make_url(database_url(settings))
    if out.is_dir():
        raise BackupFailed(f"{one_line(out, 200)} is a directory; name a file.")
    if url.get_backend_name() != "sqlite":
        return _dump(url, out)
    source = Path(str(url.database))
    if not source.is_file():
        raise BackupFailed(f"There is no database at {one_line(source, 200)}.")
    if out.exists() and out.samefile(source):
        raise BackupFailed("The backup cannot be written over the database itself.")
    with _staged(out) as staging:
        _copy(source, staging)
        version, jobs = _prove(staging)
    return Copied(file=out, size_bytes=out.stat().st_size, version=version, jobs=jobs)


def restore(settings: Settings, file: Path) -> Copied:
    """Put a backup in the database's place; what was there stays beside it.

    Raises:
        BackupFailed: the file is no whole backup, or a server lives on the database; nothing was changed.
        DatabaseTooNew: a newer ptebot made the backup.
    """
    url = sa.make_url(database_url(settings))
    if url.get_backend_name() != "sqlite":
        raise BackupFailed(
            "A PostgreSQL database is restored with its own tools.",
            remedy="Stop all servers and workers, then: pg_restore --clean --if-exists --no-owner --dbname URL FILE",
        )
    target = Path(str(url.database))
    kept = None
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _staged(target) as staging:
        _read(file, staging)
        version, jobs = _prove(staging)
        if target.exists():
            kept = _set_aside(settings, target)
        for more in ("-wal", "-shm"):  # left by a kill; SQLite would take them for the new file's
            beside = Path(f"{target}{more}")
            if beside.exists():
                beside.replace(f"{kept or target}{more}.left")
    return Copied(file=target, size_bytes=target.stat().st_size, version=version, jobs=jobs, kept=kept)


@contextmanager
def _staged(out: Path) -> Iterator[Path]:
    """A file beside ``out`` that takes its place when the block ends well."""
    try:
        handle, name = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.", suffix=".part")  # mode 0600
    except OSError as error:
        raise BackupFailed(f"{one_line(out.parent, 200)} cannot be written: {error.strerror}.") from error
    os.close(handle)
    staging = Path(name)
    try:
        yield staging
        with staging.open("rb") as file:
            os.fsync(file.fileno())
        staging.replace(out)
        folder = os.open(out.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except (sqlite3.Error, OSError) as error:
        raise BackupFailed(f"The copy could not be made: {type(error).__name__}: {one_line(error, 200)}.") from error
    finally:
        staging.unlink(missing_ok=True)
        for more in ("-wal", "-shm", "-journal"):
            Path(f"{name}{more}").unlink(missing_ok=True)


def _copy(source: Path, staging: Path) -> None:
    """SQLite's online backup (https://www.sqlite.org/backup.html): in one step, so that writers do not restart it."""
    with closing(sqlite3.connect(source, timeout=60)) as live, closing(sqlite3.connect(staging)) as copy:
        live.backup(copy, pages=-1)
        copy.execute("PRAGMA journal_mode=DELETE")  # so that it is one file


def _read(file: Path, into: Path) -> None:
    try:
        with file.open("rb") as opened:
            if opened.read(len(_MAGIC)) != _MAGIC:
                raise BackupFailed(f"{one_line(file, 200)} is no backup of a SQLite database.")
        shutil.copyfile(file, into)
    except OSError as error:
        raise BackupFailed(f"{one_line(file, 200)} cannot be read: {error.strerror}.") from error


def _prove(path: Path) -> tuple[str, int]:
    """The version and the number of jobs of a whole database of ours; raises BackupFailed, DatabaseTooNew."""
    try:
        with closing(sqlite3.connect(path)) as connection:
            found = connection.execute("PRAGMA integrity_check(1)").fetchone()
        if found != ("ok",):
            raise BackupFailed(f"The file is damaged: {one_line(found[0], 200)}.")
        engine = sa.create_engine(f"sqlite:///{path}")
        try:
            with engine.connect() as opened:
                version = migrate.version(opened)
                if version is None:
                    raise BackupFailed("The file is a database, but none of ptebot's.")
                jobs = opened.exec_driver_sql("SELECT count(*) FROM ptebot_jobs").scalar_one()
        finally:
            engine.dispose()
    except (sqlite3.Error, sa.exc.DBAPIError) as error:
        raise BackupFailed(f"The file is damaged: {type(error).__name__}.") from error
    return version, jobs


def _set_aside(settings: Settings, target: Path) -> Path:
    """Make sure that nobody uses the database, and keep it under another name; its own is still there."""
    living = _living(settings)
    if living:
        raise BackupFailed(
            f"The worker {one_line(living[0], 100)} lives on this database.",
            remedy="Stop `ptebot serve`, wait half a minute if it was killed, and run the same again.",
        )
    in_use = BackupFailed(
        "Another process uses the database.", remedy="Stop everything that has it open, and run the same again."
    )
    try:
        with closing(sqlite3.connect(target, timeout=2, isolation_level=None)) as alone:
            # Only whoever is alone can leave WAL; and what the -wal file held is in the main file then.
            if alone.execute("PRAGMA journal_mode=DELETE").fetchone() != ("delete",):
                raise in_use
    except sqlite3.OperationalError as error:
        raise in_use from error
    except sqlite3.DatabaseError:
        pass  # it is damaged: a reason more to restore; it is kept as it is
    kept = target.with_name(f"{target.name}.before-restore-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    os.link(target, kept)
    return kept


def _living(settings: Settings) -> list[str]:
    engine = open_engine(database_url(settings))
    try:
        return sorted(heartbeat.alive(Store(engine), settings))
    except (DatabaseUnavailable, sa.exc.DBAPIError):
        return []  # it has no such table, or is damaged: nobody works with it
    finally:
        engine.dispose()


def _dump(url: sa.URL, out: Path) -> Copied:
    """PostgreSQL's own ``pg_dump``, in its custom format."""
    program = shutil.which("pg_dump")
    if program is None:
        raise BackupFailed(
            "pg_dump is not installed here.",
            remedy="Install PostgreSQL's client (Debian: postgresql-client), or back up where the database runs.",
        )
    engine = open_engine(url.render_as_string(hide_password=False))
    try:
        with engine.connect() as connection:
            version = migrate.version(connection)
    except sa.exc.DBAPIError as error:
        raise BackupFailed(f"The database does not answer: {type(error.orig).__name__}.") from error
    finally:
        engine.dispose()
    if version is None:
        raise BackupFailed("The database is none of ptebot's.")
    # The password goes by the environment: a command line can be read by everybody on the machine.
    secret = url.password or url.query.get("password")
    password = {"PGPASSWORD": str(secret)} if secret else {}
    query = {name: value for name, value in url.query.items() if name != "password"}
    plain = sa.URL.create("postgresql", url.username, None, url.host, url.port, url.database, query).render_as_string()
    with _staged(out) as staging:
        command = [program, "--format=custom", "--no-password", f"--file={staging}", f"--dbname={plain}"]
        try:
            done = subprocess.run(
                command,
                env={**os.environ, **password},
                capture_output=True,
                text=True,
                errors="replace",
                timeout=DUMP_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise BackupFailed(f"pg_dump took longer than {DUMP_SECONDS:g} s.") from None
        with staging.open("rb") as made:
            whole = done.returncode == 0 and made.read(5) == b"PGDMP"
        if not whole:
            raise BackupFailed(f"pg_dump failed: {one_line(scrub(done.stderr), 400)}.")
    return Copied(file=out, size_bytes=out.stat().st_size, version=version, jobs=None)
