"""A call's folder in shared storage: what lies there is taken only as plain files within the limit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bot.errors import OutputNotTrusted, OutputTooLarge
from bot.sandbox.call import Argument, Writes
from bot.sandbox.shared_folder import CallFolder


def test_what_is_no_plain_file_is_not_taken(tmp_path: Path) -> None:
    args: list[Argument] = ["--x", Writes(tmp_path / "o")]
    folder = CallFolder(tmp_path / "shared", "job")
    for plant in (
        lambda out: out.symlink_to("/etc"),
        lambda out: (out.mkdir(), (out / "report.json").symlink_to("/etc/passwd")),
        lambda out: (out.mkdir(), os.mkfifo(out / "report.json")),
        lambda out: (out.mkdir(), (out / "report.json").hardlink_to(tmp_path / "other")),
    ):
        (tmp_path / "other").write_text("somebody else's")
        folder.renew(args, os.geteuid())
        (folder.outputs / "1").mkdir()
        plant(folder.outputs / "1/o")
        with pytest.raises(OutputNotTrusted):
            folder.take(args, None)
        assert not (tmp_path / "o").exists()
    folder.renew(args, os.geteuid())
    (folder.outputs / "1/o").mkdir(parents=True)
    (folder.outputs / "1/o/big").write_bytes(bytes(100))
    with pytest.raises(OutputTooLarge):
        folder.take(args, 99)
    folder.take(args, 100)
    assert (tmp_path / "o/big").stat().st_size == 100
    folder.remove()
    assert not folder.path.exists()
