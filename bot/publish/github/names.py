"""What ptebot's branch, release, files and commits are called on GitHub. Pure; stage 5.

A repository can hold several models, each in a folder of its own; each gets one branch, one release and one pull
request. All of them are found again by these names, so a name once given never changes.
"""

from __future__ import annotations

import hashlib
import re
from urllib.parse import quote

from bot.errors import InvalidInput
from bot.publish.markdown import SAFE_PATH
from exporter.report import Cell

PREFIX = "ptebot/"
ROOT = "executorch"
"""The word for a model at the repository's root."""
ATTRIBUTES = "executorch/.gitattributes"
"""Our own file beside ours, so that the owner's stays as it is."""
ATTRIBUTES_LINE = b"*.pte filter=lfs diff=lfs merge=lfs -text\n"
_TRAILER = "Ptebot-Files"
_OURS = re.compile(rf"^{_TRAILER}: [0-9a-f]{{64}}$", re.MULTILINE)
_PLAIN = re.compile(r"(?!.*\.\.)(?!.*\.lock\Z)[A-Za-z0-9_][A-Za-z0-9._-]{0,98}(?<!\.)")
"""Words that git's check-ref-format takes as a part of a branch's name, and GitHub as a tag."""


def check_folder(folder: str) -> str:
    """The model's folder, from the repository's root: ``.`` or plain names without ``..``.

    Raises:
        InvalidInput: it is no such path.
    """
    folder = folder.strip().removeprefix("./").rstrip("/") or "."
    if folder != "." and (not SAFE_PATH.fullmatch(folder) or len(folder) > 200):
        raise InvalidInput(
            f"{folder[:200]!r} is no folder of a repository that ptebot can publish to.",
            remedy="Name the folder from the repository's root, in letters, digits, `.`, `_`, `+`, `-` and `/`.",
        )
    return folder


def slug(folder: str) -> str:
    """One word for the model in ``folder``; different folders have different words.

    It does not depend on what the repository is called, which can change.
    """
    return ROOT if folder == "." else _word(folder, exact=folder != ROOT)


def _word(path: str, *, exact: bool = True) -> str:
    """One word for a path: with ``--`` for each slash where that can be no other's word, else with a hash."""
    word = path.replace("/", "--")
    if exact and "--" not in path and _PLAIN.fullmatch(word):
        return word
    plain = re.sub(r"[^A-Za-z0-9_]+", "-", word).strip("-")[:60] or "model"
    return f"{plain}-{hashlib.sha256(path.encode()).hexdigest()[:8]}"


def branch(folder: str, base: str | None = None) -> str:
    """The branch that the pull request comes from.

    Args:
        base: the branch that it goes to; None for the default one.
    """
    return f"{PREFIX}{slug(folder)}" + (f"@{_word(base)}" if base is not None else "")


def tag(folder: str) -> str:
    """Of the release with the files; not the branch's name, which git would then find ambiguous."""
    return f"ptebot-{slug(folder)}"


def below(folder: str, path: str) -> str:
    """A path below the model's folder, from the repository's root."""
    return path if folder == "." else f"{folder}/{path}"


def asset(cell: Cell) -> str:
    """The name of a cell's file on a release: with its hash, so that a new file never takes an old one's place."""
    stem = (cell.file or "").rsplit("/", 1)[-1].removesuffix(".pte")
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '.', stem).strip('.')}-{(cell.sha256 or '')[:12]}.pte"


def asset_url(html_url: str, tag_name: str, cell: Cell) -> str:
    """Where GitHub gives a release's file to everyone who may read the repository."""
    return f"{html_url}/releases/download/{quote(tag_name, safe='')}/{asset(cell)}"


def commit_message(title: str, identity: str) -> str:
    """A commit's message with the trailer that tells our commits from others'.

    Args:
        identity: ``bot.plan.identity`` of the export.
    """
    return f"{title}\n\n{_TRAILER}: {identity}\n"


def is_our_commit(message: str) -> bool:
    return _OURS.search(message) is not None
