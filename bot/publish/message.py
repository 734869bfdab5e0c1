"""A pull request's title, description and closing words: a Report in, text out. Pure; stage 5.

The Hub takes titles of 3 to 200 characters and descriptions of at most 65,536.
"""

from __future__ import annotations

import re

from bot import plan
from bot.publish import quality, words
from bot.publish.card import MANIFEST, files_table, missing_list, quality_notes
from bot.publish.markdown import code, one_line, text
from bot.publish.marker import CLOSED, Marker
from exporter.report import Cell, Report

MAX_TITLE = 200
MAX_DESCRIPTION = 65_536
CHANGES = (
    "What changes in the repository: the files above, the manifest "
    f"`{MANIFEST}` with every hash and figure, a plot of them where something was quantized, a section of README.md "
    "between markers, and the tag `executorch`. "
    "The rest of the card keeps every byte."
)
REBUILDING = f"ptebot rebuild {MANIFEST}"
_SHA = re.compile(r"[0-9a-f]{40}")


def pr_title(report: Report) -> str:
    """What is added, in one line."""
    backends = ", ".join(dict.fromkeys(one_line(cell.backend, 40) for cell in report.good_cells))
    precisions = ", ".join(dict.fromkeys(one_line(cell.precision, 40) for cell in report.good_cells))
    return one_line(f"Add ExecuTorch files: {backends} ({precisions})", MAX_TITLE)


def marker_of(report: Report) -> Marker:
    """The marker of a pull request that offers this report."""
    revision = report.model.revision or ""
    return Marker(
        source=plan.source_fingerprint(report.model.files),
        identity=plan.identity(report),
        revision=revision if _SHA.fullmatch(revision) else None,
    )


def pr_description(report: Report, *, changes: str = CHANGES, rebuilding: str = REBUILDING) -> str:
    """The whole description, marker included; the table is left out where it would be too long.

    Args:
        changes: what it changes in the repository, as Markdown.
        rebuilding: the command that makes the files again.
    """
    full = _description(report, summary_table(report), changes, rebuilding)
    if len(full) <= MAX_DESCRIPTION:
        return full
    table = f"{len(report.good_cells)} files; the table is in README.md and in `{MANIFEST}`."
    short = _description(report, table, changes, rebuilding)
    if len(short) <= MAX_DESCRIPTION:
        return short
    return f"{marker_of(report).line()}\n\nExecuTorch files of this model; see README.md and `{MANIFEST}`.\n"


def summary_table(report: Report) -> str:
    """Every cell: the files that are offered, what quantization costs, then what was asked for and is not offered.

    It has no plot: a description's relative links do not lead to the branch that has the file.
    """
    missing, costs = missing_list(report), quality.costs(report)
    parts = [
        files_table(report, None),
        *([costs, quality.EXPLAINED] if costs else []),
        *(["Not offered:", "\n".join(missing)] if missing else []),
    ]
    return "\n\n".join(parts)


def closing_comment(kept: int) -> str:
    """For a pull request of ours that another one of ours replaces."""
    return f"{CLOSED}\nClosed in favour of pull request {kept}: there is one from ptebot per repository."


def replacing_comment() -> str:
    """For a pull request of ours that can no longer be merged."""
    return (
        f"{CLOSED}\nREADME.md changed in the same place on the main branch, so this pull request can no longer be "
        "merged. A new one, made from the main branch as it is now, replaces it."
    )


def _description(report: Report, table: str, changes: str, rebuilding: str) -> str:
    source = f"revision {code(report.model.revision)}" if report.model.revision else "a local directory"
    parts = [
        marker_of(report).line(),
        f"This adds [ExecuTorch](https://docs.pytorch.org/executorch) programs of {text(report.model.name, 120)}, "
        f"made from {source}, for use on phones, laptops and embedded devices. Weights, config and tokenizer stay as "
        "they are.",
        table,
        *_warnings(report),
        changes,
        "To make the files again and compare them byte by byte, run "
        f"`{rebuilding}`. Run again after the model changed, ptebot refreshes this pull request. "
        "Close it, and none is opened again for the same weights.",
        f"Made by {text(report.generator)}.",
    ]
    return "\n\n".join(parts) + "\n"


def _warnings(report: Report) -> list[str]:
    lines = quality_notes(report)
    return [_warning_title(report.good_cells), "\n".join(lines)] if lines else []


def _warning_title(cells: list[Cell]) -> str:
    if any(words.damaged(cell) for cell in cells):
        return "**Quantization damaged a file here.** It runs as it should, but answers poorly:"
    return "What quantization costs:"
