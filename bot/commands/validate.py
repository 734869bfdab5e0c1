"""``ptebot validate FILE.pte --model MODEL``: any file of this signature against its model, whoever made it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bot.commands.options import check_texts, hub_options, output_options
from bot.console import Console
from exporter.errors import InvalidPte, NoGoodCell

if TYPE_CHECKING:
    from exporter.report import Quality


@click.command(short_help="Run a .pte file against its model.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--model", required=True, help="The model: a directory, or an id on the Hub.")
@click.option(
    "--calibration",
    metavar="FILE",
    multiple=True,
    help="A text file of the model's repository or directory that the export was given, by its path in there: FILE is "
    "judged on the part of it that did not calibrate; may be given again.",
)
@hub_options
@output_options
@click.pass_obj
def command(
    console: Console,
    file: Path,
    model: str,
    calibration: tuple[str, ...],
    revision: str | None,
    endpoint: str | None,
) -> int:
    """Run FILE on the ExecuTorch runtime and compare it with the eager MODEL, position by position.

    FILE needs forward(input_ids [1, S] int64, cache_position [S] int64) -> logits. Exit code 0: it stands
    within the bounds; 3: it does not. A file that rounds is judged by what quantization cost on several kinds of text;
    give the --calibration of its export to judge it on the same.
    """
    from bot import export_process, sources
    from bot.sandbox.call import Reads

    if not file.is_file():
        raise InvalidPte(f"{file} is not a file.")
    check_texts(calibration)
    source = sources.open_model(model, revision=revision, endpoint=endpoint).with_texts(calibration)
    with console.progress() as show:
        directory = source.fetch(show)
        found = export_process.run_stages(
            "exporter.validate",
            [Reads(file), Reads(directory, texts=calibration), *calibration],
            on_progress=show,
            on_log=console.log,
            good_exits=(NoGoodCell.exit_code,),
        )
    if found is None:
        raise InvalidPte(f"Nothing could be said of {file}.")
    result = found["validation"]
    console.document(file=str(file), model=model, **result)
    _tell(console, result)
    return 0 if result["passed"] else NoGoodCell.exit_code


def _tell(console: Console, result: dict[str, Any]) -> None:
    from pydantic import TypeAdapter

    from bot import tables
    from exporter.report import Parity, Quality

    if result["parity"] is not None:
        parity = TypeAdapter(Parity).validate_python(result["parity"])
        console.say(tables.comparisons(parity.comparisons))
        console.say(f"{parity.positions} positions of {len(parity.texts)} texts; {', '.join(parity.schedules)}")
    if result["quality"] is not None:
        _tell_quality(console, TypeAdapter(Quality).validate_python(result["quality"]))
    for problem in result["metadata_problems"]:
        console.say(f"Metadata: {problem}")
    console.say("PASSED" if result["passed"] else f"FAILED: {result['reason']}")


def _tell_quality(console: Console, quality: Quality) -> None:
    from bot import tables

    if quality.texts:
        console.say(tables.texts(quality.texts))
    console.say(
        f"Against full precision: same top token at {quality.top1_agreement:.1%}, mean KL {quality.kl_mean:.3g} "
        f"nats, perplexity {quality.perplexity:.4g} (full precision {quality.perplexity_full:.4g})"
    )
    if quality.answers:
        console.say(tables.answers(quality.answers))
    if quality.answers_total:
        console.say(
            f"Short answers: {quality.answers_same} of {quality.answers_total} are the original's; "
            f"{quality.answers_repeating} repeat themselves where the original's do not"
        )
    for line in quality.left_out:
        console.say(f"Not measured: {line}")
    console.say(f"Quality: {quality.verdict}: {quality.words}")
