"""The same spec on the same model gives the same bytes: in another process with another hash seed and another number
of threads, from another copy of the model, into another directory."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from exporter import report as reports
from tests.exporter.conftest import CONTEXT, Exported, run_exporter


@pytest.fixture(scope="module")
def again(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    root = tmp_path_factory.mktemp("again with a longer name")
    model = root / "deeper" / "copy of the model"
    shutil.copytree(exported.model, model)
    spec = {"model": {"name": "tiny"}, "max_seq_len": CONTEXT}
    return run_exporter(spec, model, root / "other out", PYTHONHASHSEED="4242", OMP_NUM_THREADS="2")


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
