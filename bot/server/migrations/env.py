"""What Alembic runs; the connection, inside its transaction, comes from ``bot.server.migrate``."""

from __future__ import annotations

from alembic import context

from bot.server import tables
from bot.server.migrate import OPTIONS

if __name__ == "env_py":  # as Alembic loads it (alembic.util.load_python_file); whoever imports it wants nothing done
    context.configure(connection=context.config.attributes["connection"], target_metadata=tables.metadata, **OPTIONS)
    context.run_migrations()
