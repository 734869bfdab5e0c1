"""Rows on disk: what was written is read, in any order, and nobody sees the file."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from exporter import scratch
from exporter.errors import DiskFull
from exporter.scratch import Rows


def test_rows_come_back_in_any_order(tmp_path: Path) -> None:
    given = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    rows = Rows(5, tmp_path)
    assert [rows.append(given[:3]), rows.append(given[3:])] == [0, 3]
    assert torch.equal(rows.read(2, 4), given[2:6])
    assert torch.equal(rows.read(0, 7), given)
    assert rows.read(7, 0).shape == (0, 5)
    assert rows.append(given[:1].mT.contiguous().mT) == 7
    assert torch.equal(rows.read(7, 1), given[:1])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("first", "count"), [(0, 3), (2, 1), (-1, 1), (1, -1)])
def test_rows_that_are_not_there(first: int, count: int, tmp_path: Path) -> None:
    rows = Rows(5, tmp_path)
    rows.append(torch.zeros(2, 5))
    with pytest.raises(IndexError):
        rows.read(first, count)


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    class Full:
        def seek(self, *given: Any) -> None: ...

        def write(self, *given: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    rows = Rows(5, tmp_path)
    rows._file = Full()  # type: ignore[assignment]
    with pytest.raises(DiskFull):
        rows.append(torch.zeros(2, 5))


def test_the_usual_place_is_the_roomier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside a sandbox, /tmp is a little memory and the working directory is on a disk."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(scratch, "_free", lambda path: 10 if path == tmp_path else 5)
    assert Rows(5).directory == tmp_path
    monkeypatch.setattr(scratch, "_free", lambda path: 5 if path == tmp_path else 10)
    assert Rows(5).directory != tmp_path
