"""What quantization costs, ours beside others', on the same text in one run: every bar of the quality work.

Goes in: a model (``sample``, ``smollm2`` or a directory). Comes out: a table of methods (bytes, mean and 99th
percentile of KL from the original, perplexity, top-1 agreement), a table of bars, and with ``--json`` and ``--plot``
files of both. The exit status is 1 when a bar is missed or a figure that was asked for could not be taken.
docs/quality.md says how.

    python bench/quality.py [--model sample] [--only rounding,auto] [--peers] [--json FILE] [--plot FILE.svg]

``--peers`` installs llama.cpp and optimum-executorch into environments of their own below a cache folder, converts the
same weights with them and measures their files too; hours on two cores at the first run, minutes later.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # In place of this file's folder, where bench/bot.py would pass for the package ``bot``.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from rich.console import Console
from rich.table import Table

from bench.quality_parts import bars, llama, optimum, ours, plot
from bench.quality_parts.bars import Judged
from bench.quality_parts.measure import Bench, Measured, Peers
from bench.quality_parts.score import ALL
from bot.console import Console as Output
from bot.demo import EXAMPLE_MODELS
from exporter import facts

CACHE = Path.home() / ".cache" / "ptebot" / "bench-peers"


def peers_of(arguments: argparse.Namespace, model_dir: Path) -> Peers:
    """What of the peers was asked for and is here; what cannot be installed is told and left out."""
    interpreters: dict[str, Path | None] = {"llama": arguments.llama_python, "optimum": arguments.optimum_python}
    if arguments.peers:
        for name, install in (("llama", llama.python), ("optimum", optimum.python)):
            if interpreters[name] is None and not (name == "optimum" and arguments.optimum_file):
                try:
                    interpreters[name] = install(arguments.cache)
                except llama.PeerUnavailable as problem:
                    print(problem, file=sys.stderr)
    return Peers(
        llama_python=interpreters["llama"],
        optimum_python=interpreters["optimum"],
        optimum_file=arguments.optimum_file,
        files=arguments.cache / "files" / f"{model_dir.name}-{ours.weights_sha256(model_dir)[:12]}",
    )


def measure(model: str, wanted: tuple[str, ...], arguments: argparse.Namespace) -> tuple[str, Measured]:
    """Everything about one model, and its name."""
    example = EXAMPLE_MODELS.get(model)
    model_dir = example.prepare(lambda words: print(words, file=sys.stderr)) if example else Path(model)
    speaks = example.speaks if example else (model_dir / "chat_template.jinja").exists()
    peers = peers_of(arguments, model_dir)
    with tempfile.TemporaryDirectory(prefix="ptebot-bench-") as scratch:
        files = Path(arguments.files or scratch, model_dir.name)
        return model_dir.name, Bench(model_dir, files, wanted, peers, speaks=speaks).run()


def document(name: str, found: Measured, judged: list[Judged]) -> dict[str, Any]:
    """What is written with ``--json`` of one model."""
    return {
        "model": name,
        "texts": [
            {
                "kind": one.kind,
                "name": one.name,
                "tokens": len(one.ids),
                "sha256": hashlib.sha256(one.ids.numpy().tobytes()).hexdigest(),
            }
            for one in found.texts
        ],
        "methods": [asdict(method) for method in found.methods.values()],
        "frontier": [point.name for point in plot.frontier(found.points)],
        "bars": [asdict(one) for one in judged],
        "answers": {by: [asdict(one) for one in said] for by, said in found.answers.items()},
        "cost": asdict(found.cost) if found.cost else None,
        "quantization": {
            f"{folder} {cell.precision}": asdict(cell.quantization)
            for folder, report in found.reports.items()
            for cell in report.cells
            if cell.quantization
        },
        "problems": found.problems,
    }


def show(name: str, found: Measured, judged: list[Judged], console: Console) -> None:
    """The two tables."""
    table = Table(title=f"\n{name}: distance from the original", title_justify="left")
    kinds = list(next(iter(found.methods.values())).scores) if found.methods else []
    for heading in ("", "MB", *(f"KL {kind}" for kind in kinds), "KL p99", "perplexity", "top-1"):
        table.add_column(heading, justify="right" if heading else "left")
    for method in sorted(found.methods.values(), key=lambda one: one.size_bytes):
        score = method.scores[ALL]
        table.add_row(
            method.name,
            f"{method.size_bytes / 1e6:.1f}",
            *(f"{method.scores[kind].kl_mean:.4f}" for kind in kinds),
            f"{score.kl_p99:.2f}",
            f"{score.perplexity:.2f} ({score.perplexity_full:.2f})",
            f"{score.top1_agreement:.3f}",
        )
    if found.methods:
        console.print(table)
    table = Table(title=f"{name}: bars", title_justify="left")
    for heading in ("", "measured", "bar", "met"):
        table.add_column(heading, justify="right" if heading in ("measured", "bar") else "left")
    for one in judged:
        measured = f"{one.measured:.4g}" if one.measured is not None else "-"
        met = {True: "yes", False: "NO", None: "open"}[one.met]
        table.add_row(one.words, measured, f"{one.relation} {one.bound:g}", f"{met}: {one.why}" if one.why else met)
    console.print(table)
    for problem in found.problems:
        console.print(problem, highlight=False, markup=False)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", action="append", help="sample, smollm2 or a directory; may be repeated")
    parser.add_argument("--only", help=f"comma-separated parts: {', '.join(bars.PARTS)}")
    parser.add_argument("--bar", action="append", default=[], metavar="NAME=VALUE", help="another bound for a bar")
    parser.add_argument("--files", type=Path, help="keep exported files here, and reuse those that are there")
    parser.add_argument("--peers", action="store_true", help="measure llama.cpp and optimum-executorch too")
    parser.add_argument("--cache", type=Path, default=CACHE, help=f"of the peers and their files; default: {CACHE}")
    parser.add_argument("--llama-python", type=Path, help="a Python that has llama-cpp-python")
    parser.add_argument("--optimum-python", type=Path, help="a Python that has optimum-executorch")
    parser.add_argument("--optimum-file", type=Path, help="optimum-executorch's file of the model, made before")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="the model's name is added where there are two")
    arguments = parser.parse_args()
    models = arguments.model or ["sample", "smollm2"]
    try:
        wanted, bounds = bars.parts(arguments.only), bars.moved(arguments.bar)
    except bars.UnknownBar as problem:
        parser.error(str(problem))
    for model in models:
        if model not in EXAMPLE_MODELS and not Path(model, "config.json").is_file():
            parser.error(f"{model} is neither of {', '.join(EXAMPLE_MODELS)} nor a model directory")
    if arguments.optimum_file and len(models) != 1:
        parser.error("--optimum-file is of one model; give one --model")
    documents, missed = [], False
    for model in models:
        name, found = measure(model, wanted, arguments)
        judged = bars.judge(found.figures, wanted, bounds, found.notes)
        missed = missed or any(one.met is False for one in judged)
        show(name, found, judged, Output().out)
        documents.append(document(name, found, judged))
        if arguments.plot and found.points:
            file = arguments.plot if len(models) == 1 else arguments.plot.with_stem(f"{arguments.plot.stem}-{name}")
            file.write_text(plot.draw(f"{name}: bytes against KL from the original", found.points), "utf-8")
    if arguments.json:
        result = {
            "toolchain": facts.toolchain(),
            "host": asdict(facts.host()),
            "python": platform.python_version(),
            "models": documents,
        }
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
