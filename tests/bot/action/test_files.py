"""What a step leaves in the workspace: whole, inside of it, and its owner's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bot.action.files import Leaving
from bot.errors import OutputNotTrusted
from exporter.errors import OutputNotWritable

OWNER = 1001
"""The runner's user."""


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A finished export."""
    folder = tmp_path / "finished"
    (folder / "xnnpack").mkdir(parents=True)
    (folder / "report.json").write_text("{}")
    (folder / "xnnpack" / "tiny.pte").write_bytes(b"program")
    return folder


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


def test_an_export_is_left_whole(made: Path, workspace: Path) -> None:
    leaving = Leaving(workspace, workspace / "build" / "out")
    folder = leaving.export(made, "tiny")
    assert leaving.relative(folder) == "build/out/tiny"
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*")} == {
        "report.json",
        "xnnpack",
        "xnnpack/tiny.pte",
    }
    assert (folder / "xnnpack" / "tiny.pte").read_bytes() == b"program"
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"], "nothing half made stays beside it"
    assert (made / "report.json").exists(), "publishing still needs the export's own folder"


def test_the_same_again_replaces_it(made: Path, workspace: Path) -> None:
    leaving = Leaving(workspace, workspace / "out")
    leaving.export(made, "tiny")
    (made / "xnnpack" / "tiny.pte").unlink()
    folder = leaving.export(made, "tiny")
    assert not (folder / "xnnpack" / "tiny.pte").exists()


@pytest.mark.platform
@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_everything_belongs_to_the_workspaces_owner(made: Path, workspace: Path) -> None:
    os.chown(workspace, OWNER, OWNER)
    leaving = Leaving(workspace, workspace / "build" / "out")
    leaving.export(made, "tiny")
    leaving.manifest("tiny", b"{}")
    paths = list(workspace.rglob("*"))
    assert len(paths) == 7
    assert {path.lstat().st_uid for path in paths} == {OWNER}


def test_a_link_in_an_export_leads_nowhere(made: Path, workspace: Path) -> None:
    (made / "xnnpack" / "other.pte").symlink_to("/etc/passwd")
    with pytest.raises(OutputNotTrusted, match=r"other\.pte"):
        Leaving(workspace, workspace / "out").export(made, "tiny")
    assert list((workspace / "out").iterdir()) == []


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "/etc", "a b", "\N{ZERO WIDTH SPACE}"])
def test_a_name_that_is_no_plain_one_is_refused(made: Path, workspace: Path, name: str) -> None:
    with pytest.raises(OutputNotTrusted):
        Leaving(workspace, workspace / "out").export(made, name)
    assert list(workspace.iterdir()) == []


def test_a_file_in_the_way_is_told(made: Path, workspace: Path) -> None:
    (workspace / "out").write_text("mine")
    with pytest.raises(OutputNotWritable, match="out cannot be written to"):
        Leaving(workspace, workspace / "out").export(made, "tiny")
    assert (workspace / "out").read_text() == "mine"
