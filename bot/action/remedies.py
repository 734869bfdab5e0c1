"""What to do about a file that was not made: a cell in, one or two sentences out. Pure; stage 6."""

from __future__ import annotations

from exporter.errors import InvalidCalibration, QualityBudgetNotMet
from exporter.report import Cell, Report, Status

STAGES = {
    "rehearse": (
        "The whole chain failed on one layer of this architecture, before the weights were loaded. Leave this backend "
        "or precision out, and report it with the log."
    ),
    "calibrate": (
        "Name UTF-8 text files of the model's own folder in `calibration`, with some thousand words, or leave it out; "
        "ask for `8da4w-rtn`, which calibrates nothing, if the log blames the model."
    ),
    "quantize": "Ask for `fp32`, or another precision; report the model with the log if it is a plain one.",
    "trace": "The architecture does something that torch.export cannot follow. Report it with the log.",
    "lower": "Leave this backend out (`backends`), or report the reason with the log: the others are not affected.",
    "write": "Check the free space on the runner, and run the job again.",
    "read back": "The written file is not what was lowered. Report it with the log.",
    "parity": (
        "The file does not answer like the model, so it is not offered. Another backend or precision may; report the "
        "first stage that differs with the log."
    ),
    "bisect": "Report it with the log.",
}
"""Remedy by the stage at which a cell failed; to add a stage, add a line."""
OTHERWISE = "Report it with the log."
SKIPPED = "Nothing, if that is what you want; else leave the combination out to have a shorter table."
DAMAGED = (
    "Try it before you recommend it. Quantization-aware training or another precision keeps more of a small model."
)


OWN: dict[int | None, str] = {
    QualityBudgetNotMet.exit_code: (
        "Allow a larger `max-kl` or `max-size`; the reason names the best that was found, and the report lists all "
        "that was tried."
    ),
    InvalidCalibration.exit_code: STAGES["calibrate"],
}
"""Remedy by a failure's own exit code, which says more than its stage."""


def of_cell(cell: Cell) -> str:
    """What a person can do; '' where there is nothing to do."""
    if cell.status is Status.FAILED and cell.exit_code in OWN:
        return OWN[cell.exit_code]
    if cell.status is Status.FAILED:
        return STAGES.get(cell.failed_stage or "", OTHERWISE)
    return SKIPPED if cell.status is Status.SKIPPED else ""


def next_steps(report: Report) -> list[str]:
    """Remedies of everything that failed, each once, in the order of the report."""
    return list(dict.fromkeys(of_cell(cell) for cell in report.cells if cell.status is Status.FAILED))
