"""Files read back from their bytes: what is in them, and files that are none."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from exporter import pte
from exporter.errors import InvalidPte
from tests.exporter.conftest import ROOT, Exported, environment

# Damages a file with a fixed seed, again and again, and reads it: prints how many were refused, how many read.
FUZZ = """
import random, sys
from pathlib import Path
from exporter import attention, pte
from exporter.errors import InvalidPte
import executorch.kernels.quantized
attention.load_ops()
good, path, counts = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2]), {"read": 0, "refused": 0}
for seed in range(int(sys.argv[3])):
    chance, data = random.Random(seed), bytearray(good)
    # The program's tables are at the front, the constants behind them.
    end = len(data) if chance.random() < 0.3 else min(len(data), chance.choice((512, 4_096, 60_000)))
    place, kind = chance.randrange(end), chance.randrange(5)
    if kind == 0:
        del data[place:]
    elif kind == 3:
        data[place:place] = data[place : place + chance.randrange(1, 200)]
    elif kind == 4:
        del data[place : place + chance.randrange(1, 50)]
    else:
        for _ in range(chance.randrange(1, 20)):
            data[chance.randrange(end)] = chance.randrange(256)
    path.write_bytes(data)
    print(seed, flush=True)
    try:
        info = pte.read(path)
    except InvalidPte as error:
        assert error.what.isprintable() and len(error.what) < 1_000, error.what
        counts["refused"] += 1
    else:
        assert info.size_bytes == len(data) and len(info.sha256) == 64 and "forward" in info.methods
        counts["read"] += 1
print(counts)
"""


def test_damaged_files_are_refused_and_end_no_process(exported: Exported, tmp_path: Path) -> None:
    """Reading asks the native runtime, so this is done in a process of its own."""
    file = str(exported.file("xnnpack", "8da4w"))
    command = [sys.executable, "-X", "faulthandler", "-c", FUZZ, file, str(tmp_path / "damaged.pte"), "100"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=600, check=False
    )
    last = done.stdout.splitlines()[-1:]
    assert done.returncode == 0, f"after case {last}: {done.stderr[-3000:]}"
    counts = json.loads(last[0].replace("'", '"'))
    assert counts["refused"] > 40
    assert counts["read"] > 0, "a flipped weight is no damage that reading can see"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "identifier"),
        (b"x", "identifier"),
        (b"GGUF" + bytes(100), "identifier"),
        (b"\x7fELF" * 50, "identifier"),
        (b"\0\0\0\0ET12", "not a whole"),
        (b"\xff\xff\xff\x7fET12" + bytes(200), "not a whole"),
        (bytes(4) + b"ET12" + bytes(200), "not a whole"),
    ],
)
def test_what_is_no_program_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pte"
    path.write_bytes(content)
    with pytest.raises(InvalidPte, match=said) as caught:
        pte.read(path)
    assert str(path) in caught.value.what


def test_what_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidPte, match="No such file"):
        pte.read(tmp_path / "none.pte")
    with pytest.raises(InvalidPte, match="Is a directory"):
        pte.read(tmp_path)


class _Half(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 0.5


@pytest.fixture(scope="module")
def small() -> Callable[..., Any]:
    """``small(methods, constants)``: a program in memory whose methods halve their input."""

    def make(methods: list[str], constants: dict[str, Any]) -> Any:
        from executorch.exir import to_edge_transform_and_lower

        program = torch.export.export(_Half(), (torch.ones(2, 3),))
        edge = to_edge_transform_and_lower(dict.fromkeys(methods, program), constant_methods=constants)
        return edge.to_executorch()

    return make


def test_a_file_without_forward_is_refused(small: Callable[..., Any], tmp_path: Path) -> None:
    pte.write(small(["backward", "sideways"], {}), tmp_path / "x.pte")
    with pytest.raises(InvalidPte, match="no method named forward; it has: backward, sideways"):
        pte.read(tmp_path / "x.pte")


def test_what_was_put_in_comes_out(small: Callable[..., Any], tmp_path: Path) -> None:
    """Numbers stay numbers and lists stay lists, one entry long or not."""
    constants = {"get_max_seq_len": 64, "use_kv_cache": True, "off": False, "get_eos_ids": [7], "get_bos_id": 0}
    path = tmp_path / "x.pte"
    pte.write(small(["forward", "other"], constants), path)
    info = pte.read(path)
    assert info.metadata == constants
    assert [type(info.metadata[name]) for name in constants] == [int, bool, bool, list, int]
    assert info.methods == ["forward", "other"]
    assert info.inputs == [{"dtype": "float32", "sizes": [2, 3]}]
    assert (info.delegates, info.delegate_ids) == (0, [])
    assert any(op.startswith("aten::mul") for op in info.leftover_ops)
    assert info.size_bytes == path.stat().st_size
    assert info.sha256 == pte.sha256(path)
    pte.write(small(["forward"], {"get_eos_ids": [7, 8, 9]}), path)
    assert pte.read(path).metadata == {"get_eos_ids": [7, 8, 9]}


def test_writing_replaces_a_file_as_a_whole(small: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "x.pte"
    path.write_bytes(bytes(1_000_000))
    pte.write(small(["forward"], {}), path)
    assert pte.read(path).size_bytes < 100_000


def test_bytes_are_told_by_part(exported: Exported) -> None:
    """Where a person sees what makes a file large."""
    import executorch.kernels.quantized  # noqa: F401

    from exporter import attention

    attention.load_ops()
    portable, xnnpack = (pte.read(exported.file(name, "fp32")).bytes_by_part for name in ("portable", "xnnpack"))
    weights = exported.report.model.parameters * 4
    assert portable["delegates"] == 0
    assert xnnpack["delegates"] > 0.9 * weights - 384 * 64 * 4
    assert portable["constants"] >= 0.9 * weights, "weights are constants of a file without delegates"
