"""A report's cells in words and rounded numbers, the same in the card and in the pull request. Pure; stage 5.

Nothing here is escaped: ``bot.publish.markdown`` does that where the words become Markdown.
"""

from __future__ import annotations

from exporter.report import Cell, Comparison, Figure, Report, Status

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
_RANK = {"faithful": 0, "degraded": 1, "damaged": 3}


def name(cell: Cell) -> str:
    return f"{cell.backend} {cell.precision}"


def size(size_bytes: int | None) -> str:
    """Decimal units, as the Hub counts."""
    if size_bytes is None:
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
    if cell.quality is None:
        return ""
    cost = cell.quality
    return (
        f"perplexity {cost.perplexity_full:.2f} → {cost.perplexity:.2f}, "
        f"same top token {cost.top1_agreement:.1%}, KL {cost.kl_mean:.3g} nats"
    )


def damaged(cell: Cell) -> bool:
    return cell.quality is not None and cell.quality.verdict == "damaged"


def recommended(report: Report) -> Cell | None:
    """The file to try first: not damaged, dynamic prefill, delegated, small, in this order of weight."""
    return min(report.good_cells, key=_preference, default=None)


def _preference(cell: Cell) -> tuple[int, bool, bool, int]:
    verdict = _RANK.get(cell.quality.verdict, 2) if cell.quality is not None else 0
    undelegated = cell.delegation is None or cell.delegation.delegates == 0
    return verdict, cell.shape_policy != "dynamic", undelegated, cell.size_bytes or 0


def _telling(comparisons: list[Comparison]) -> Comparison | None:
    """A failed one; else the one with its own reference, which says whether the lowering is right."""
    failed = [item for item in comparisons if not item.passed]
    lowering = [item for item in comparisons if item.against != "full precision"]
    return next(iter([*failed, *lowering, *comparisons]), None)


def _telling_figure(comparison: Comparison, passed: bool) -> Figure | None:
    failed = [item for item in comparison.figures if not item.passed and not passed]
    bounded = [item for item in comparison.figures if item.bound is not None]
    return next(iter([*failed, *bounded, *comparison.figures]), None)
