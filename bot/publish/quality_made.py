"""How the weights of the files were made smaller, as Markdown: a report in, text out. Pure; stage 5.

Files that were quantized alike are told together. Which algorithm it was, only the report's own words say.
"""

from __future__ import annotations

from collections.abc import Iterable

from bot.publish import words
from bot.publish.markdown import code, one_line, table, text
from bot.publish.quality import named
from exporter.report import CalibrationUsed, Cell, LayerFormat, Quantization, Report, Tried

MOST_GROUPS = 12
MOST_REASONS = 8
MOST_LAYERS = 4
"""Names that stand for all of a group."""
MOST_TRIED = 16
FORMATS = {
    "int4": "4 bits (groups of 32)",
    "int8": "8 bits (one scale a row)",
    "fp32": "32 bits",
}
"""exporter/report.py's formats of weights in words; any other is shown as it is."""


def making(report: Report) -> str:
    """Algorithm, bits, calibration text, layers left out of it and what was tried; '' where nothing was quantized."""
    groups: list[tuple[Quantization, list[Cell]]] = []
    for cell in report.good_cells:
        if cell.quantization is None:
            continue
        alike = next((cells for one, cells in groups if one == cell.quantization), None)
        if alike is not None:
            alike.append(cell)
        else:
            groups.append((cell.quantization, [cell]))
    parts = [_group(report, one, cells) for one, cells in groups[:MOST_GROUPS]]
    if len(groups) > MOST_GROUPS:
        parts.append(f"{len(groups) - MOST_GROUPS} more are in the manifest.")
    return "\n\n".join(parts)


def _group(report: Report, one: Quantization, cells: list[Cell]) -> str:
    lines = [f"{', '.join(named(cell) for cell in cells[:8])}: {text(one.algorithm, 800)}", ""]
    lines += [f"- {line}" for line in [_bits(one.parameters), _calibration(one.calibration)] if line]
    lines += [f"- {line}" for line in _left_out(one.layers)]
    if any(cell.precision == "auto" for cell in cells) and (budget := _budget(report)):
        lines.append(f"- Asked for: {budget}.")
    tried = _tried(one.tried)
    return "\n".join(lines).rstrip() + (f"\n\n{tried}" if tried else "")


def _bits(parameters: dict[str, int]) -> str:
    """Shares of the parameters by format, the largest first."""
    counts = {name: count for name, count in parameters.items() if count > 0}
    whole = sum(counts.values())
    shares = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:6]
    told = [f"{_share(count / whole)} in {FORMATS.get(name) or text(name, 40)}" for name, count in shares]
    return f"Parameters: {', '.join(told)}" if told else ""


def _share(value: float) -> str:
    return f"{value:.1%}" if value >= 0.001 else "under 0.1%"


def _calibration(used: CalibrationUsed | None) -> str:
    if used is None:
        return ""
    sources = sorted(used.sources.items(), key=lambda item: (-item[1], item[0]))
    told = ", ".join(f"{_source(name)} {count:,}" for name, count in sources[:8])
    told += f" and {len(sources) - 8} more" if len(sources) > 8 else ""
    of = f" ({told})" if told else ""
    return (
        f"Calibration: {used.tokens:,} tokens in {used.sequences:,} sequences{of}, seed {used.seed}, "
        f"SHA-256 {code(used.sha256, 64)}"
    )


def _source(name: str) -> str:
    if name == "generated":
        return "the model's own words"
    return words.TEXTS.get(name) or code(name, 80)


def _left_out(layers: Iterable[LayerFormat]) -> list[str]:
    """Layers that calibration did not reach or could not do, one line for each reason."""
    groups: dict[tuple[str, str], list[LayerFormat]] = {}
    for layer in layers:
        if layer.reason is not None:
            groups.setdefault((layer.algorithm, layer.reason), []).append(layer)
    lines = []
    for (algorithm, reason), found in list(groups.items())[:MOST_REASONS]:
        names = ", ".join(code(layer.name, 100) for layer in found[:MOST_LAYERS])
        more = f" and {len(found) - MOST_LAYERS} more" if len(found) > MOST_LAYERS else ""
        count = "1 layer" if len(found) == 1 else f"{len(found)} layers"
        lines.append(f"{count} {text(algorithm, 40)}: {text(reason)} ({names}{more})")
    if len(groups) > MOST_REASONS:
        lines.append(f"{len(groups) - MOST_REASONS} more reasons are in the manifest")
    return lines


def _budget(report: Report) -> str:
    asked = []
    if report.spec.max_kl is not None:
        asked.append(f"a mean KL of at most {words.nats(report.spec.max_kl)}")
    if report.spec.max_size is not None:
        asked.append(f"at most {words.size(report.spec.max_size)}")
    return " and ".join(asked)


def _tried(tried: list[Tried]) -> str:
    """Assignments that were measured, smallest first; where they are many, the chosen one is among those shown."""
    if not tried:
        return ""
    order = sorted(tried, key=lambda one: (one.size_bytes, one.kl_mean))
    shown = order
    if len(order) > MOST_TRIED:
        step = (len(order) - 1) / (MOST_TRIED - 1)
        kept = {round(number * step) for number in range(MOST_TRIED)}
        shown = [one for number, one in enumerate(order) if number in kept or one.chosen]
    rows = [
        [
            text(one_line(one.what, 160)),
            words.size(one.size_bytes) or "–",
            words.nats(one.kl_mean),
            "**chosen**" if one.chosen else "yes" if one.within else "no",
        ]
        for one in shown[: 2 * MOST_TRIED]
    ]
    left = len(order) - len(rows)
    heading = f"What was tried ({len(order)}; sizes are estimates, KL is that of the quantized model before lowering):"
    more = f"\n\n{left} more are in the manifest." if left else ""
    return f"{heading}\n\n" + table(["Assignment", "Size", "KL, mean", "Within the budget"], rows) + more
