"""What quantization costs, as Markdown for the card, pull requests and job summaries: a report in, text out. Pure.

Stage 5. Every word from the report goes through ``bot.publish.markdown``; a figure that was not measured is left out or
said to be missing, never shown as another number. Each function gives '' where a report has nothing to tell.
"""

from __future__ import annotations

from collections.abc import Iterator

from bot.publish import quality_plot, words
from bot.publish.markdown import code, details, table, text
from bot.publish.places import FOLDER
from exporter.report import Answer, Cell, Quality, Report, TextQuality

PLOT = f"{FOLDER}/quality.svg"
MOST_ROWS = 60
BESIDE = 4
"""Files whose answers stand beside each other in one table."""
MOST_TABLES = 3
MOST_ANSWERS = 12
MOST_ANSWER = 400
"""Characters of an answer that are shown."""
EXPLAINED = (
    "KL says how far the probabilities of the next token are from the original's, in nats; 0 is no difference, and one "
    "position in a hundred is worse than the 99th percentile. Same top token: how often the most likely next token is "
    "the original's."
)
COSTS = ("File", "Size", "Perplexity", "KL, mean", "KL, 99th percentile", "Same top token", "Same answers", "Verdict")
READING = "Further left is smaller, further down is closer to the original."
ALT = "A plot of each file's size against its KL from the original; the table has the same figures."


def named(cell: Cell) -> str:
    cache = "" if cell.cache == "fp32" else f" with the KV cache in {text(cell.cache)}"
    return f"{code(cell.backend)} {code(cell.precision)}{cache}"


def verdict(cell: Cell) -> str:
    """What a file's quantization costs, in the verdict's words."""
    if cell.quality is None:
        return "exact" if words.exact(cell) else words.NOT_MEASURED
    return words.VERDICT_WORDS.get(cell.quality.verdict) or text(cell.quality.verdict)


def costs(report: Report) -> str:
    """The original, then each file beside it, smallest first, with its figures over all kinds of text."""
    cells = report.good_cells
    measured = [cell.quality for cell in cells if cell.quality is not None]
    if not measured:
        return ""
    # A file too slow for all of the text has been measured on a part, where the original has another perplexity too.
    same_text = len({words.perplexity(one.perplexity_full) for one in measured}) == 1
    full = words.perplexity(measured[0].perplexity_full) if same_text else "in each row"
    size = words.size(words.weights(report.model)) or "–"
    rows = [[f"*the original* ({text(report.model.dtype, 40)})", size, full, *["–"] * 5]]
    rows += [
        [
            named(cell),
            words.size(cell.size_bytes) or "–",
            *_figures(cell.quality, same_text),
            words.answers_alike(cell) or "–",
            verdict(cell),
        ]
        for cell in sorted(cells[:MOST_ROWS], key=lambda cell: cell.size_bytes or 0)
    ]
    unknown = {
        4: all(one.kl_p99 is None for one in measured),
        6: not any(words.answers_alike(cell) for cell in cells),
    }
    shown = [place for place in range(len(COSTS)) if not unknown.get(place)]
    picked = [[row[place] for place in shown] for row in [list(COSTS), *rows]]
    return table(picked[0], picked[1:]) + _more(len(cells))


def by_kind(report: Report) -> str:
    """Each file's figures on each kind of text, kind by kind."""
    found = [
        (one.name, cell, one)
        for cell in report.good_cells
        for one in (cell.quality.texts if cell.quality is not None else [])
    ]
    kinds = list(dict.fromkeys(name for name, _, _ in found))
    rows = [
        [_kind(name), named(cell), *_figures(one, same_text=False), f"{one.positions:,}"]
        for kind in kinds
        for name, cell, one in found
        if name == kind
    ]
    header = ["Text", "File", "Perplexity", "KL, mean", "KL, 99th percentile", "Same top token", "Positions"]
    return table(header, rows[:MOST_ROWS]) + _more(len(rows)) if rows else ""


def answers(report: Report) -> str:
    """Greedy answers: a row for each question, with the original's answer and those of files beside it."""
    asked: dict[tuple[tuple[str, str], ...], list[Cell]] = {}
    for cell in report.good_cells:
        if cell.quality is not None and cell.quality.answers:
            questions = tuple((one.prompt, one.original) for one in cell.quality.answers)
            asked.setdefault(questions, []).append(cell)
    tables = [table for cells in asked.values() for table in _beside(cells)]
    more = ["Those of other files are in the manifest."] if len(tables) > MOST_TABLES else []
    return "\n\n".join([*tables[:MOST_TABLES], *more])


def _beside(cells: list[Cell]) -> Iterator[str]:
    """Tables of files that were asked the same, each of some files."""
    for first in range(0, len(cells), BESIDE):
        shown = cells[first : first + BESIDE]
        columns = [cell.quality.answers if cell.quality is not None else [] for cell in shown]
        rows = [
            [text(beside[0].prompt), text(beside[0].original, MOST_ANSWER), *map(_answer, beside)]
            for beside in list(zip(*columns, strict=True))[:MOST_ANSWERS]
        ]
        yield table(["Asked", "The original", *map(named, shown)], rows)


def left_out(report: Report) -> str:
    """What was not measured of a file, and why."""
    lines = [
        f"- {named(cell)}: {'; '.join(text(one) for one in cell.quality.left_out[:4])}."
        for cell in report.good_cells[:MOST_ROWS]
        if cell.quality is not None and cell.quality.left_out
    ]
    return "\n".join(["Not measured:", "", *lines]) if lines else ""


def repeating(report: Report) -> list[str]:
    """A line for each file that repeats itself in its answers where the original does not."""
    return [f"- {named(cell)}: {told}." for cell in report.good_cells if (told := words.repeating(cell))]


def plot(report: Report) -> str:
    """The plot as an image, which a card can show: ``PLOT`` lies beside it."""
    return f"![{ALT}]({PLOT})" if quality_plot.scatter(report) is not None else ""


def section(report: Report) -> list[str]:
    """What a card says of quality, in parts; none where nothing was quantized."""
    table_of_costs, image = costs(report), plot(report)
    if not table_of_costs:
        return []
    parts = [
        _measured_on(report),
        table_of_costs,
        image,
        f"{READING} {EXPLAINED}" if image else EXPLAINED,
        left_out(report),
        details("Figures by kind of text", by_kind(report)),
        details("Answers beside the original's", _how_asked(report), answers(report)),
    ]
    return [part for part in parts if part]


def _measured_on(report: Report) -> str:
    kinds = [one.name for cell in report.good_cells if cell.quality is not None for one in cell.quality.texts]
    told = [_kind(name) for name in list(dict.fromkeys(kinds))[:8]]
    if not told:
        return "Each file was measured against the original on the same few texts."
    where = " and ".join(filter(None, [", ".join(told[:-1]), told[-1]]))
    return f"Each file was measured against the original on text that it was not made with: {where}."


def _how_asked(report: Report) -> str:
    if not any(cell.quality is not None and cell.quality.answers for cell in report.good_cells):
        return ""
    return (
        "Always the most likely token, so that a file gives the same answer each time. Those that differ most come "
        "first; long ones are cut."
    )


def _figures(cost: Quality | TextQuality | None, same_text: bool) -> list[str]:
    """Perplexity, KL, its tail, and agreement."""
    if cost is None:
        return ["–"] * 4
    perplexity = words.perplexity(cost.perplexity)
    if not same_text:
        perplexity = f"{words.perplexity(cost.perplexity_full)} → {perplexity}"
    tail = words.NOT_MEASURED if cost.kl_p99 is None else words.nats(cost.kl_p99)
    return [perplexity, words.nats(cost.kl_mean), tail, words.share(cost.top1_agreement)]


def _answer(one: Answer) -> str:
    if one.same:
        return "*the same*"
    return f"{'**repeats itself:** ' if one.repeats else ''}{text(one.file, MOST_ANSWER)}"


def _kind(name: str) -> str:
    return words.TEXTS.get(name) or text(name, 60)


def _more(count: int) -> str:
    return f"\n\n{count - MOST_ROWS} more rows are in the manifest." if count > MOST_ROWS else ""
