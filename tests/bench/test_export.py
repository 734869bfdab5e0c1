"""The bench measures what it says: one export by the kernel's count, then files and eager model in turn."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.exporter.models import tiny_model

BENCH = Path(__file__).parent.parent.parent / "bench/export.py"


def test_figures_of_a_tiny_model(tmp_path: Path) -> None:
    model = tiny_model("llama", tmp_path / "tiny", num_hidden_layers=1)
    options = ["--backends", "portable", "--precision", "fp32", "--max-seq-len", "32", "--no-rehearse", "--rounds", "1"]
    done = subprocess.run(
        [sys.executable, str(BENCH), "--model", str(model), *options, "--json"],
        check=True, capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    (found,) = json.loads(done.stdout)["models"]
    cost = found["cost"]
    assert 0 < cost["cpu_seconds"] < 600
    assert cost["wall_seconds"] > 1
    assert 2 * 10**8 < cost["peak_rss_bytes"] < 10**10
    (cell,) = found["cells"]
    assert cell["status"] == "ran"
    assert cell["size_bytes"] > 4 * found["parameters"]
    eager, file = found["speeds"]
    assert eager["name"] == "eager float32"
    assert file["name"] == "tiny_portable_fp32"
    assert file["decode_ratio"] == file["decode"] / eager["decode"]
