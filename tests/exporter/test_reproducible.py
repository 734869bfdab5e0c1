"""The same spec on the same model gives the same bytes: in another process, directory, and order of hashes."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.exporter.conftest import CONTEXT, Exported, run_exporter


def test_a_second_export_elsewhere_gives_the_same_bytes(exported: Exported, tmp_path: Path) -> None:
    copy = tmp_path / "some other place" / "llama"
    shutil.copytree(exported.model, copy)
    spec = {"model": {"name": "tiny"}, "max_seq_len": CONTEXT}
    again = run_exporter(spec, copy, tmp_path / "again", PYTHONHASHSEED="4711")
    assert again.exit_code == 0, again.log
    files = sorted(path.relative_to(exported.out) for path in exported.out.rglob("*.pte"))
    assert files == sorted(path.relative_to(again.out) for path in again.out.rglob("*.pte"))
    assert len(files) == 5
    differing = [str(name) for name in files if (exported.out / name).read_bytes() != (again.out / name).read_bytes()]
    assert differing == []
