"""``ptebot export MODEL``: a model directory or a Hub id in, .pte files and report.json out. No publishing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from bot.commands.options import build_spec, hub_options, memory_option, output_options, spec_options
from bot.console import Console


@click.command(short_help="Make .pte files of a model; publish nothing.")
@click.argument("model")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to write; absent or empty.  [default: ptebot-out/<model>]",
)
@click.option("--bench", is_flag=True, help="Measure the speed of the files on this machine too.")
@spec_options
@memory_option
@hub_options
@output_options
@click.pass_obj
def command(
    console: Console,
    model: str,
    out: Path | None,
    bench: bool,
    memory_limit: int | None,
    revision: str | None,
    endpoint: str | None,
    **spec: Any,
) -> None:
    """Make .pte files of MODEL: a directory that save_pretrained wrote, or an id on the Hub.

    Writes report.json and BACKEND/MODEL_BACKEND_PRECISION.pte, all of it or nothing. Exit code 3: no file
    passed (report.json says why); 43: none is within --max-kl and --max-size.
    """
    from bot import export_process, sources, speed, tables
    from bot.sandbox.call import within
    from exporter import report as reports

    source = sources.open_model(model, revision=revision, endpoint=endpoint)
    asked = build_spec(model=source.ref, **spec)
    source = source.with_texts(asked.calibration)
    out = out or Path("ptebot-out", source.ref.name or str(source.ref.repo_id).rpartition("/")[2])
    if isinstance(source, sources.HubModel):
        export_process.check_spec(asked, on_log=console.log)
    sources.check_output(out)
    conditions = within(memory_limit)
    with console.progress() as show:
        directory = source.fetch(show)
        report = export_process.run_export(
            asked, directory, out, on_progress=show, on_log=console.log, conditions=conditions
        )
        speeds = None
        if bench:
            speeds = speed.attempt(report, out, directory, on_progress=show, on_log=console.log, conditions=conditions)
    console.document(out=str(out.absolute()), report=json.loads(reports.dumps(report)))
    tables.show(console, report)
    if speeds is not None:
        console.document(speeds=speed.as_data(speeds))
        console.say(tables.speeds(speeds))
        for note in speeds.notes:
            console.say(note)
    console.say(f"Written: {out}")
    if not report.good_cells:
        raise export_process.nothing_good(
            report, f"None of the {len(report.cells)} cells has a file that passed; reasons in {out / 'report.json'}."
        )
