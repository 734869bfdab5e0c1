"""The command ``ptebot localhub``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from bot.localhub import server
from exporter.errors import PtebotError


@click.command("localhub", context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--data", type=click.Path(file_okay=False, path_type=Path), required=True, help="Directory of the Hub's data."
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port to listen on; 0 picks a free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--json", "json_line", is_flag=True, help="Print the endpoint and an administrator's token as JSON first."
)
@click.option("--user", "users", metavar="NAME", multiple=True, help="With --json: a token for this account, too.")
@click.option("--allow-remote", is_flag=True, help="Allow an address that other machines can reach.")
def localhub_command(
    data: Path, port: int, host: str, json_line: bool, users: tuple[str, ...], allow_remote: bool
) -> None:
    """Run a Hub on this machine, for demos and tests.

    The huggingface_hub client talks to it with HF_ENDPOINT or HfApi(endpoint=...).
    """
    try:
        server.serve(data, host, port, json_line, allow_remote, users)
    except PtebotError as error:
        click.echo(f"{error.title}: {error}", err=True)
        sys.exit(error.exit_code)
