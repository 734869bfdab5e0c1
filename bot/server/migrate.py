"""A database of any age in, one of this ptebot out: creates the server's tables or brings them up to date.

All steps run in one transaction, on SQLite too: interrupted at any moment, the database is what it was. Processes that
start at once wait for each other. The job engine keeps its own tables in the same database, and its own steps.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from bot.errors import DatabaseTooNew, DatabaseUnavailable
from bot.publish.markdown import one_line
from bot.server import tables

log = logging.getLogger(__name__)
SCRIPTS = Path(__file__).parent / "migrations"
VERSION_TABLE = "ptebot_version"
LOCK = 0x7074_6562_6F74
"""``ptebot`` in ASCII: PostgreSQL's advisory lock of upgrades."""


def _ours(item: Any, name: str | None, kind: str, *_: Any) -> bool:
    """Whether a table is one of ours: those of the job engine are its own business."""
    return kind != "table" or bool(name and name.startswith("ptebot_") and name != VERSION_TABLE)


OPTIONS: dict[str, Any] = {"version_table": VERSION_TABLE, "include_object": _ours}


def upgrade(engine: sa.Engine) -> str:
    """Create or upgrade; the version that the database has now.

    Raises:
        DatabaseTooNew: a newer ptebot made it; nothing was changed.
        DatabaseUnavailable: it does not answer, or may not be changed.
    """
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
            found = version(connection)
            config = _config(connection)
            if found is None and sa.inspect(connection).has_table(tables.jobs.name):
                _adopt(connection, config)
            command.upgrade(config, "head")
            now = version(connection)
    except sa.exc.DBAPIError as error:
        raise DatabaseUnavailable(f"The database cannot be upgraded: {type(error.orig).__name__}.") from error
    if now != found:
        log.info("The database was upgraded from version %s to %s.", found or "none", now)
    return str(now)


def version(connection: sa.Connection) -> str | None:
    """The version of the server's tables; None where there are none. Raises DatabaseTooNew."""
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    found = MigrationContext.configure(connection, opts=OPTIONS).get_current_revision()
    if found is not None and found not in versions():
        raise DatabaseTooNew(f"The database has version {one_line(found, 40)!r}, this ptebot knows {versions()[-1]}.")
    return found


def versions() -> list[str]:
    """Every version that this ptebot knows, oldest first."""
    return [script.revision for script in ScriptDirectory(str(SCRIPTS)).walk_revisions()][::-1]


def differences(connection: sa.Connection) -> list[Any]:
    """What the database has otherwise than ``bot.server.tables``; empty when they are alike."""
    return list(compare_metadata(MigrationContext.configure(connection, opts=OPTIONS), tables.metadata))


def _adopt(connection: sa.Connection, config: Config) -> None:
    """Take tables that ``Store.create`` made, which names no version: they are those of its day, or none of ours."""
    if differences(connection):
        raise DatabaseUnavailable("The database has tables of ptebot's name, of no version that is known.")
    command.stamp(config, "head")


def _config(connection: sa.Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
