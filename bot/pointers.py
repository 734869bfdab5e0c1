"""Git LFS pointers: what git holds in place of a large file. Pure.

The form is that of the specification, github.com/git-lfs/git-lfs/blob/main/docs/spec.md: lines of ``key value``,
``version`` first, the rest sorted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LARGEST = 1024
"""Bytes; the specification's limit for a pointer."""
_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:ext-[^\n]*\n)*"
    rb"oid sha256:(?P<sha256>[0-9a-f]{64})\nsize (?P<size>\d{1,18})\n"
)


@dataclass(frozen=True)
class Pointer:
    """The file that a pointer stands for."""

    sha256: str
    size_bytes: int


def write(sha256: str, size_bytes: int) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size_bytes}\n".encode()


def read(data: bytes) -> Pointer | None:
    """What a file's bytes point to; None where they are no pointer."""
    found = _POINTER.fullmatch(data) if len(data) <= LARGEST else None
    return Pointer(found["sha256"].decode(), int(found["size"])) if found else None
