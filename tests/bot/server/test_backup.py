"""Backups while a server writes, restores when none lives: whole files only, nothing overwritten, nothing lost."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from bot.errors import BackupFailed, DatabaseTooNew
from bot.server import backup, migrate, tables
from bot.server.records import Asked, Asker, Event, Worker
from bot.server.settings import Settings, database_url
from bot.server.store import Store, open_engine


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "data").mkdir()
    return Settings(data=tmp_path / "data")


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    engine = open_engine(database_url(settings))
    migrate.upgrade(engine)
    made = Store(engine)
    add(made, 3)
    yield made
    made.close()


def add(store: Store, count: int, start: int = 0) -> None:
    for number in range(start, start + count):
        store.add(Asked(repo_id=f"acme/m{number}", sha="a" * 40), Asker(trigger="webhook"))


def jobs(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM ptebot_jobs").fetchone()[0])


def rows(path: Path) -> list[str]:
    """All that a database holds."""
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


def database(settings: Settings) -> Path:
    return settings.data / "ptebot.sqlite"


def test_there_and_back(settings: Settings, store: Store, tmp_path: Path) -> None:
    out = tmp_path / "backup.db"
    out.write_bytes(b"an older backup")
    done = backup.backup(settings, out)
    assert (done.jobs, done.version, done.size_bytes) == (3, migrate.versions()[-1], out.stat().st_size)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    add(store, 2, start=3)
    store.close()
    done = backup.restore(settings, out)
    assert jobs(database(settings)) == 3 and done.kept is not None and jobs(done.kept) == 5
    assert stat.S_IMODE(database(settings).stat().st_mode) == 0o600
    engine = open_engine(database_url(settings))
    migrate.upgrade(engine)
    assert len(Store(engine).jobs()) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup.db", "data"], "nothing is left over"


def test_while_a_server_writes(settings: Settings, store: Store, tmp_path: Path) -> None:
    """Every backup is one moment: whole, and with a job for each event that it has."""
    wrote, ended = threading.Event(), threading.Event()

    def write() -> None:
        number = 100
        while not ended.is_set():
            with store.transaction() as connection:
                row = {"job_id": f"j{number}", "part": "", "report": "x" * 2000}
                connection.execute(sa.insert(tables.results), row)
                row = {"job_id": f"j{number}", "token": b"y"}
                connection.execute(sa.insert(tables.sealed), row)
            number += 1
            if number == 150:
                wrote.set()

    writer = threading.Thread(target=write)
    writer.start()
    assert wrote.wait(60)
    found = []
    for number in range(5):
        backup.backup(settings, tmp_path / f"{number}.db")
        with closing(sqlite3.connect(tmp_path / f"{number}.db")) as connection:
            pair = [
                connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0]  # noqa: S608
                for name in ("ptebot_results", "ptebot_sealed")
            ]
        assert pair[0] == pair[1] >= 50
        found.append(pair[0])
    ended.set()
    writer.join()
    assert found == sorted(found) and found[-1] > found[0], "the writer went on meanwhile"


def test_what_the_log_of_sqlite_holds_is_in_it(settings: Settings, store: Store, tmp_path: Path) -> None:
    assert Path(f"{database(settings)}-wal").stat().st_size > 0
    assert backup.backup(settings, tmp_path / "out.db").jobs == 3


def test_an_older_backup_is_brought_up_to_date_at_the_next_start(settings: Settings, tmp_path: Path) -> None:
    from alembic import command

    engine = open_engine(f"sqlite:///{tmp_path / 'old.db'}")
    with engine.begin() as connection:
        command.upgrade(migrate._config(connection), "0001")
    engine.dispose()
    done = backup.restore(settings, tmp_path / "old.db")
    assert (done.version, done.kept) == ("0001", None)
    assert migrate.upgrade(open_engine(database_url(settings))) == migrate.versions()[-1]


def refused(settings: Settings, file: Path, said: str, error: type[Exception] = BackupFailed) -> None:
    """A restore that changes nothing."""
    before = (database(settings).stat().st_ino, rows(database(settings)))
    with pytest.raises(error, match=said):
        backup.restore(settings, file)
    assert (database(settings).stat().st_ino, rows(database(settings))) == before
    assert not [path for path in settings.data.iterdir() if "restore" in path.name or "part" in path.name]


def test_files_that_are_no_backups(settings: Settings, store: Store, tmp_path: Path) -> None:
    good = tmp_path / "good.db"
    backup.backup(settings, good)
    store.close()
    bad = tmp_path / "bad.db"
    refused(settings, tmp_path / "none.db", "cannot be read: No such file")
    refused(settings, tmp_path, "cannot be read: Is a directory")
    bad.write_bytes(b"")
    refused(settings, bad, "no backup of a SQLite database")
    bad.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    refused(settings, bad, "damaged")
    content = bytearray(good.read_bytes())
    content[8192:12288] = os.urandom(4096)
    bad.write_bytes(content)
    refused(settings, bad, "damaged")
    bad.unlink()
    with closing(sqlite3.connect(bad)) as connection:
        connection.execute("CREATE TABLE other (id INTEGER)")
    refused(settings, bad, "none of ptebot's")


def test_damage_in_a_place_that_nobody_looks_at(settings: Settings, store: Store, tmp_path: Path) -> None:
    store.append([Event(job_id="j", at=1.0, kind="log", message="x" * 500) for _ in range(2000)])
    bad = tmp_path / "bad.db"
    backup.backup(settings, bad)
    store.close()
    content = bytearray(bad.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 4096] = bytes(4096)
    bad.write_bytes(content)
    assert jobs(bad) == 3, "what is asked for stands elsewhere"
    refused(settings, bad, "damaged")


def test_a_backup_of_a_newer_ptebot(settings: Settings, store: Store, tmp_path: Path) -> None:
    newer = tmp_path / "newer.db"
    backup.backup(settings, newer)
    store.close()
    with closing(sqlite3.connect(newer)) as connection:
        connection.execute("UPDATE ptebot_version SET version_num = '9999'")
        connection.commit()
    refused(settings, newer, "'9999'", DatabaseTooNew)


def test_no_restore_under_a_living_server(settings: Settings, store: Store, tmp_path: Path) -> None:
    out = tmp_path / "out.db"
    backup.backup(settings, out)
    with store.transaction() as connection:
        now = connection.execute(sa.select(store.clock)).scalar_one()
    store.beat(Worker(id="one", host="h", started_at=now, beat_at=now, version="0"))
    store.close()
    refused(settings, out, "The worker one lives")
    store.beat(Worker(id="one", host="h", started_at=now, beat_at=now - 3600, version="0"))
    refused(settings, out, "Another process uses the database")
    store.close()
    assert backup.restore(settings, out).jobs == 3


def test_a_damaged_database_is_replaced_and_kept(settings: Settings, store: Store, tmp_path: Path) -> None:
    out = tmp_path / "out.db"
    backup.backup(settings, out)
    store.close()
    database(settings).write_bytes(b"damaged" * 1000)
    Path(f"{database(settings)}-wal").write_bytes(b"of the damaged one")
    done = backup.restore(settings, out)
    assert done.kept is not None and done.kept.read_bytes().startswith(b"damaged")
    assert jobs(database(settings)) == 3
    assert not Path(f"{database(settings)}-wal").exists()


def test_places_that_cannot_be_written(settings: Settings, store: Store, tmp_path: Path) -> None:
    for out, said in (
        (tmp_path / "none" / "out.db", "cannot be written: No such file"),
        (tmp_path, "is a directory"),
        (database(settings), "over the database itself"),
    ):
        with pytest.raises(BackupFailed, match=said):
            backup.backup(settings, out)
    assert len(store.jobs()) == 3


def test_no_database_yet(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(BackupFailed, match="There is no database"):
        backup.backup(settings, tmp_path / "out.db")
    assert not list(settings.data.iterdir())


def test_a_copy_that_fails_leaves_the_last_one(
    settings: Settings, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.db"
    out.write_bytes(b"the last one")

    def full(source: Path, staging: Path) -> None:
        staging.write_bytes(b"half")
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(backup, "_copy", full)
    with pytest.raises(BackupFailed, match="disk is full"):
        backup.backup(settings, out)
    assert out.read_bytes() == b"the last one" and sorted(path.name for path in tmp_path.iterdir()) == [
        "data",
        "out.db",
    ]


def test_postgresql_is_dumped_and_restored_by_its_own_tools(postgres_url: str, tmp_path: Path) -> None:
    settings = Settings(database=postgres_url, data=tmp_path)
    out = tmp_path / "out.dump"
    with pytest.raises(BackupFailed, match="none of ptebot's"):
        backup.backup(settings, out)
    store = Store(open_engine(postgres_url))
    migrate.upgrade(store.engine)
    add(store, 2)
    done = backup.backup(settings, out)
    assert (done.jobs, done.version) == (None, migrate.versions()[-1])
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    add(store, 2, start=2)
    store.close()
    command = ["pg_restore", "--clean", "--if-exists", "--no-owner", "--dbname", postgres_url, str(out)]
    subprocess.run(command, check=True)
    assert len(store.jobs()) == 2
    store.close()
    with pytest.raises(BackupFailed) as found:
        backup.restore(settings, out)
    assert "pg_restore" in found.value.advice


def test_a_failing_dump_says_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(database="postgresql://bot:hunter2@127.0.0.1:9/ptebot", data=tmp_path)
    with pytest.raises(BackupFailed, match="does not answer") as found:
        backup.backup(settings, tmp_path / "out.dump")
    assert "hunter2" not in str(found.value)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BackupFailed, match="not installed"):
        backup.backup(settings, tmp_path / "out.dump")


def test_the_password_stands_in_no_command_line(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(open_engine(postgres_url))
    migrate.upgrade(store.engine)
    seen = tmp_path / "seen"
    fake = tmp_path / "pg_dump"
    fake.write_text(
        f'#!/bin/sh\necho "$@" > {seen}\necho "$PGPASSWORD" >> {seen}\necho no >&2\nexit 1\n', encoding="utf-8"
    )
    fake.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(BackupFailed, match="pg_dump failed: no"):
        backup.backup(Settings(database=postgres_url, data=tmp_path), tmp_path / "out.dump")
    secret = str(sa.make_url(postgres_url).password)
    arguments, password = seen.read_text(encoding="utf-8").splitlines()
    assert "--dbname=postgresql://" in arguments and secret not in arguments and password == secret
