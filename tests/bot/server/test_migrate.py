"""Databases of any age: made, brought up to date with every row, left alone when newer or when a step breaks off."""

from __future__ import annotations

import multiprocessing
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from dbos import DBOSClient

from bot.errors import DatabaseTooNew, DatabaseUnavailable
from bot.server import migrate, tables
from bot.server.records import Asked
from bot.server.store import Store, open_engine

NEWEST = migrate.versions()[-1]
ROWS: dict[str, dict[str, Any]] = {
    "ptebot_jobs": {
        "id": Asked(repo_id="acme/tiny", sha="a" * 40).id,
        "repo_id": "acme/tiny",
        "sha": "a" * 40,
        "asked": {"options": {}, "again": ""},
        "asker": {"trigger": "webhook", "name": None, "discussion": None, "comment_id": None},
        "state": "passed",
        "priority": 5,
        "attempt": 1,
        "stage": "",
        "created_at": 1.5,
    },
    "ptebot_events": {"job_id": "j", "at": 2.5, "kind": "log", "stage": "", "message": "said"},
    "ptebot_results": {"job_id": "j", "part": "", "report": "{}"},
    "ptebot_deliveries": {"key": "k", "kind": "push", "repo_id": "acme/tiny", "data": {"sha": "a"}, "received_at": 1.0},
    "ptebot_workers": {"id": "w", "host": "h", "started_at": 1.0, "beat_at": 2.0, "version": "0"},
    "ptebot_leases": {"repo_id": "acme/tiny", "job_id": "j", "worker": "w", "token": "t"},
    "ptebot_sealed": {"job_id": "j", "token": b"sealed"},
}
"""What a database of version 0001 may hold."""


def at(engine: sa.Engine, version: str) -> None:
    """Make the database of an older ptebot."""
    with engine.begin() as connection:
        command.upgrade(migrate._config(connection), version)


def held(engine: sa.Engine) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table but ours of versions, as the database has it."""
    with engine.connect() as connection:
        found = sa.MetaData()
        found.reflect(connection)
        names = [name for name in found.tables if name != migrate.VERSION_TABLE and "migration" not in name]
        return {
            name: [dict(row._mapping) for row in connection.execute(sa.select(found.tables[name]))] for name in names
        }


def test_a_new_database_is_what_the_tables_say(engine: sa.Engine) -> None:
    assert migrate.upgrade(engine) == NEWEST
    with engine.connect() as connection:
        assert migrate.differences(connection) == []
    assert migrate.upgrade(engine) == NEWEST


def test_a_forgotten_step_would_be_seen(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    migrate.upgrade(engine)
    changed = sa.MetaData()
    for table in tables.metadata.tables.values():
        table.to_metadata(changed)
    changed.tables["ptebot_jobs"].append_column(sa.Column("forgotten", sa.Integer))
    monkeypatch.setattr(tables, "metadata", changed)
    with engine.connect() as connection:
        assert "forgotten" in str(migrate.differences(connection))


def test_steps_are_one_line_and_say_what_they_do() -> None:
    assert migrate.versions() == [f"{number:04}" for number in range(1, len(migrate.versions()) + 1)]
    for path in (migrate.SCRIPTS / "versions").glob("v*.py"):
        assert path.read_text(encoding="utf-8").startswith('"""')


JOB_ENGINE = """
import os, sys
from dbos import DBOS, DBOSClient
url = sys.argv[1]
DBOS(config={"name": "ptebot", "system_database_url": url, "run_admin_server": False, "disable_otlp": True})
DBOS.launch()
options = {"queue_name": "exports", "workflow_name": "job", "workflow_id": "waiting-one"}
DBOSClient(system_database_url=url).enqueue(options, "acme/tiny")
sys.stdout.flush()
os._exit(0)
"""


def _engine_url(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://")


def test_an_old_database_keeps_every_row(engine: sa.Engine, database_url: str) -> None:
    at(engine, "0001")
    with engine.begin() as connection:
        first = sa.MetaData()
        first.reflect(connection)
        assert set(ROWS) == {name for name in first.tables if name != migrate.VERSION_TABLE}
        for name, row in ROWS.items():
            # The old tables, not those of now; JSON as their step declared it.
            table = sa.table(name, *(sa.column(key, tables.metadata.tables[name].c[key].type) for key in row))
            connection.execute(sa.insert(table).values(row))
    subprocess.run([sys.executable, "-c", JOB_ENGINE, _engine_url(database_url)], check=True, capture_output=True)
    before = held(engine)

    assert migrate.upgrade(engine) == NEWEST

    after = held(engine)
    for name, rows in before.items():
        assert len(after[name]) == len(rows), name
        for old, new in zip(rows, after[name], strict=True):
            assert {key: new[key] for key in old} == old, name
    client = DBOSClient(system_database_url=_engine_url(database_url))
    assert [(one.workflow_id, one.status) for one in client.list_workflows()] == [("waiting-one", "ENQUEUED")]
    client.destroy()
    store = Store(engine)
    job = store.job(ROWS["ptebot_jobs"]["id"])
    assert job is not None and job.state == "passed" and job.asker.trigger == "webhook"
    assert [one.key for one in store.waiting()] == ["k"]
    assert store.sealed("j") == b"sealed"
    with engine.connect() as connection:
        assert migrate.differences(connection) == []


def test_a_newer_database_is_left_alone(engine: sa.Engine) -> None:
    migrate.upgrade(engine)
    with engine.begin() as connection:
        connection.execute(sa.text(f"UPDATE {migrate.VERSION_TABLE} SET version_num = '9999'"))  # noqa: S608
    before = held(engine)
    with pytest.raises(DatabaseTooNew, match="version '9999', this ptebot knows"):
        migrate.upgrade(engine)
    assert held(engine) == before


def test_tables_that_were_made_without_a_version_are_taken(engine: sa.Engine) -> None:
    Store(engine).create()
    assert migrate.upgrade(engine) == NEWEST


def test_tables_of_our_name_and_no_known_shape_are_not(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE ptebot_jobs (id INTEGER)"))
    with pytest.raises(DatabaseUnavailable, match="no version that is known"):
        migrate.upgrade(engine)


def test_a_database_that_is_none_is_told(tmp_path: Path) -> None:
    file = tmp_path / "ptebot.db"
    file.write_bytes(b"no database at all, but long enough to be taken for one" * 50)
    with pytest.raises(DatabaseUnavailable):
        migrate.upgrade(open_engine(f"sqlite:///{file}"))


BREAKING = '''"""Breaks off in the middle."""
import os, signal
import sqlalchemy as sa
from alembic import op
revision = "{revision}"
down_revision = "{down}"
def upgrade():
    op.create_table("ptebot_half", sa.Column("id", sa.Integer))
    op.add_column("ptebot_jobs", sa.Column("half", sa.Integer))
    {end}
'''


def breaking(folder: Path, end: str) -> Path:
    """All steps and one more that breaks off."""
    shutil.copytree(migrate.SCRIPTS, folder)
    text = BREAKING.format(revision=f"{int(NEWEST) + 1:04}", down=NEWEST, end=end)
    (folder / "versions" / "v9999_breaking.py").write_text(text, encoding="utf-8")
    return folder


def test_an_upgrade_that_fails_changes_nothing(
    engine: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at(engine, "0001")
    monkeypatch.setattr(migrate, "SCRIPTS", breaking(tmp_path / "steps", "op.execute('no SQL at all')"))
    with pytest.raises(DatabaseUnavailable):
        migrate.upgrade(engine)
    _is_at_first(engine)
    monkeypatch.undo()
    assert migrate.upgrade(engine) == NEWEST


KILLED = """
import sys
from pathlib import Path
from bot.server import migrate, store
migrate.SCRIPTS = Path(sys.argv[1])
migrate.upgrade(store.open_engine(sys.argv[2]))
"""


def test_an_upgrade_that_is_killed_changes_nothing(engine: sa.Engine, database_url: str, tmp_path: Path) -> None:
    at(engine, "0001")
    steps = breaking(tmp_path / "steps", "os.kill(os.getpid(), signal.SIGKILL)")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(steps), database_url], check=False)
    assert killed.returncode == -signal.SIGKILL
    _is_at_first(engine)
    assert migrate.upgrade(engine) == NEWEST


def _is_at_first(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        assert migrate.version(connection) == "0001"
        assert not sa.inspect(connection).has_table("ptebot_half")
        assert not sa.inspect(connection).has_table("ptebot_sessions")
        assert "half" not in {column["name"] for column in sa.inspect(connection).get_columns("ptebot_jobs")}


def _upgrade(url: str, gate: Any, found: Any) -> None:
    engine = open_engine(url)
    gate.wait()
    try:
        found.put(migrate.upgrade(engine))
    except BaseException as error:
        found.put(repr(error))
        raise


def test_processes_that_start_at_once_do_not_collide(database_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    gate, found = context.Barrier(4), context.Queue()
    processes = [context.Process(target=_upgrade, args=(database_url, gate, found)) for _ in range(4)]
    for one in processes:
        one.start()
    assert [found.get(timeout=60) for _ in processes] == [NEWEST] * 4
    for one in processes:
        one.join()
