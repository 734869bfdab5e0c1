"""Which files go to large file storage: .gitattributes lines, size and a look at the first bytes. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

LFS_SUFFIX = "filter=lfs diff=lfs merge=lfs -text"
_EXTENSIONS = """
    7z arrow avro bin bz2 ckpt ftz gguf gz h5 joblib mlmodel model msgpack npy npz onnx ot parquet pb
    pickle pkl pt pte ptd pth rar safetensors tar tflite tgz wasm xz zip zst
"""
LARGE_PATTERNS = (*(f"*.{extension}" for extension in _EXTENSIONS.split()), "*tfevents*", "saved_model/**/*")
DEFAULT_GITATTRIBUTES = "".join(f"{pattern} {LFS_SUFFIX}\n" for pattern in LARGE_PATTERNS)


def tracked(path: str, gitattributes: str) -> bool:
    """Whether .gitattributes sends ``path`` to LFS; as in git, the last line that matches decides."""
    result = False
    for line in gitattributes.splitlines():
        pattern, *attributes = line.split() or [""]
        if not pattern or pattern.startswith("#") or not _matches(path, pattern.replace("[[:space:]]", " ")):
            continue
        for attribute in attributes:
            if attribute == "filter=lfs":
                result = True
            elif attribute in ("-filter", "!filter") or attribute.startswith("filter="):
                result = False
    return result


def is_large(path: str, size: int, sample: bytes, gitattributes: str, limit: int) -> bool:
    """Whether a file of ``size`` bytes that begins with ``sample`` is to be uploaded as a large file.

    Beyond .gitattributes that is everything over ``limit`` bytes and everything binary, as on the Hub.
    """
    return tracked(path, gitattributes) or size > limit or _is_binary(sample)


def track(gitattributes: str, paths: Iterable[str]) -> str:
    """.gitattributes with a line for each of ``paths`` that it does not send to LFS yet."""
    lines = gitattributes if gitattributes.endswith("\n") or not gitattributes else gitattributes + "\n"
    for path in paths:
        if not tracked(path, lines):
            lines += f"{_escape(path)} {LFS_SUFFIX}\n"
    return lines


def ignored(path: str, gitignore: str) -> bool:
    """Whether .gitignore leaves ``path`` out (names, directories, wildcards and ``!``; the last match decides)."""
    result = False
    parents = ["/".join(path.split("/")[:end]) for end in range(1, path.count("/") + 1)]
    for line in gitignore.splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        keep = pattern.startswith("!")
        pattern = pattern.removeprefix("!")
        directories_only = pattern.endswith("/")
        candidates = parents if directories_only else [*parents, path]
        if any(_matches(candidate, pattern.rstrip("/")) for candidate in candidates):
            result = not keep
    return result


def _matches(path: str, pattern: str) -> bool:
    anchored = "/" in pattern
    target = path if anchored else path.rsplit("/", 1)[-1]
    pattern = pattern.lstrip("/")
    if "**" not in pattern and target.count("/") != pattern.count("/"):
        return False
    return fnmatchcase(target, pattern.replace("**/", "*").replace("/**", "/*"))


def _escape(path: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", path).replace(" ", "[[:space:]]")


def _is_binary(sample: bytes) -> bool:
    if b"\0" in sample:
        return True
    try:
        sample.decode()
    except UnicodeDecodeError as error:
        return error.start < len(sample) - 3  # a sample may end inside a character
    return False
