"""``ptebot hosted``: what a Job does that a webhook of the Hub started. In: its variables; out: an exit code."""

from __future__ import annotations

import os
from pathlib import Path

import click

from bot.commands.options import output_options
from bot.console import Console


@click.command(short_help="Inside a Job that a webhook started: export the model, open the pull request.")
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="PTEBOT_STATE",
    show_envvar=True,
    help="For work and downloads.  [default: ptebot in the user's cache directory]",
)
@output_options
@click.pass_obj
def command(console: Console, state: Path | None) -> None:
    """Read the webhook from WEBHOOK_PAYLOAD and do what it asks for; `ptebot hook install --serverless` sets it up.

    Settings are those of `ptebot serve` (PTEBOT_BACKENDS and so on), the token is HF_TOKEN. Exit code 0 also when
    there was nothing to do; the reason is told.
    """
    from bot import serverless, workspace
    from bot.commands.run import finish, tell

    env = dict(os.environ)
    env.pop("PTEBOT_STATE", None)  # an option of this command, no setting of the server
    with console.progress() as show:
        outcome = serverless.run(env, root=state or workspace.default_root(), show=show, log=console.log)
    if isinstance(outcome, serverless.Nothing):
        console.document(operation="none", reason=outcome.reason)
        console.say(f"Nothing to do: {outcome.reason}.")
        return
    tell(console, outcome)
    finish(console, outcome)
