"""``ptebot inspect FILE.pte``: what a file holds, read from its bytes in a child process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from bot.commands.options import output_options
from bot.console import Console, clean


@click.command(short_help="What a .pte file holds.")
@click.argument("file", type=click.Path(path_type=Path))
@output_options
@click.pass_obj
def command(console: Console, file: Path) -> None:
    """Show FILE's methods, metadata, delegates, left-over ops and where its bytes are."""
    from bot import export_process
    from bot.sandbox.call import Reads
    from exporter.errors import InvalidPte

    if not file.is_file():
        raise InvalidPte(f"{file} is not a file.")
    found = export_process.run_stages("exporter.inspect", [Reads(file)], on_log=console.log)
    if found is None:
        raise InvalidPte(f"Nothing could be read from {file}.")
    console.document(file=str(file), **found)
    console.say(_table(file, found))


def _table(file: Path, found: dict[str, Any]) -> Table:
    table = Table(title=clean(str(file)), title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")

    def row(name: str, value: object) -> None:
        table.add_row(name, clean(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)))

    row("size", f"{found['size_bytes']:,} bytes")
    row("sha256", found["sha256"])
    for part, size in found["bytes_by_part"].items():
        row(f"  {part}", f"{size:,} bytes, {size / max(1, found['size_bytes']):.1%}")
    row("methods", ", ".join(found["methods"]))
    for entry in found["inputs"]:
        row("  input", f"{entry['dtype']}, sizes {entry['sizes']}")
    for name, value in found["metadata"].items():
        row(f"  {name}", value)
    row("delegates", f"{found['delegates']} calls: {', '.join(found['delegate_ids']) or 'none'}")
    row("left-over ops", f"{sum(found['leftover_ops'].values())} calls")
    for name, count in sorted(found["leftover_ops"].items(), key=lambda item: (-item[1], item[0])):
        row(f"  {name}", count)
    return table
