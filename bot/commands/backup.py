"""``ptebot backup`` and ``ptebot restore``: the server's database as one file, and back."""

from __future__ import annotations

from pathlib import Path

import click

from bot.commands.options import output_options
from bot.commands.serve import server_options, settings_of
from bot.console import Console


@click.command(short_help="Copy the server's database to one file, while it runs.")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="The file to write; one that is there is replaced."
)
@server_options
@output_options
@click.pass_obj
def command(console: Console, out: Path, config: Path | None, data: Path | None, database: str | None) -> None:
    """Write everything that the server and its job engine know to one file, and prove that it is whole.

    The server may go on meanwhile. Of a PostgreSQL database a dump is made with pg_dump. The key in the data directory
    (secret.key) is not in it: keep a copy of it apart, or set PTEBOT_SECRET_KEY.
    """
    from bot.server import backup

    done = backup.backup(settings_of(config, data, database), out)
    console.document(file=str(done.file), size_bytes=done.size_bytes, version=done.version, jobs=done.jobs)
    jobs = f", {done.jobs:,} jobs" if done.jobs is not None else ""
    console.say(f"Backup: {done.file} ({done.size_bytes:,} bytes{jobs})")


@click.command(short_help="Put a backup in the place of the server's database.")
@click.argument("file", type=click.Path(path_type=Path))
@server_options
@output_options
@click.pass_obj
def restore(console: Console, file: Path, config: Path | None, data: Path | None, database: str | None) -> None:
    """Put FILE, made by `ptebot backup`, in the place of the server's database; what was there stays beside it.

    Refuses while a server lives on the database. A backup of an older ptebot is brought up to date when the server
    starts; one of a newer ptebot is refused.
    """
    from bot.server import backup

    done = backup.restore(settings_of(config, data, database), file)
    kept = str(done.kept) if done.kept is not None else None
    console.document(file=str(done.file), size_bytes=done.size_bytes, version=done.version, jobs=done.jobs, kept=kept)
    console.say(f"Restored: {done.file} ({done.jobs:,} jobs)")
    if kept is not None:
        console.say(f"What was there before: {kept}")
