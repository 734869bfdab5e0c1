"""Files of a real child of a ptebot that root runs: what it can read and write, and what comes out."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from bot.errors import OutputNotTrusted
from bot.sandbox import landlock, places, privileges
from tests.bot.sandbox.as_root import LOOK, OUT, SECRET, TRY, UID, child, needs_root


@needs_root
def test_a_child_writes_to_nothing_of_roots(folder: Path) -> None:
    (folder / "workspace").mkdir(mode=0o755)
    (folder / "workspace/file").write_text("kept")
    (folder / "state").mkdir(mode=0o700)
    (folder / "state/secret").write_text(SECRET)
    code = (
        f"f = {str(folder)!r}\nacts = ["
        "lambda: open(f + '/workspace/new', 'w'), lambda: open(f + '/workspace/file', 'a'), "
        "lambda: os.remove(f + '/workspace/file'), lambda: os.listdir(f + '/state'), "
        "lambda: open(f + '/state/secret').read(), lambda: open('../new', 'w'), lambda: os.listdir('..'), "
        "lambda: os.rename('../home', '../other')]" + TRY
    )
    assert child(code, cwd=folder)["lines"] == ["PermissionError"] * 8


@needs_root
def test_a_model_where_only_root_may_look_is_read_and_no_more_of_it(folder: Path) -> None:
    closed = folder / "closed"
    model = closed / "the model"
    model.mkdir(parents=True)
    closed.chmod(0o700)
    for name, mode in {"config.json": 0o644, "weights.safetensors": 0o600, ".git-credentials": 0o600}.items():
        (model / name).write_text(name)
        (model / name).chmod(mode)
    code = (
        "m = args[0]; print(os.path.basename(m), sorted(os.listdir(m)))\n"
        "print([open(os.path.join(m, n)).read() for n in sorted(os.listdir(m))])\nacts = ["
        "lambda: open(m + '/config.json', 'a'), lambda: os.chmod(m + '/config.json', 0o777), "
        "lambda: os.remove(m + '/config.json'), lambda: open(m + '/new', 'w')]" + TRY
    )
    found = child(code, cwd=folder, args=f"Reads(Path({str(model)!r}))")
    assert found["lines"] == [
        "the model ['config.json', 'weights.safetensors']",
        "['config.json', 'weights.safetensors']",
        *["PermissionError"] * 4,
    ]
    assert stat.S_IMODE((model / "weights.safetensors").stat().st_mode) == 0o600
    assert (model / "config.json").stat().st_nlink == 1, "the links are gone"


@needs_root
@pytest.mark.parametrize("closed", [0o700, 0o755])
def test_a_link_in_a_model_shows_nothing_of_roots(folder: Path, closed: int) -> None:
    """A repository can hold links; followed by root, one would show the exporter any file of root's."""
    (folder / "secret").write_text(SECRET)
    (folder / "secret").chmod(0o600)
    model = folder / "model"
    model.mkdir()
    (model / "tokenizer.json").symlink_to(folder / "secret")
    model.chmod(closed)
    found = child("print(open(args[0] + '/tokenizer.json').read())", cwd=folder, args=f"Reads(Path({str(model)!r}))")
    assert found["error"] == "InvalidModelDirectory"
    assert found["lines"] == []


@needs_root
def test_a_snapshot_of_the_hubs_cache_is_read_through_its_links(folder: Path) -> None:
    cache = folder / "cache"
    (cache / "blobs").mkdir(parents=True)
    (cache / "blobs/0a").write_text("config")
    snapshot = cache / "snapshots/main"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").symlink_to("../../blobs/0a")
    cache.chmod(0o700)
    found = child("print(open(args[0] + '/config.json').read())", cwd=folder, args=f"Reads(Path({str(snapshot)!r}))")
    assert found["lines"] == ["config"]


@needs_root
def test_a_model_that_anybody_may_write_is_copied(folder: Path) -> None:
    model = folder / "model"
    model.mkdir()
    (model / "config.json").write_text("before")
    (model / "config.json").chmod(0o666)
    code = "acts = [lambda: open(args[0] + '/config.json', 'w')]" + TRY
    assert child(code, cwd=folder, args=f"Reads(Path({str(model)!r}))")["lines"] == ["PermissionError"]
    assert (model / "config.json").read_text() == "before"


@needs_root
def test_what_a_child_wrote_is_ours_afterwards(folder: Path) -> None:
    code = (
        "os.umask(0); os.makedirs(args[0] + '/sub', 0o777); open(args[0] + '/sub/file', 'w').write('x'); "
        "os.chmod(args[0] + '/sub/file', 0o6777); os.chmod(args[0] + '/sub', 0); print('made')"
    )
    found = child(code, cwd=folder, args=OUT, after=LOOK)
    assert found["lines"] == ["made"]
    assert found["out"] == {"out": [0, "0o40755"], "out/sub": [0, "0o40700"], "out/sub/file": [0, "0o100755"]}


SWAPS = [
    "os.symlink('/etc', args[0])",
    "os.mkdir(args[0]); os.symlink('/etc/shadow', args[0] + '/report.json')",
    "os.mkdir(args[0]); os.mkfifo(args[0] + '/report.json')",
    "os.mkdir(args[0]); open('kept', 'w').close(); os.link('kept', args[0] + '/report.json')",
    "import socket; os.mkdir(args[0]); os.chdir(args[0]); socket.socket(socket.AF_UNIX).bind('s')",
    "os.makedirs(args[0] + '/a/b/c/d/e/f/g/h/i/j')",
    "os.mkdir(args[0]); [open(f'{args[0]}/{n}', 'w').close() for n in range(10_001)]",
    "os.mkdir(args[0]); open(args[0] + '/a', 'w').close(); os.link(args[0] + '/a', args[0] + '/b')",
]
"""Landlock refuses the first five already; a kernel without it does not."""


def etc() -> list[tuple[int, int]]:
    return [(one.st_uid, one.st_mode) for one in (Path("/etc").stat(), Path("/etc/shadow").stat())]


@needs_root
@pytest.mark.parametrize("swap", SWAPS)
def test_nothing_but_plain_files_comes_out(folder: Path, swap: str) -> None:
    before = etc()
    found = child(swap, cwd=folder, args=OUT)
    out = folder / "out"
    if landlock.abi() and swap in SWAPS[:5]:
        assert found["code"] == 1 and "Error" in found["log"], found
        assert list(out.rglob("*")) == []
    else:
        assert found["error"] == "OutputNotTrusted", found
        assert not out.exists()
    assert not out.is_symlink()
    assert etc() == before


@needs_root
@pytest.mark.parametrize("swap", SWAPS)
def test_nothing_but_plain_files_is_taken(folder: Path, swap: str) -> None:
    """What a kernel without Landlock lets a child make."""
    before = etc()
    theirs = folder / "theirs"
    theirs.mkdir()
    os.chown(theirs, UID, UID)
    code = f"import os; args = ['there/out']; os.mkdir('there'); {swap}"
    subprocess.run(
        ["/usr/bin/env", "python3", "-c", code], cwd=theirs, user=UID, group=UID, extra_groups=[], check=True
    )
    with pytest.raises(OutputNotTrusted):
        places.take(privileges.User(uid=UID, gid=UID), theirs / "there/out", folder / "out")
    assert not (folder / "out").exists() and not (folder / "out").is_symlink()
    assert etc() == before


@needs_root
def test_nothing_is_left_in_temporary_directories(folder: Path) -> None:
    (folder / "tmp").mkdir()
    (folder / "tmp").chmod(0o1777)
    found = child("os.makedirs(args[0]); os.chmod('.', 0)", cwd=folder, args=OUT, TMPDIR=str(folder / "tmp"))
    assert found["code"] == 0
    assert list((folder / "tmp").iterdir()) == []


@needs_root
def test_a_temporary_directory_that_only_root_may_enter_is_passed_over(folder: Path) -> None:
    (folder / "tmp").mkdir(mode=0o700)
    assert child("print(os.getcwd())", cwd=folder, TMPDIR=str(folder / "tmp"))["lines"][0].startswith("/var/tmp/")  # noqa: S108
