"""Git LFS pointers, read as strictly as they are written."""

from __future__ import annotations

import pytest

from bot import pointers

SHA = "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393"
ONE = f"version https://git-lfs.github.com/spec/v1\noid sha256:{SHA}\nsize 12345\n".encode()


def test_there_and_back() -> None:
    assert pointers.write(SHA, 12345) == ONE
    assert pointers.read(ONE) == pointers.Pointer(SHA, 12345)


def test_extensions_are_read_over() -> None:
    extended = ONE.replace(b"oid", b"ext-0-foo sha256:" + b"a" * 64 + b"\noid", 1)
    assert pointers.read(extended) == pointers.Pointer(SHA, 12345)


@pytest.mark.parametrize(
    "data",
    [b"", ONE[:-1], ONE + b"x", ONE.replace(b"\n", b"\r\n"), ONE.replace(SHA[:4].encode(), b"XXXX"), ONE * 20,
     ONE.replace(b"12345", b"-1"), b"weights"],
)  # fmt: skip
def test_what_is_no_pointer(data: bytes) -> None:
    assert pointers.read(data) is None
