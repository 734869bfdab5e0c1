"""What is sealed opens with the same key, for the same thing, unchanged, and not otherwise."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from bot.errors import InvalidSettings, SignInFailed
from bot.server.sealing import KEY_FILE, Sealer
from bot.server.settings import Settings

SECRET = b"hf_oauth_abc"


def of(data: Path, key: str | None = None) -> Sealer:
    return Sealer.of(Settings(data=data, secret_key=key))  # type: ignore[arg-type]


def test_it_opens_for_the_same_thing_only(tmp_path: Path) -> None:
    sealer = of(tmp_path, "k" * 32)
    sealed = sealer.seal(SECRET, context="job 1")
    assert SECRET not in sealed and sealer.seal(SECRET, context="job 1") != sealed
    assert sealer.open(sealed, context="job 1") == SECRET
    assert of(tmp_path, "k" * 32).open(sealed, context="job 1") == SECRET
    assert sealer.open(sealed, context="job 2") is None
    assert of(tmp_path, "l" * 32).open(sealed, context="job 1") is None
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        assert sealer.open(bytes(changed), context="job 1") is None
        assert sealer.open(sealed[:place], context="job 1") is None


def test_a_jobs_token_is_that_jobs(tmp_path: Path) -> None:
    sealer = of(tmp_path, "k" * 32)
    sealed = sealer.seal_token("job-1", "hf_oauth_x")
    assert sealer.open_token("job-1", sealed) == "hf_oauth_x"
    for other, job in ((sealer, "job-2"), (of(tmp_path, "l" * 32), "job-1")):
        with pytest.raises(SignInFailed) as failure:
            other.open_token(job, sealed)
        assert "hf_oauth" not in str(failure.value)


def test_marks_are_of_the_key_and_the_context(tmp_path: Path) -> None:
    sealer = of(tmp_path, "k" * 32)
    mark = sealer.mark("value", context="csrf")
    assert mark == sealer.mark("value", context="csrf") and len(mark) == 43
    assert len({mark, sealer.mark("value", context="b"), sealer.mark("v", context="csrf")}) == 3
    assert of(tmp_path, "l" * 32).mark("value", context="csrf") != mark
    assert sealer.mark("\ud800", context="csrf")  # what no encoding takes is no reason to fail


def test_a_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    data = tmp_path / "new" / "data"
    before = os.umask(0)
    try:
        sealed = of(data).seal(SECRET, context="a")
    finally:
        os.umask(before)
    path = data / KEY_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and [one.name for one in data.iterdir()] == [KEY_FILE]
    assert of(data).open(sealed, context="a") == SECRET
    path.unlink()
    assert of(data).open(sealed, context="a") is None


def test_processes_that_start_together_have_one_key(tmp_path: Path) -> None:
    together, marks = threading.Barrier(8), []

    def start() -> None:
        together.wait()
        marks.append(of(tmp_path).mark("x", context="a"))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(marks) == 8 and len(set(marks)) == 1


@pytest.mark.parametrize("content", ["", "zz", "00" * 31, "00" * 33, "00" * 32 + "\nmore", "\xff"])
def test_a_damaged_key_is_told_without_showing_it(tmp_path: Path, content: str) -> None:
    path = tmp_path / KEY_FILE
    path.write_bytes(content.encode("latin-1"))
    path.chmod(0o600)
    with pytest.raises(InvalidSettings) as failure:
        of(tmp_path)
    assert str(path) in failure.value.what and "00" * 20 not in str(failure.value)


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    of(tmp_path)
    (tmp_path / KEY_FILE).chmod(0o640)
    with pytest.raises(InvalidSettings, match="other users"):
        of(tmp_path)


def test_a_key_needs_a_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidSettings):
        of(tmp_path / "file")


def test_a_short_key_is_refused_unseen(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings) as failure:
        of(tmp_path, "hunter2-hunter2-hunter2")
    assert "hunter2" not in str(failure.value)
