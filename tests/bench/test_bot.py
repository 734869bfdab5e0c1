"""The bench of the bot measures what it says, and says by its exit status whether a promise was broken."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parent.parent.parent / "bench/bot.py"


def test_all_parts_in_small(tmp_path: Path) -> None:
    figures = ["--jobs", "2", "--repos", "2", "--kills", "1", "--requests", "200", "--asks", "5"]
    command = [sys.executable, str(BENCH), "--on", "sqlite", *figures, "--json", str(tmp_path / "figures.json")]
    done = subprocess.run(
        [*command, "--keep", str(tmp_path)], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "figures.json").read_text())
    chaos = found["chaos"]["sqlite"]
    assert (chaos["jobs"], chaos["pull requests"], chaos["seed"], chaos["violations"]) == (2, 2, 1, [])
    webhooks = found["webhooks"]["sqlite"]
    assert webhooks["answers"] == "200 x 202"
    assert 0 < webhooks["p50 ms"] <= webhooks["p99 ms"] <= webhooks["most ms"]
    assert found["enqueue"]["sqlite"]["jobs"] == 5


def test_what_it_does_not_know_is_told() -> None:
    done = subprocess.run([sys.executable, str(BENCH), "--only", "magic"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "magic is none of chaos, webhooks, enqueue" in done.stderr
