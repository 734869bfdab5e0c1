"""What the bot does under kills and under load, measured on this machine: tables, and ``--json FILE``.

Three parts, each on SQLite and on PostgreSQL (a server of Debian's packages is started for the run):

- ``chaos``: jobs from real webhooks of a local Hub to pull requests there, while the servers are killed with SIGKILL at
  random moments; on PostgreSQL two workers, of which one is frozen and woken once and dies for good later. A judge
  looks from outside for what is lost, doubled or overlaps (``bench.chaos``). Only the exporter is a quick one.
- ``webhooks``: how long a webhook waits for its answer with 100 of them in flight, from the whole of ``ptebot serve``
  while it handles them (``bench/webhooks.py`` measures the endpoint alone).
- ``enqueue``: how many jobs a second can be asked for.

    python bench/bot.py [--only chaos] [--on sqlite,postgresql] [--jobs 200] [--kills 12] [--seed 1] [--json FILE]

The exit status is 1 where a chaos run broke a promise of docs/reliability.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # this file's folder, where it would itself pass for the package ``bot``
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from bench.chaos import load  # noqa: E402
from bench.chaos.judge import judge  # noqa: E402
from bench.chaos.scenario import Figures, Scenario  # noqa: E402
from bot.localhub.testing import running_hub  # noqa: E402
from tools.postgres import postgres  # noqa: E402

PARTS = ("chaos", "webhooks", "enqueue")
DATABASES = ("sqlite", "postgresql")
LOADS = {"webhooks": ("requests", load.webhooks), "enqueue": ("asks", load.enqueue)}
"""Part -> the option that says how many, and what measures it."""


@contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    """A fresh database that writes through to the disk."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'jobs.sqlite3'}"
        return
    with postgres(durable=True) as server:
        yield server.create()


def chaos(kind: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    figures = Figures(
        jobs=options.jobs,
        repos=options.repos or max(1, options.jobs * 3 // 10),
        kills=options.kills,
        seed=options.seed,
        workers=1 if kind == "sqlite" else 2,
        backends=tuple(options.backends.split(",")),
    )
    with running_hub(folder / "hub") as hub, database(kind, folder) as url:
        scenario = Scenario(figures, hub, url, folder)
        scenario.run()
        verdict = judge(scenario)
        scenario.store.close()
    kept = {"lost": len(verdict.lost), "doubled or missing PRs": len(verdict.doubled), "stale PRs": len(verdict.stale)}
    kept |= {"overlaps": len(verdict.overlaps), "orphans": len(verdict.orphans), "broken": len(verdict.broken)}
    return {**verdict.figures, **kept, "seed": figures.seed, "violations": verdict.violations}


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All parts that were asked for; figures by part and database."""
    found: dict[str, Any] = {}
    for part in options.only.split(","):
        for kind in options.on.split(","):
            with tempfile.TemporaryDirectory(prefix="ptebot-bench-", ignore_cleanup_errors=True) as name:
                folder = Path(options.keep or name, f"{part}-{kind}")
                folder.mkdir(parents=True)
                if part == "chaos":
                    found.setdefault(part, {})[kind] = chaos(kind, options, folder)
                else:
                    with database(kind, folder) as url:
                        count, measure = LOADS[part]
                        found.setdefault(part, {})[kind] = measure(url, folder, getattr(options, count))
    return found


def show(found: dict[str, Any]) -> None:
    """Tables on standard output."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    for part, by_kind in found.items():
        table = Table(title=part)
        for column in ("", *by_kind):
            table.add_column(column, justify="left" if not column else "right")
        names = dict.fromkeys(name for figures in by_kind.values() for name in figures if name != "violations")
        for name in names:
            table.add_row(name, *(str(figures.get(name, "")) for figures in by_kind.values()))
        console.print(table)
        for kind, figures in by_kind.items():
            for line in figures.get("violations", ()):
                console.print(f"{kind}: {line}", style="red", markup=False)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between them: %(default)s")
    parser.add_argument("--on", default=",".join(DATABASES), help="databases, likewise: %(default)s")
    parser.add_argument("--jobs", type=int, default=200, help="of one chaos run (%(default)s)")
    parser.add_argument("--repos", type=int, default=0, help="that they are spread over (three tenths of the jobs)")
    parser.add_argument("--kills", type=int, default=12, help="of one chaos run (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the pushes, the kills and who is hit (%(default)s)")
    parser.add_argument("--backends", default="xnnpack", help="each is a step of every job (%(default)s)")
    parser.add_argument("--requests", type=int, default=12_000, help="webhooks that are sent (%(default)s)")
    parser.add_argument("--asks", type=int, default=500, help="jobs that are asked for (%(default)s)")
    parser.add_argument("--keep", metavar="DIR", help="keep databases, logs and journals in this directory")
    parser.add_argument("--json", metavar="FILE", help="write the figures here too")
    options = parser.parse_args()
    for name, known in (("only", PARTS), ("on", DATABASES)):
        if unknown := set(getattr(options, name).split(",")) - set(known):
            parser.error(f"--{name}: {', '.join(sorted(unknown))} is none of {', '.join(known)}")
    found = run(options)
    show(found)
    if options.json:
        machine = {"cpus": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()}
        about = {"date": time.strftime("%Y-%m-%d", time.gmtime()), "machine": machine}
        Path(options.json).write_text(json.dumps({**about, **found}, indent=2) + "\n")
    return int(any(figures.get("violations") for figures in found.get("chaos", {}).values()))


if __name__ == "__main__":
    raise SystemExit(main())
