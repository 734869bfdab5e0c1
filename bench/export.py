"""What an export costs and what its files give, measured on this machine: two tables, or ``--json``.

Goes in: a model (``sample``, ``smollm2`` or a directory). Comes out: seconds per stage, CPU seconds, peak memory
and file sizes of one whole export, which runs in a process of its own and is measured by the kernel (wait4); then
tokens per second of each written file beside the eager model (``bot.speed``, another process). Figures of a
shared machine swing: compare within one run, never with figures of another day.

    python bench/export.py [--model sample] [--backends xnnpack] [--precision fp32,8da4w] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # In place of this file's folder, where bench/bot.py would pass for the package ``bot``.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from rich.console import Console
from rich.table import Table

from bot import speed
from bot.console import Console as Output
from bot.demo import EXAMPLE_MODELS
from bot.tables import megabytes
from exporter import facts
from exporter import report as reports
from exporter import spec as specs
from exporter.report import Report

SECONDS = 600
"""For the speed of each file at most."""
MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes per unit of ru_maxrss (getrusage(2): kilobytes on Linux, bytes on macOS)."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One whole export, as the kernel counted it."""

    wall_seconds: float
    cpu_seconds: float
    """User and system time of the process and all its children."""
    peak_rss_bytes: int
    exit_code: int


def export(spec: specs.ExportSpec, model_dir: Path, out_dir: Path) -> Cost:
    """Run the exporter once; its progress goes to stderr."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(specs.to_dict(spec), file)
        file.flush()
        command = [sys.executable, "-m", "exporter", file.name, str(model_dir), str(out_dir)]
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=sys.stderr, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
    return Cost(
        wall_seconds=wall,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_rss_bytes=usage.ru_maxrss * MAXRSS_UNIT,
        exit_code=process.returncode,
    )


def speeds(report: Report, out_dir: Path, model_dir: Path, rounds: int) -> list[dict[str, Any]]:
    """Tokens per second of every good file and of the eager model, taken in turn in one process."""
    found = speed.measure(report, out_dir, model_dir, rounds=rounds, seconds=SECONDS, in_turn=True)
    for note in found.notes:
        print(note, file=sys.stderr)
    files = {Path(cell.file or "").stem: found.cells.get((cell.backend, cell.precision)) for cell in report.good_cells}
    base = found.eager
    return [
        {
            "name": name,
            **asdict(one),
            "prefill_ratio": one.prefill / base.prefill if base and one is not base else None,
            "decode_ratio": one.decode / base.decode if base and one is not base else None,
        }
        for name, one in {"eager float32": base, **files}.items()
        if one is not None
    ]


def measure(model: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything about one model, as plain data."""
    example = EXAMPLE_MODELS.get(model)
    model_dir = example.prepare(lambda words: print(words, file=sys.stderr)) if example else Path(model)
    asked: dict[str, Any] = {
        "backends": arguments.backends.split(",") if arguments.backends else list(specs.DEFAULT_BACKENDS),
        "precisions": arguments.precision.split(",") if arguments.precision else list(specs.DEFAULT_PRECISIONS),
        "max_seq_len": arguments.max_seq_len or (example.max_seq_len if example else None),
        "rehearse": not arguments.no_rehearse,
    }
    if example and not arguments.backends:
        asked["backends"] = list(example.backends)
    spec = specs.parse(asked)
    with tempfile.TemporaryDirectory(prefix="ptebot-bench-") as scratch:
        out_dir = Path(scratch, "out")
        cost = export(spec, model_dir, out_dir)
        if cost.exit_code != 0:
            raise SystemExit(f"the export of {model} ended with exit code {cost.exit_code}")
        report = reports.load(out_dir / "report.json")
        return {
            "model": report.model.name,
            "parameters": report.model.parameters,
            "max_seq_len": report.max_seq_len,
            "host": asdict(report.host),
            "toolchain": report.toolchain,
            "cost": asdict(cost),
            "shared_seconds": report.seconds,
            "cells": [
                {
                    "backend": cell.backend,
                    "precision": cell.precision,
                    "status": cell.status.value,
                    "seconds": cell.seconds,
                    "peak_rss_bytes": cell.peak_rss_bytes,
                    "size_bytes": cell.size_bytes,
                }
                for cell in report.cells
            ],
            "speeds": [] if arguments.no_speed else speeds(report, out_dir, model_dir, arguments.rounds),
        }


def show(found: dict[str, Any], console: Console) -> None:
    """Two tables: what it cost, what the files give."""
    cost = found["cost"]
    console.print(
        f"\n{found['model']}, {found['parameters'] / 1e6:.1f} M parameters, context {found['max_seq_len']}; "
        f"{found['host']['cpu']}, {found['host']['logical_cpus']} CPUs\n"
        f"the whole export: {cost['wall_seconds']:.1f} s, {cost['cpu_seconds']:.1f} s of CPU, "
        f"peak {megabytes(cost['peak_rss_bytes'])}",
        highlight=False,
    )
    table = Table(title="seconds of the stages that cells share", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in found["shared_seconds"].items():
        if name != "total":
            table.add_row(name, f"{value:.1f}")
    console.print(table)
    made = [cell for cell in found["cells"] if cell["status"] != "skipped"]
    stages = list(dict.fromkeys(stage for cell in made for stage in cell["seconds"]))
    table = Table(title="seconds of each cell", title_justify="left")
    for heading in ("", *stages, "peak", "size"):
        table.add_column(heading, justify="right" if heading else "left")
    for cell in made:
        seconds = [f"{cell['seconds'][stage]:.1f}" if stage in cell["seconds"] else "" for stage in stages]
        sizes = [megabytes(cell[key]) if cell[key] else "" for key in ("peak_rss_bytes", "size_bytes")]
        table.add_row(f"{cell['backend']} {cell['precision']} ({cell['status']})", *seconds, *sizes)
    console.print(table)
    if not found["speeds"]:
        return
    table = Table(title="tokens per second, taken in turn with eager float32", title_justify="left")
    for heading in ("", "prefill", "decode", "prefill / eager", "decode / eager"):
        table.add_column(heading, justify="right" if heading else "left")
    for item in found["speeds"]:
        ratios = [f"{item[key]:.2f}" if item[key] else "" for key in ("prefill_ratio", "decode_ratio")]
        table.add_row(item["name"], f"{item['prefill']:,.0f}", f"{item['decode']:,.1f}", *ratios)
    console.print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", action="append", help="sample, smollm2 or a directory; may be repeated")
    parser.add_argument("--backends", help="comma-separated; default: the example's, or all")
    parser.add_argument("--precision", help="comma-separated; default: fp32,8da4w")
    parser.add_argument("--max-seq-len", type=int)
    parser.add_argument("--rounds", type=int, default=5, help="of the speed measurement")
    parser.add_argument("--no-rehearse", action="store_true")
    parser.add_argument("--no-speed", action="store_true", help="measure the export only")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = [measure(model, arguments) for model in arguments.model or ["sample"]]
    if arguments.json:
        print(json.dumps({"toolchain": facts.toolchain(), "models": found}, indent=2))
    else:
        for item in found:
            show(item, Output().out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
