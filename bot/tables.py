"""The report as a table for a terminal: a Report in, rich tables and plain sentences out."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from bot.console import Console, clean
from bot.publish import words
from bot.speed import Speeds
from exporter.report import Answer, Cell, Comparison, Report, Status, TextQuality

BAR_WIDTH = 12
STATUS_STYLE = {Status.FAILED: "bold red", Status.SKIPPED: "yellow"}


def show(console: Console, report: Report) -> None:
    """The table, then the remarks."""
    console.say(cells(report))
    if (found := quality(report)) is not None:
        console.say(found)
    for line in remarks(report):
        console.say(line)


def cells(report: Report) -> Table:
    """One row a cell: file, size beside its bar, what is delegated, parity, and what quantization costs."""
    table = Table(title=clean(f"{report.model.name}, context {report.max_seq_len} tokens"), title_justify="left")
    for heading in ("backend", "precision", "status", "size", "", "delegates / ops left", "parity", "quality"):
        table.add_column(heading, justify="right" if heading == "size" else "left")
    largest = max((cell.size_bytes or 0 for cell in report.cells), default=0)
    for cell in report.cells:
        status = Text(cell.status.value, style=STATUS_STYLE.get(cell.status, "green"))
        size = "" if cell.size_bytes is None else megabytes(cell.size_bytes)
        table.add_row(
            clean(cell.backend),
            clean(cell.precision),
            status,
            size,
            _bar(cell.size_bytes, largest),
            _delegation(cell),
            Text(clean(_parity(cell))),
            Text(clean(_quality(cell))),
        )
    return table


def quality(report: Report) -> Table | None:
    """Each file beside its original, on each kind of text; None where no kind was measured by itself."""
    table = Table(title="what quantization costs", title_justify="left")
    for heading in ("file", "text", "perplexity", "KL, mean", "KL, 99th percentile", "same top token"):
        table.add_column(heading, justify="left" if heading in ("file", "text") else "right")
    for cell in report.good_cells:
        for number, one in enumerate(cell.quality.texts if cell.quality is not None else []):
            table.add_row(
                clean(words.name(cell)) if number == 0 else "",
                clean(words.TEXTS.get(one.name, one.name)),
                *_costs(one),
            )
    return table if table.row_count else None


def texts(found: list[TextQuality]) -> Table:
    """One file beside its original, on each kind of text."""
    table = Table(title="what quantization costs", title_justify="left")
    for heading in ("text", "positions", "perplexity", "KL, mean", "KL, 99th percentile", "same top token"):
        table.add_column(heading, justify="left" if heading == "text" else "right")
    for one in found:
        table.add_row(clean(words.TEXTS.get(one.name, one.name)), f"{one.positions:,}", *_costs(one))
    return table


def answers(found: list[Answer]) -> Table:
    """A few greedy answers side by side, what repeats itself in red."""
    table = Table(title="answers", title_justify="left", show_lines=True)
    for heading in ("question", "original", "file"):
        table.add_column(heading, overflow="fold")
    for one in found:
        said = "the same" if one.same else clean(one.file)
        table.add_row(clean(one.prompt), clean(one.original), Text(said, style="bold red" if one.repeats else ""))
    return table


def _costs(one: TextQuality) -> tuple[str, ...]:
    return (
        f"{words.perplexity(one.perplexity_full)} → {words.perplexity(one.perplexity)}",
        words.nats(one.kl_mean),
        words.nats(one.kl_p99),
        words.share(one.top1_agreement),
    )


def remarks(report: Report) -> list[str]:
    """What the table has no room for: why a cell has no file, and notes on those that have one."""
    lines = []
    for cell in report.cells:
        name = f"{cell.backend} {cell.precision}"
        if cell.reason:
            stage = f" in {cell.failed_stage}" if cell.failed_stage else ""
            lines.append(f"{name}: {cell.status.value}{stage}: {cell.reason}")
        if cell.quality is not None and cell.quality.verdict != "faithful":
            lines.append(f"{name}: {cell.quality.words}")
        if told := words.repeating(cell):
            lines.append(f"{name}: {told}")
        lines.extend(f"{name}: {note}" for note in cell.notes)
    return lines


def comparisons(found: list[Comparison]) -> Table:
    """Every figure of a parity run beside its bound."""
    table = Table()
    for heading in ("against", "figure", "value", "bound", ""):
        table.add_column(heading)
    for comparison in found:
        for figure in comparison.figures:
            bound = "" if figure.bound is None else f"{figure.relation} {figure.bound:.6g}"
            verdict = Text("passed", style="green") if figure.passed else Text("failed", style="bold red")
            table.add_row(clean(comparison.against), clean(figure.name), f"{figure.value:.6g}", bound, verdict)
    return table


def speeds(found: Speeds) -> Table:
    """Tokens per second of each file, and how they stand to the original's."""
    table = Table(title="tokens per second on this machine", title_justify="left")
    for heading in ("", "prefill", "decode", "prefill / eager", "decode / eager"):
        table.add_column(heading, justify="right" if heading else "left")
    named = {f"{backend} {precision}": one for (backend, precision), one in found.cells.items()}
    eager = {"eager float32": found.eager} if found.eager else {}
    for name, one in {**eager, **named}.items():
        ratios = ["", ""]
        if found.eager and one is not found.eager:
            ratios = [f"{one.prefill / found.eager.prefill:.2f}", f"{one.decode / found.eager.decode:.2f}"]
        table.add_row(name, f"{one.prefill:,.0f}", f"{one.decode:,.1f}", *ratios)
    return table


def megabytes(size_bytes: int) -> str:
    """Decimal megabytes, as the Hub counts."""
    return f"{size_bytes / 1e6:,.1f} MB"


def _bar(size: int | None, largest: int) -> Text:
    return Text("█" * max(1, round(BAR_WIDTH * size / largest)) if size and largest else "", style="cyan")


def _delegation(cell: Cell) -> str:
    if cell.delegation is None:
        return ""
    return f"{cell.delegation.delegates} / {sum(cell.delegation.leftover_ops.values())}"


def _parity(cell: Cell) -> str:
    if cell.parity is None:
        return ""
    missed = [figure.name for item in cell.parity.comparisons for figure in item.figures if not figure.passed]
    if missed:
        return f"failed: {', '.join(missed)}"
    return f"{'passed' if cell.parity.passed else 'failed'}, {cell.parity.positions} positions"


def _quality(cell: Cell) -> str:
    if cell.quality is None:
        return ""
    cost = cell.quality
    return f"{cost.verdict}: {words.share(cost.top1_agreement)} same top token, KL {words.nats(cost.kl_mean)}"
