"""The same spec on the same model gives the same bytes; so does doing without the workarounds that save time.

One second export holds both: another process with another hash seed, another number of threads, another copy of
the model in another directory, and executorch's own way in place of exporter.workarounds.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from exporter import report as reports
from tests.exporter.conftest import CONTEXT, ROOT, Exported, environment

WITHOUT_WORKAROUNDS = """
import contextlib, sys
from executorch.exir import to_edge_transform_and_lower
from exporter import workarounds
from exporter.__main__ import main
def plainly(exported, partitioners, **settings):
    return to_edge_transform_and_lower(exported, partitioner=partitioners, **settings)
workarounds.only_passes_with_work = contextlib.nullcontext
workarounds.to_edge_and_lower = plainly
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def again(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    root = tmp_path_factory.mktemp("again with a longer name")
    model, out, spec = root / "deeper" / "copy of the model", root / "other out", root / "spec.json"
    shutil.copytree(exported.model, model)
    spec.write_text(json.dumps({"model": {"name": "tiny"}, "max_seq_len": CONTEXT}))
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_WORKAROUNDS, str(spec), str(model), str(out)],
        cwd=ROOT,
        env=environment(PYTHONHASHSEED="4242", OMP_NUM_THREADS="2"),
        capture_output=True, text=True, timeout=1100, check=False,
    )  # fmt: skip
    return Exported(model=model, out=out, exit_code=done.returncode, lines=done.stdout.splitlines(), log=done.stderr)


def test_every_file_has_the_same_bytes(exported: Exported, again: Exported) -> None:
    assert again.exit_code == 0, again.log[-2000:]
    first, second = (
        {path.relative_to(made.out).as_posix(): path.read_bytes() for path in made.out.rglob("*.pte")}
        for made in (exported, again)
    )
    assert len(first) == 5
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_the_reports_differ_in_times_and_memory_only(exported: Exported, again: Exported) -> None:
    def lasting(path: Path) -> dict[str, object]:
        text = json.loads(reports.dumps(reports.load(path / "report.json")))
        for entry in (text, *text["cells"]):
            for name in ("seconds", "peak_rss_bytes", "host", "left_out"):
                entry.pop(name, None)
        return text  # type: ignore[no-any-return]

    first, second = lasting(exported.out), lasting(again.out)
    for text in (first, second):
        for cell in text["cells"]:  # type: ignore[attr-defined]
            # With another number of threads, references are summed in another order.
            cell.pop("parity"), cell.pop("quality")
    assert first == second
