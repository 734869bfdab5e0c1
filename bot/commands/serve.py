"""``ptebot serve``: the Hub bot in one process: webhooks, pages, and the jobs that come of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bot.commands.options import F, output_options
from bot.console import Console

if TYPE_CHECKING:
    from bot.server.settings import Settings


def server_options(function: F) -> F:
    """``--config``, ``--data`` and ``--database``, which every command about the server takes."""
    function = click.option(
        "--database",
        metavar="URL",
        help="sqlite:///FILE or postgresql://...; without its password, which belongs into PTEBOT_DATABASE."
        "  [default: a file in --data]",
    )(function)
    function = click.option(
        "--data",
        type=click.Path(path_type=Path, file_okay=False),
        help="Where the database, downloads and work are kept.  [default: PTEBOT_DATA, or ptebot-data]",
    )(function)
    return click.option(
        "--config",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Settings as TOML; the environment's PTEBOT_... go before them.  [default: PTEBOT_CONFIG]",
    )(function)


def settings_of(config: Path | None, data: Path | None, database: str | None) -> Settings:
    """The settings, with what the command line says; raises InvalidSettings."""
    import os

    from bot.server import settings

    env = dict(os.environ)
    if data is not None:
        env["PTEBOT_DATA"] = str(data)
    if database is not None:
        env["PTEBOT_DATABASE"] = database
    return settings.load(config, env)


@click.command(short_help="Run the Hub bot: webhooks in, pull requests out, and a page to watch it.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on; 0.0.0.0 for all.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: any that is free.")
@click.option("--check", is_flag=True, help="Try the settings, the database, the Hub and the sandbox; start nothing.")
@server_options
@output_options
@click.pass_obj
def command(
    console: Console,
    host: str,
    port: int,
    check: bool,
    config: Path | None,
    data: Path | None,
    database: str | None,
) -> int:
    """Run the Hub bot in this process, until SIGTERM or Ctrl-C: webhooks at /webhooks/hub, pages at /, jobs.

    Settings come from PTEBOT_... variables, HF_TOKEN and HF_ENDPOINT, or a TOML file; docs/operations.md lists them.
    Needs PTEBOT_WEBHOOK_SECRET, and PTEBOT_WATCH for webhooks. Killed at any moment, it goes on where it was.
    """
    from bot.server import settings as known

    found = settings_of(config, data, database)
    if check:
        return _check(console, found)
    known.require_serving(found)

    from bot.server import main
    from bot.server.inbox import Inbox
    from bot.web import app, health
    from bot.web.access import Access

    parts = main.Parts(found)
    parts.start()
    inbox = Inbox(parts.store, kept=parts.intake.wake)
    ready = health.readiness(
        found, parts.store, launched=lambda: parts.engine.launched, alive=lambda: parts.heartbeat.certain
    )
    site = app.build(
        found,
        parts.store,
        parts.queue,
        inbox,
        more=health.routes(found, ready, parts.metrics),
        on_webhook=parts.metrics.webhook,
    )
    code = main.serve_app(
        Access(site, parts.metrics),
        parts,
        host=host,
        port=port,
        listening=lambda address: console.say(f"Listening: {address}"),
        before_end=site.state.site.live.stop,
    )
    parts.stop()
    main.leave(code)
    return code


def _check(console: Console, settings: Settings) -> int:
    from bot.server.check import findings as look

    findings = look(settings)
    console.document(ok=not any(one.bad for one in findings), findings=[one.data() for one in findings])
    for one in findings:
        console.say(one.line())
    return 1 if any(one.bad for one in findings) else 0
