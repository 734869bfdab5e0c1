"""Where a repository's readers find the files: what the card links to and what its snippet does. Pure; stage 5.

In: a cell of a report. Out: a link target, and the lines of Python that put the file, the tokenizer's file and the
tokenizer's source into ``model``, ``words`` and ``repo``. Every place answers the same questions; to add one, add
a class here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from bot.publish.markdown import address
from exporter.report import Cell

FOLDER = "executorch"
"""Of the repository, or of the model's folder in it."""
DIRECTORY = "MODEL_DIRECTORY"
"""In a command that is shown: the model's directory, where nobody else knows what it is called."""
REPO_ID = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9_][A-Za-z0-9._-]{0,95}")
"""``owner/name`` as huggingface_hub's validate_repo_id takes it."""


class Place(Protocol):
    """Where the files are, seen from the card."""

    @property
    def packages(self) -> tuple[str, ...]:
        """What the snippet needs besides ExecuTorch and transformers."""

    @property
    def imports(self) -> tuple[str, ...]:
        """Lines of the snippet, in its alphabet of imports."""

    @property
    def rebuilding(self) -> str:
        """The command that makes the files again, in a clone."""

    @property
    def home(self) -> str:
        """All the files together, as Markdown after "ready for ..., "."""

    def label(self, cell: Cell) -> str:
        """What a file is called there."""

    def target(self, cell: Cell) -> str:
        """What the link to a file leads to: a path from the card, or an https address."""

    def getting(self, cell: Cell) -> list[str]:
        """Lines that set ``repo``, ``model`` and ``words``."""


class _InTheTree:
    """Files below ``executorch/``, beside the card."""

    home = f"in [`{FOLDER}/`]({FOLDER})"

    def label(self, cell: Cell) -> str:
        return f"{FOLDER}/{cell.file}"

    def target(self, cell: Cell) -> str:
        return f"{FOLDER}/{cell.file}"


@dataclass(frozen=True)
class OnTheHub(_InTheTree):
    """A repository on a Hub; None leaves a placeholder."""

    repo_id: str | None
    packages = ("huggingface_hub",)
    imports = ("from huggingface_hub import hf_hub_download",)
    rebuilding = f"ptebot rebuild {FOLDER}/manifest.json"

    def getting(self, cell: Cell) -> list[str]:
        repo = self.repo_id if self.repo_id is not None and REPO_ID.fullmatch(self.repo_id) else "OWNER/NAME"
        return [
            f'repo = "{repo}"',
            f'model = hf_hub_download(repo, "{FOLDER}/{cell.file}")',
            'words = hf_hub_download(repo, "tokenizer.json")',
        ]


@dataclass(frozen=True)
class InTheClone(_InTheTree):
    """A folder of a git repository that holds the files through Git LFS."""

    folder: str
    """From the repository's root, ``.`` for the root itself; plain names, see ``bot.publish.markdown.SAFE_PATH``."""
    packages = ()
    imports = ()

    @property
    def rebuilding(self) -> str:
        return _rebuilding(self.folder)

    def getting(self, cell: Cell) -> list[str]:
        return [
            f'repo = "{self.folder}"  # in a clone of this repository, after `git lfs pull`',
            f'model = f"{{repo}}/{FOLDER}/{cell.file}"',
            'words = f"{repo}/tokenizer.json"',
        ]


@dataclass(frozen=True)
class OnARelease:
    """A folder of a git repository whose files are attached to a release."""

    folder: str
    tag: str
    page: str
    """The release's address."""
    urls: Mapping[str, str]
    """``Cell.file`` to the address of its download."""
    packages = ()
    imports = ()

    @property
    def rebuilding(self) -> str:
        return _rebuilding(self.folder)

    @property
    def home(self) -> str:
        return f"attached to the release {address(self.tag, self.page)}"

    def label(self, cell: Cell) -> str:
        return self.urls[cell.file or ""].rsplit("/", 1)[-1]

    def target(self, cell: Cell) -> str:
        return self.urls[cell.file or ""]

    def getting(self, cell: Cell) -> list[str]:
        name = self.label(cell)
        return [
            f'repo = "{self.folder}"  # in a clone of this repository',
            f'model = "{name}"  # gh release download {self.tag} --pattern {name}',
            'words = f"{repo}/tokenizer.json"',
        ]


def _rebuilding(folder: str) -> str:
    manifest = f"{FOLDER}/manifest.json"
    return f"ptebot rebuild --model {folder} {manifest if folder == '.' else f'{folder}/{manifest}'}"
