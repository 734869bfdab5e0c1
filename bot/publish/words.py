"""A report's cells in words and rounded numbers, the same in the card and in the pull request. Pure; stage 5.

Nothing here is escaped: ``bot.publish.markdown`` does that where the words become Markdown.
"""

from __future__ import annotations

import math

from exporter.report import Cell, Comparison, Figure, ModelInfo, Report, Status

STATUS_WORDS = {
    Status.RAN: "ran on the ExecuTorch runtime, every bound met",
    Status.SIMULATED: "ran on a simulator of the device, every bound met",
    Status.INTERPRETED: "its graph and weights were run by an independent interpreter, every bound met",
    Status.INSPECTED: "only its structure was checked",
    Status.SKIPPED: "skipped",
    Status.FAILED: "failed",
}
VERDICT_WORDS = {
    "faithful": "quantization costs little",
    "degraded": "quantization costs quality",
    "damaged": "**damaged by quantization**: do not use it without reading on",
}
"""Words for exporter/bounds.py's verdicts; any other verdict is shown as it is."""
REFERENCES = {"full precision": "the original in full precision", "quantized eager": "its quantized reference"}
_SIGNS = {"<=": "≤", ">=": "≥"}
TEXTS = {"docs": "documentation", "code": "code", "chat": "chat", "own": "the owner's text"}
"""Kinds of text that quality is measured on; any other is shown as it is."""
NOT_MEASURED = "not measured"
_RANK = {"faithful": 0, "degraded": 1, "damaged": 3}
_ALIKE = 1.02
"""Sizes within some 2 % of each other count as one where files are ranked."""
_MOST_BYTES = 1 << 62
"""What is larger is no file's size, and may be too large for a float."""


def name(cell: Cell) -> str:
    return f"{cell.backend} {cell.precision}"


def size(size_bytes: int | None) -> str:
    """Decimal units, as the Hub counts; '' for none, and for a number that no file has."""
    if size_bytes is None or not 0 <= size_bytes <= _MOST_BYTES:
        return ""
    if size_bytes < 1e5:
        return f"{size_bytes:,} bytes"
    return f"{size_bytes / 1e6:,.1f} MB"


def delegation(cell: Cell) -> str:
    if cell.delegation is None:
        return ""
    count = cell.delegation.delegates
    left = sum(cell.delegation.leftover_ops.values())
    delegates = f"{count} delegate{'' if count == 1 else 's'}" if count else "no delegate"
    return f"{delegates}, {left:,} op{'' if left == 1 else 's'} left"


def parity(cell: Cell) -> str:
    """The comparison that says most about the file, with its first bounded figure."""
    if cell.parity is None:
        return "" if cell.status in (Status.SKIPPED, Status.FAILED) else "not run"
    comparison = _telling(cell.parity.comparisons)
    passed = cell.parity.passed
    if comparison is None:
        return "passed" if passed else "failed"
    verb = "matches" if passed else "differs from"
    told = _telling_figure(comparison, passed)
    return f"{verb} {REFERENCES.get(comparison.against, comparison.against)}" + (f": {figure(told)}" if told else "")


def figure(one: Figure) -> str:
    bound = "" if one.bound is None else f" (bound {_SIGNS.get(one.relation, one.relation)} {one.bound:.3g})"
    return f"{one.name.replace('_', ' ')} {one.value:.3g}{bound}"


def quality(cell: Cell) -> str:
    """All figures of what quantization cost, in one line."""
    if cell.quality is None:
        return ""
    cost = cell.quality
    tail = "" if cost.kl_p99 is None else f" (99th percentile {nats(cost.kl_p99)})"
    return (
        f"perplexity {perplexity(cost.perplexity_full)} → {perplexity(cost.perplexity)}, "
        f"same top token {share(cost.top1_agreement)}, KL {nats(cost.kl_mean)} nats{tail}"
    )


def perplexity(value: float | None) -> str:
    return _number(value, ".2f" if value is not None and abs(value) < 1000 else ".3g")


def nats(value: float | None) -> str:
    """A KL divergence, without its unit."""
    return _number(value, ".3g")


def share(value: float | None) -> str:
    return _number(value, ".1%")


def weights(model: ModelInfo) -> int | None:
    """Bytes of the original's weights as they are published; None where the report has none."""
    sizes = [file.size_bytes for file in model.files if file.path.endswith(".safetensors")]
    total = sum(one for one in sizes if one > 0)
    return total if 0 < total <= _MOST_BYTES else None


def exact(cell: Cell) -> bool:
    """Whether the cell's weights were kept as they are, so that there is no cost to measure."""
    return cell.quality is None and cell.quantization is None and cell.precision == "fp32" and cell.cache == "fp32"


def answers_alike(cell: Cell) -> str:
    """``11 of 12``: short greedy answers that are the original's; '' where none were asked for."""
    asked, same, _ = _answered(cell)
    return f"{same:,} of {asked:,}" if asked else ""


def repeating(cell: Cell) -> str:
    """Tells where short answers of the file run into repetition; '' where none does, or none was asked for."""
    asked, _, bad = _answered(cell)
    return f"{bad:,} of {asked:,} short answers repeat themselves where the original's do not" if bad > 0 else ""


def _answered(cell: Cell) -> tuple[int, int, int]:
    """Answers that were compared, those that are the original's, and those that repeat themselves."""
    cost = cell.quality
    if cost is None or cost.answers_total < 1:
        return 0, 0, 0
    return cost.answers_total, cost.answers_same, cost.answers_repeating


def damaged(cell: Cell) -> bool:
    return cell.quality is not None and cell.quality.verdict == "damaged"


def recommended(report: Report) -> Cell | None:
    """The file to try first; None where there is none.

    The verdict counts most: a file that lost the model is no bargain at any size. Exact and faithful files are equals
    here, so that a small faithful one goes before the original's size. Then what an app feels on every call: a prompt
    read in one go, and a delegate at work; the portable kernels may save a few bytes and cost seconds a token. Among
    files that are equal so far the smaller goes first. Sizes that are all but the same (calibrated and rounded files of
    one format differ by alignment) are told apart by KL instead, and only then by bytes.
    """
    return min(report.good_cells, key=_preference, default=None)


def _preference(cell: Cell) -> tuple[int, bool, bool, int, float, int]:
    verdict = _RANK.get(cell.quality.verdict, 2) if cell.quality is not None else 0
    undelegated = cell.delegation is None or cell.delegation.delegates == 0
    size_bytes = min(max(cell.size_bytes or 0, 0), _MOST_BYTES)
    magnitude = round(math.log(size_bytes, _ALIKE)) if size_bytes else 0
    lost = cell.quality.kl_mean if cell.quality is not None else 0.0
    lost = lost if math.isfinite(lost) else math.inf
    return verdict, cell.shape_policy != "dynamic", undelegated, magnitude, lost, size_bytes


def _number(value: float | None, form: str) -> str:
    return format(value, form) if value is not None and math.isfinite(value) else NOT_MEASURED


def _telling(comparisons: list[Comparison]) -> Comparison | None:
    """A failed one; else the one with its own reference, which says whether the lowering is right."""
    failed = [item for item in comparisons if not item.passed]
    lowering = [item for item in comparisons if item.against != "full precision"]
    return next(iter([*failed, *lowering, *comparisons]), None)


def _telling_figure(comparison: Comparison, passed: bool) -> Figure | None:
    failed = [item for item in comparison.figures if not item.passed and not passed]
    bounded = [item for item in comparison.figures if item.bound is not None]
    return next(iter([*failed, *bounded, *comparison.figures]), None)
