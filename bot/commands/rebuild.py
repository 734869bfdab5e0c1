"""``ptebot rebuild MANIFEST``: exports again what a manifest describes and compares every file."""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bot.commands.options import output_options
from bot.console import Console
from bot.errors import InvalidManifest, RebuildDiffers
from exporter import calibration_files
from exporter.report import Report

if TYPE_CHECKING:
    from bot.sources import HubModel, LocalModel

MAX_MANIFEST_BYTES = 64 * 1024 * 1024


@click.command(short_help="Export again what a manifest describes, and compare.")
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option(
    "--model",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The model's directory.  [default: the manifest's repository at its pinned revision]",
)
@click.option("--endpoint", metavar="URL", envvar="HF_ENDPOINT", show_envvar=True, help="The Hub's address.")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), help="Keep the rebuilt files here; absent or empty."
)
@output_options
@click.pass_obj
def command(console: Console, manifest: Path, model: Path | None, endpoint: str | None, out: Path | None) -> None:
    """Export again what MANIFEST describes (report.json, or executorch/manifest.json of a repository).

    Says MATCH when every file has the same bytes again; otherwise says which input, version or file differs,
    with exit code 52.
    """
    from bot import export_process, hashes, rebuild, sources
    from exporter import report as reports

    then = read_manifest(manifest)
    source = sources.open_model(str(model), revision=None, endpoint=None) if model else _pinned(then, endpoint)
    if out is not None:
        sources.check_output(out)
    with ExitStack() as stack:
        kept = out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ptebot-rebuild-")), "out")
        show = stack.enter_context(console.progress())
        directory = source.with_texts(then.spec.calibration).fetch(show)
        paths = {file.path: directory / file.path for file in then.model.files}
        now = {name: hashes.sha256_of(path) if path.is_file() else None for name, path in paths.items()}
        found = rebuild.Differences(inputs=rebuild.inputs(then.model.files, now))
        if found.match:
            again = export_process.run_export(then.spec, directory, kept, on_progress=show, on_log=console.log)
            found = rebuild.Differences(
                versions=rebuild.versions(then.toolchain, again.toolchain), files=rebuild.files(then, again)
            )
            console.document(report=json.loads(reports.dumps(again)))
    lines = [*found.inputs, *found.versions, *found.files]
    console.document(match=found.match, **asdict(found))
    for line in lines:
        console.say(line)
    if not found.match:
        raise RebuildDiffers(f"{len(found.inputs) + len(found.files)} of the manifest's inputs and files differ.")
    console.say(f"MATCH: {len(then.good_cells)} files, the same bytes again.")


def read_manifest(path: Path) -> Report:
    """The report in ``path``, whose input names are plain file names.

    Raises:
        InvalidManifest: not there, too large, not a report, without a good cell, or with unsafe names.
    """
    from pydantic import ValidationError

    from exporter import report as reports

    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise InvalidManifest(f"{path} is larger than {MAX_MANIFEST_BYTES:,} bytes.")
        report = reports.load(path)
    except OSError as error:
        raise InvalidManifest(f"{path} cannot be read: {error.strerror}.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the document"
        raise InvalidManifest(f"{path} does not follow the schema: {where}: {first['msg']}.") from None
    texts = report.spec.calibration
    unsafe = [
        file.path
        for file in report.model.files
        if calibration_files.wrong(file.path) is not None or ("/" in file.path and file.path not in texts)
    ]
    if unsafe:
        raise InvalidManifest(f"{path} names inputs outside the model's directory: {unsafe[0]!r}.")
    if not report.good_cells:
        raise InvalidManifest(f"{path} describes no file that passed: there is nothing to compare.")
    return report


def _pinned(report: Report, endpoint: str | None) -> HubModel | LocalModel:
    from bot import sources

    if report.model.repo_id is None or report.model.revision is None:
        raise InvalidManifest(
            "The manifest names no repository and revision: it was made from a directory.",
            remedy="Give that directory with --model.",
        )
    return sources.open_model(report.model.repo_id, revision=report.model.revision, endpoint=endpoint)
