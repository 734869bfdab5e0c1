"""``ptebot worker``: one more process that does jobs, beside a ``ptebot serve`` on the same PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import click

from bot.commands.options import output_options
from bot.commands.serve import server_options, settings_of
from bot.console import Console


@click.command(short_help="Do jobs of the Hub bot on one more machine.")
@server_options
@output_options
@click.pass_obj
def command(console: Console, config: Path | None, data: Path | None, database: str | None) -> int:
    """Do jobs of the database that a `ptebot serve` uses, until SIGTERM or Ctrl-C.

    Give each worker a name of its own that stays the same after a restart (PTEBOT_WORKER; the host's name otherwise).
    A worker that dies is noticed by the others, which go on with its jobs.
    """
    from bot.server import main

    found = settings_of(config, data, database)
    parts = main.Parts(found)
    parts.start()
    console.say(f"Worker: {parts.heartbeat.id}")
    code = main.wait(parts)
    parts.stop()
    main.leave(code)
    return code
