"""What MODEL on a command line means: a directory on this machine, or a repository on a Hub.

Stage 2 of the way of one request. In: the argument. Out: a source that names itself (``ref``) and, when
asked, gives the directory that the exporter reads. Cheap checks come before anything is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bot import credentials, fetch, hashes, workspace
from bot.export_process import Progress
from bot.hubapi import TreeFile
from bot.publish.card import REPO_ID
from exporter.errors import InvalidModelDirectory, OutputNotEmpty
from exporter.spec import ExportSpec, ModelRef


class Source(Protocol):
    """Where a model comes from."""

    @property
    def ref(self) -> ModelRef:
        """What the report will say of it."""

    def fetch(self, show: Callable[[Progress], None]) -> Path:
        """The directory that holds the model, downloaded if need be."""


@dataclass(frozen=True)
class LocalModel:
    """A directory on this machine; it has no revision."""

    directory: Path

    @property
    def ref(self) -> ModelRef:
        return ModelRef(name=self.directory.resolve().name)

    def fetch(self, show: Callable[[Progress], None]) -> Path:
        return self.directory


@dataclass(frozen=True, kw_only=True)
class HubModel:
    """One commit of a repository on a Hub."""

    resolved: fetch.Resolved
    endpoint: str
    token: str | None = field(repr=False)
    into: Path
    """Where downloads are kept."""

    @property
    def ref(self) -> ModelRef:
        return ModelRef(repo_id=self.resolved.repo_id, revision=self.resolved.revision)

    @property
    def tree(self) -> dict[str, TreeFile]:
        """The files at the repository's root, by name."""
        return self.resolved.tree

    def fetch(self, show: Callable[[Progress], None]) -> Path:
        return fetch.fetch(
            self.resolved.repo_id,
            self.resolved.revision,
            endpoint=self.endpoint,
            token=self.token,
            into=self.into,
            progress=show,
            resolved=self.resolved,
        ).directory


def open_model(
    model: str, *, revision: str | None, endpoint: str | None, root: Path | None = None
) -> LocalModel | HubModel:
    """The source that ``model`` names; a directory goes before a Hub id of the same spelling.

    Args:
        endpoint: the Hub's address; None for huggingface_hub's own setting.
        root: where ptebot keeps its downloads; None for the default.

    Raises:
        InvalidModelDirectory: it is neither, or a revision is asked of a directory.
        RepoNotFound, RevisionNotFound, NotAuthorized, HubUnreachable: as the Hub answers.
    """
    directory = Path(model)
    if directory.is_dir():
        if revision is not None:
            raise InvalidModelDirectory(
                f"{model} is a directory on this machine, which has no revisions.",
                remedy="Leave out --revision, or run the command elsewhere if the Hub's repository is meant.",
            )
        return LocalModel(directory)
    if not REPO_ID.fullmatch(model):
        raise InvalidModelDirectory(
            f"{model!r} is neither a directory on this machine nor an id on the Hub.",
            remedy="Give a directory that save_pretrained wrote, or OWNER/NAME as on the Hub.",
        )
    endpoint = (endpoint or credentials.default_endpoint()).rstrip("/")
    token = credentials.token_for(endpoint)
    resolved = fetch.resolve(model, revision, endpoint=endpoint, token=token)
    return HubModel(
        resolved=resolved, endpoint=endpoint, token=token, into=(root or workspace.default_root()) / "models"
    )


def local_tree(directory: Path) -> dict[str, TreeFile]:
    """A local model directory's files, hashed as a Hub would list them, by name.

    Raises:
        InvalidModelDirectory: a file cannot be read.
    """
    found = {}
    for path in sorted(directory.iterdir()):
        if not path.is_file():
            continue
        try:
            size, oid, sha256 = path.stat().st_size, hashes.git_oid_of(path), hashes.sha256_of(path)
        except OSError as error:
            raise InvalidModelDirectory(f"{path} cannot be read: {error.strerror}.") from None
        found[path.name] = TreeFile(path=path.name, size_bytes=size, oid=oid, sha256=sha256)
    return found


def check_spec(spec: ExportSpec) -> None:
    """Refuse what the exporter would refuse of a spec alone, before anything is downloaded.

    Raises:
        UnknownBackend, UnknownPrecision: not in the exporter's tables.
    """
    # Imported late: they come with torch, which takes seconds to load.
    from exporter import backends, quantize

    for backend in spec.backends:
        backends.get(backend)
    for precision in spec.precisions:
        quantize.get(precision)


def check_output(out: Path) -> None:
    """Refuse an output directory with something in it before any work starts; raises OutputNotEmpty."""
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise OutputNotEmpty(f"{out} exists and is not an empty directory.")
