"""How fast the written files are on this machine: an export in, tokens per second of each cell out.

Stage 4 of the way of one request, where it is asked for. The measuring is the exporter's (``exporter.speed``), in a
child process without secrets like everything that reads a model. Figures are told beside an export and are no part of
its report: they belong to this machine at this moment.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bot import export_process
from bot.errors import ExporterFailed
from bot.export_process import OnLog, OnProgress
from bot.sandbox.call import UNBOUND, Argument, Conditions, Reads
from exporter.errors import PtebotError
from exporter.report import Report

ROUNDS = 3
SECONDS = 60
"""For each file, and for the eager model."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Tokens per second on this machine, medians."""

    prefill: float
    """Of a prompt that is read."""
    decode: float
    """That are written, one after the other."""


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """What was measured."""

    cells: Mapping[tuple[str, str], Speed] = field(default_factory=dict)
    """By backend and precision."""
    eager: Speed | None = None
    """The original in float32; None where there is no model directory any more."""
    notes: tuple[str, ...] = ()
    """What was cut short, or could not be measured, in words."""


def measure(
    report: Report,
    out_dir: Path,
    model_dir: Path | None,
    *,
    on_progress: OnProgress = lambda _: None,
    on_log: OnLog = lambda _: None,
    rounds: int = ROUNDS,
    seconds: int = SECONDS,
    in_turn: bool = False,
    conditions: Conditions = UNBOUND,
) -> Speeds:
    """Measure every good file of an export.

    Args:
        model_dir: what the files were made from; None leaves the eager model out.
        seconds: for each of them, at most, loading aside.
        in_turn: all at once in memory, round by round: fairer where the machine's speed swings.

    Raises: as ``bot.export_process.run_stages``.
    """
    cells = report.good_cells
    if not cells:
        return Speeds()
    args: list[Argument] = ["--in-turn"] if in_turn else []
    args += [str(report.max_seq_len), str(rounds), str(seconds), Reads(model_dir) if model_dir else "-"]
    for cell in cells:
        args += [cell.backend, Reads(out_dir / str(cell.file))]
    found = export_process.run_stages(
        "exporter.speed", args, on_progress=on_progress, on_log=on_log, conditions=conditions
    )
    files = found.get("files") if found else None
    if found is None or not isinstance(files, list) or len(files) != len(cells):
        raise ExporterFailed("The speed of the files was measured, and no figures came back.")
    notes: list[str] = []
    eager = _speed(found.get("eager"), "eager", notes, seconds) if model_dir else None
    speeds = {}
    for cell, data in zip(cells, files, strict=True):
        speed = _speed(data, f"{cell.backend} {cell.precision}", notes, seconds)
        if speed is not None:
            speeds[cell.backend, cell.precision] = speed
    return Speeds(cells=speeds, eager=eager, notes=tuple(notes))


def attempt(
    report: Report,
    out_dir: Path,
    model_dir: Path | None,
    *,
    on_progress: OnProgress,
    on_log: OnLog,
    conditions: Conditions,
) -> Speeds:
    """As ``measure``; a failure becomes a note, for it must not cost an export that is done."""
    try:
        return measure(
            report,
            out_dir,
            model_dir,
            on_progress=on_progress,
            on_log=on_log,
            conditions=conditions,
        )
    except PtebotError as error:
        return Speeds(notes=(f"No speeds: {error.what}",))


def as_data(found: Speeds) -> dict[str, Any]:
    """The figures as JSON data."""
    cells = [
        {"backend": backend, "precision": precision, **asdict(one)} for (backend, precision), one in found.cells.items()
    ]
    return {"eager": asdict(found.eager) if found.eager else None, "cells": cells, "notes": list(found.notes)}


def _speed(data: Any, name: str, notes: list[str], seconds: int) -> Speed | None:
    """One entry of the child's answer, which is believed as far as it is two numbers."""
    entry = data if isinstance(data, dict) else {}
    prefill, decode = _rate(entry.get("prefill")), _rate(entry.get("decode"))
    if prefill is None or decode is None:
        notes.append(f"{name}: not measured ({str(entry.get('failed') or 'no figures')[:200]})")
        return None
    if entry.get("cut"):
        notes.append(f"{name}: cut after {seconds} s")
    return Speed(prefill=prefill, decode=decode)


def _rate(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 < value < math.inf else None
