"""What a person gets from the pull request: files, with git and git-lfs themselves."""

from __future__ import annotations

import hashlib
from pathlib import Path

from exporter import report as manifests
from tests.bot import reports
from tests.bot.publish.github.repositories import Repository
from tests.localgithub.cloning import clone, git


def test_a_clone_has_the_files_and_nothing_to_commit(repo: Repository, tmp_path: Path) -> None:
    content = bytes(range(256)) * 12_000  # more than one piece of an upload
    report = repo.report([reports.cell("xnnpack", content=content)])
    repo.publish(report, {"xnnpack/tiny_xnnpack_fp32.pte": content})
    folder = clone(repo.there, tmp_path / "clone", branch=repo.branch)
    assert (folder / "models/tiny/executorch/xnnpack/tiny_xnnpack_fp32.pte").read_bytes() == content
    assert (folder / "models/tiny/model.safetensors").read_bytes() == reports.MODEL_FILES["model.safetensors"]
    assert git(folder, "status", "--porcelain") == ""
    assert "tiny_xnnpack_fp32.pte" in git(folder, "lfs", "ls-files")
    manifest = manifests.loads((folder / "models/tiny/executorch/manifest.json").read_bytes())
    assert manifest.good_cells[0].sha256 == hashlib.sha256(content).hexdigest()
