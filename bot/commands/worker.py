"""``ptebot worker``: one more process that does jobs, beside a ``ptebot serve`` on the same PostgreSQL."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bot.commands.options import output_options
from bot.commands.serve import server_options, settings_of
from bot.console import Console

if TYPE_CHECKING:
    from bot.server.main import Parts


@click.command(short_help="Do jobs of the Hub bot on one more machine.")
@click.option("--host", default="127.0.0.1", show_default=True, help="With --port: the address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Answer /healthz, /readyz and /metrics there.  [default: nowhere]",
)
@server_options
@output_options
@click.pass_obj
def command(
    console: Console, host: str, port: int | None, config: Path | None, data: Path | None, database: str | None
) -> int:
    """Do jobs of the database that a `ptebot serve` uses, until SIGTERM or Ctrl-C.

    Give each worker a name of its own that stays the same after a restart (PTEBOT_WORKER; the host's name otherwise).
    A worker that dies is noticed by the others, which go on with its jobs.
    """
    from bot.server import main
    from bot.server.settings import require_shared

    found = settings_of(config, data, database)
    require_shared(found)
    parts = main.Parts(found)
    parts.start()
    console.say(f"Worker: {parts.heartbeat.id}")
    code = main.wait(parts) if port is None else _serve(console, parts, host, port)
    parts.stop()
    main.leave(code)
    return code


def _serve(console: Console, parts: Parts, host: str, port: int) -> int:
    """Answer probes until the process is asked to end; the exit code."""
    from bot.server import main
    from bot.web import health
    from bot.web.access import Access

    ready = health.readiness(
        parts.settings, parts.store, launched=lambda: parts.engine.launched, alive=lambda: parts.heartbeat.certain
    )
    return main.serve_app(
        Access(health.application(health.routes(parts.settings, ready, parts.metrics)), parts.metrics),
        parts,
        host=host,
        port=port,
        listening=lambda address: console.say(f"Listening: {address}"),
        before_end=lambda: None,
    )
