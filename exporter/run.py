"""One export from end to end: a spec and a model directory in, a directory of proven files and a report out.

The stages, in order; what is listed once is done once:
1. check the spec against the tables, the model directory and the output directory; nothing is written yet
2. choose the kind of attention on a small model of the same architecture, and rehearse the whole chain on it
3. load the model once and compute the references
4. quantize once per precision, where the recipe wants it on calibration text that is made once
5. trace once per precision, shape policy and kind of attention
6. lower, write, read back, verify and judge once per cell
7. write ``report.json`` and move everything into place at once
"""

from __future__ import annotations

import time
from pathlib import Path

from exporter import __version__, calibration, checkpoint, facts, report, sizing, staging
from exporter.plan import plan
from exporter.progress import OnProgress, Progress
from exporter.report import Report
from exporter.spec import ExportSpec
from exporter.work import Work

__all__ = ["OnProgress", "Progress", "export"]
REPORT = "report.json"


def export(
    spec: ExportSpec,
    model_dir: Path,
    out_dir: Path,
    progress: OnProgress = lambda step: None,
    *,
    memory_limit_bytes: int | None = None,
) -> Report:
    """Export ``model_dir`` into ``out_dir`` (absent or empty), which appears whole or not at all.

    Returns the report also when no cell is good; ``report.good_cells`` tells.

    Args:
        memory_limit_bytes: what this process will be ended for; a model that cannot do with it is refused at once.

    Raises:
        PtebotError: a refusal (see exporter/errors.py) or a full disk; nothing is written then.
    """
    started = time.perf_counter()
    staging.check_empty(out_dir)
    todo = plan(spec)
    progress(Progress(stage="check", fraction=0.0, message=f"reading {model_dir.name}"))
    with facts.peak_memory() as peak:
        ckpt = checkpoint.inspect(model_dir, spec.model, spec.calibration)
        calibration.check(spec, model_dir)
        max_seq_len = checkpoint.context_length(ckpt, spec.max_seq_len)
        tokenizer = checkpoint.load_tokenizer(ckpt)
        sizing.check(spec, ckpt, max_seq_len, todo.make, out_dir, memory_limit_bytes)
        with staging.staged(out_dir) as directory:
            work = Work(spec, ckpt, max_seq_len, tokenizer, directory, progress, len(todo.make))
            cells = {(made.backend, made.precision): made for made in (*work.make(todo.make), *todo.skipped)}
            ordered = [cells[backend, precision] for backend in spec.backends for precision in spec.precisions]
            work.clock.seconds["total"] = round(time.perf_counter() - started, 3)
            peak_bytes = max(peak.rss_bytes, *(made.peak_rss_bytes or 0 for made in ordered))
            result = Report(
                schema_version=report.SCHEMA_VERSION,
                generator=f"ptebot {__version__}",
                model=ckpt.info,
                spec=spec,
                max_seq_len=max_seq_len,
                toolchain=facts.toolchain(),
                host=facts.host(),
                seconds=work.clock.seconds,
                peak_rss_bytes=peak_bytes,
                cells=ordered,
            )
            for empty in [path for path in directory.iterdir() if path.is_dir() and not any(path.iterdir())]:
                empty.rmdir()
            (directory / REPORT).write_text(report.dumps(result), encoding="utf-8")
    progress(Progress(stage="done", fraction=1.0, message=f"{len(result.good_cells)} of {len(ordered)} files are good"))
    return result
