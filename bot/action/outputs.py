"""The Action's outputs: one table, and values written so that none can become another. Stage 6, and the last.

In: how the step ended. Out: the file that ``GITHUB_OUTPUT`` names, which later steps read as
``steps.<id>.outputs.<name>``; ``result`` is one JSON document with everything (``fromJSON``). Paths are relative to
the workspace: those of the container mean nothing to a later step. To add an output: a line in the table, a value
where ``values`` makes them, and ``make docs``.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bot.action.status import MEANINGS, Ended
from bot.console import describe
from bot.publish.markdown import one_line
from exporter.errors import PtebotError
from exporter.report import Cell, Comparison, Quality, Quantization, Report

if TYPE_CHECKING:
    from bot.publish.loop import Published

MAX_RESULT = 400_000
"""Characters of ``result``. GitHub takes 1 MB for all outputs of a job, counted in UTF-16."""
MOST_TEXTS = 8
"""Kinds of text of a cell; the exporter knows four."""
MAX_VALUE = 2000
"""Characters of any other output."""
RESULT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Output:
    """One output as action.yml declares it."""

    name: str
    description: str


OUTPUTS: tuple[Output, ...] = (
    Output(
        name="status",
        description="; ".join(f"`{word}`: {meaning}" for word, meaning in MEANINGS.items()) + ".",
    ),
    Output(
        name="pr-operation",
        description="`created`, `updated`, `unchanged` or `none`; in a dry run, what would have been done.",
    ),
    Output(name="pr-url", description="The pull request's address; empty where there is none."),
    Output(name="report", description="Path of report.json in the workspace; empty where nothing was exported."),
    Output(name="manifest", description="Path of the manifest as it is published; empty where none is offered."),
    Output(
        name="result",
        description="One JSON document with all of this and every file's figures; a later step reads it with fromJSON.",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where this step's files lie."""

    workspace: Path
    out_dir: Path | None = None
    """The folder with ``report.json`` and the files; None where none was kept."""
    manifest: Path | None = None


def values(
    ended: Ended,
    place: Place,
    *,
    report: Report | None = None,
    published: Published | None = None,
    error: BaseException | None = None,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Every output of a step.

    Args:
        extra: further parts of ``result``: the event, the model; plain JSON data.
    """
    single = {
        "status": ended.status,
        "pr-operation": published.operation if published else "none",
        "pr-url": (published.pr_url or "") if published else "",
        "report": _relative(place.out_dir and place.out_dir / "report.json", place.workspace),
        "manifest": _relative(place.manifest, place.workspace),
    }
    failure = error if error is not None else ended.failure
    document = {
        "version": RESULT_VERSION,
        **(extra or {}),
        **{name.replace("-", "_"): value for name, value in single.items()},
        "exit_code": ended.exit_code,
        "pr": {
            "operation": single["pr-operation"],
            "url": single["pr-url"] or None,
            "number": published.pr_num if published else None,
            "revision": published.revision if published else None,
            "reason": one_line(published.reason) if published else "",
        },
        "error": None if failure is None else _error(failure),
        "model": None if report is None else _model(report),
        "cells": [] if report is None else [_cell(cell, place) for cell in report.cells],
        "truncated": False,
    }
    return {**{name: one_line(value, MAX_VALUE) for name, value in single.items()}, "result": dumps(document)}


def write(env: Mapping[str, str], given: Mapping[str, str]) -> None:
    """Append outputs to the file that ``GITHUB_OUTPUT`` names; nothing happens where there is none.

    Each value stands between two lines with a delimiter that was drawn for it, as GitHub asks: no text can end it.

    Raises:
        ValueError: a name stands in no table.
        OSError: the file cannot be written.
    """
    unknown = given.keys() - {one.name for one in OUTPUTS}
    if unknown:
        raise ValueError(f"no such output: {', '.join(sorted(unknown))}")
    target = env.get("GITHUB_OUTPUT")
    if not target:
        return
    parts = []
    for name, text in given.items():
        delimiter = f"ptebot-{secrets.token_hex(16)}"
        body = text.encode("utf-8", "replace").decode().replace("\r\n", "\n").replace("\r", "\n")
        parts.append(f"{name}<<{delimiter}\n{body}\n{delimiter}\n")
    with Path(target).open("a", encoding="utf-8", newline="\n") as stream:
        stream.write("".join(parts))


def dumps(document: dict[str, Any]) -> str:
    """The document as one line of ASCII JSON within ``MAX_RESULT``; what is left out is told by ``truncated``."""
    text = _json(document)
    for shorten in (_without_comparisons, _without_kinds, _with_short_texts, _without_cells, _bare):
        if len(text) <= MAX_RESULT:
            break
        document = {**shorten(document), "truncated": True}
        text = _json(document)
    return text


def _json(document: dict[str, Any]) -> str:
    return json.dumps(_finite(document), ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def _finite(value: Any) -> Any:
    """JSON has no infinity, and fromJSON takes none."""
    if isinstance(value, dict):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _without_comparisons(document: dict[str, Any]) -> dict[str, Any]:
    return {**document, "cells": [{**cell, "parity": None} for cell in document["cells"]]}


def _without_kinds(document: dict[str, Any]) -> dict[str, Any]:
    def short(cell: dict[str, Any]) -> dict[str, Any]:
        quality = cell["quality"]
        return {**cell, "quality": None if quality is None else {**quality, "texts": []}}

    return {**document, "cells": [short(cell) for cell in document["cells"]]}


def _with_short_texts(document: dict[str, Any]) -> dict[str, Any]:
    def short(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: short(each) for key, each in value.items()}
        if isinstance(value, list):
            return [short(each) for each in value]
        return one_line(value, 200) if isinstance(value, str) else value

    return {key: short(value) for key, value in document.items()}


def _without_cells(document: dict[str, Any]) -> dict[str, Any]:
    return {**document, "cells": document["cells"][:100]}


def _bare(document: dict[str, Any]) -> dict[str, Any]:
    kept = ("version", "status", "pr_operation", "pr_url", "report", "manifest", "exit_code")
    return {key: document[key] for key in kept if key in document} | {"cells": []}


def _relative(path: Path | None, workspace: Path) -> str:
    """A path as a later step sees it; '' where it is not in the workspace or not there."""
    if path is None or not path.exists():
        return ""
    path, workspace = path.resolve(), workspace.resolve()
    return path.relative_to(workspace).as_posix() if path.is_relative_to(workspace) else ""


def _error(error: BaseException) -> dict[str, Any]:
    if isinstance(error, PtebotError):
        return describe(error)
    return {
        "class": type(error).__name__,
        "exit_code": PtebotError.exit_code,
        "title": PtebotError.title,
        "what": one_line(f"{type(error).__name__}: {error}"),
        "remedy": PtebotError.remedy,
    }


def _model(report: Report) -> dict[str, Any]:
    model = report.model
    return {
        "name": model.name,
        "repo_id": model.repo_id,
        "revision": model.revision,
        "architecture": model.architecture,
        "parameters": model.parameters,
        "max_seq_len": report.max_seq_len,
    }


def _cell(cell: Cell, place: Place) -> dict[str, Any]:
    return {
        "backend": cell.backend,
        "precision": cell.precision,
        "status": cell.status.value,
        "good": cell.status.good,
        "stage": cell.failed_stage,
        "reason": cell.reason,
        "file": _relative(place.out_dir / cell.file, place.workspace) if place.out_dir and cell.file else "",
        "size_bytes": cell.size_bytes,
        "sha256": cell.sha256,
        "delegates": cell.delegation.delegates if cell.delegation else None,
        "ops_left": sum(cell.delegation.leftover_ops.values()) if cell.delegation else None,
        "parity": None
        if cell.parity is None
        else {
            "passed": cell.parity.passed,
            "positions": cell.parity.positions,
            "comparisons": [_comparison(item) for item in cell.parity.comparisons],
        },
        "quality": None if cell.quality is None else _quality(cell.quality),
        "quantization": None if cell.quantization is None else _quantization(cell.quantization),
        "cache": cell.cache,
        "seconds": round(sum(cell.seconds.values()), 3),
        "peak_rss_bytes": cell.peak_rss_bytes,
    }


def _quality(cost: Quality) -> dict[str, Any]:
    """Figures over all text, then by kind of text; what was not measured is null."""
    return {
        "verdict": cost.verdict,
        "perplexity": cost.perplexity,
        "perplexity_full": cost.perplexity_full,
        "top1_agreement": cost.top1_agreement,
        "kl_mean": cost.kl_mean,
        "kl_p99": cost.kl_p99,
        "texts": [asdict(one) for one in cost.texts[:MOST_TEXTS]],
        "answers": {
            "total": cost.answers_total,
            "same": cost.answers_same,
            "repeating": cost.answers_repeating,
        },
    }


def _quantization(made: Quantization) -> dict[str, Any]:
    return {
        "algorithm": made.algorithm,
        "parameters": made.parameters,
        "calibration_sha256": made.calibration.sha256 if made.calibration is not None else None,
        "tried": len(made.tried),
    }


def _comparison(item: Comparison) -> dict[str, Any]:
    figures = [
        {
            "name": one.name,
            "value": one.value,
            "relation": one.relation,
            "bound": one.bound,
            "passed": one.passed,
        }
        for one in item.figures
    ]
    return {"against": item.against, "figures": figures}
