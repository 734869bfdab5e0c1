"""What MODEL on a command line means: a directory on this machine, or a repository on a Hub.

Stage 2 of the way of one request. In: the argument. Out: a source that names itself (``ref``) and, when
asked, gives the directory that the exporter reads. Cheap checks come before anything is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from bot import credentials, fetch, hashes, unchanged, workspace
from bot.export_process import Progress
from bot.hubapi import TreeFile
from bot.plan import small_files
from bot.publish.card import REPO_ID
from exporter import calibration_files
from exporter.errors import InvalidModelDirectory, OutputNotEmpty
from exporter.spec import ModelRef


@dataclass(frozen=True)
class LocalModel:
    """A directory on this machine; it has no revision, unless it is a copy of one."""

    directory: Path
    copy_of: ModelRef | None = None
    """The repository and commit that hold the same model, where it is known to be one."""
    texts: tuple[str, ...] = ()
    """Files that the owner names for calibration, by their paths in the directory."""

    @property
    def ref(self) -> ModelRef:
        return self.copy_of or ModelRef(name=self.directory.resolve().name)

    @cached_property
    def tree(self) -> dict[str, TreeFile]:
        """The files that an export depends on, by name, hashed as a Hub would list them.

        Raises:
            InvalidModelDirectory: a file cannot be read, or is a link that leads out of the directory.
        """
        try:
            names = [path.name for path in self.directory.iterdir() if path.is_file()]
            weights = [name for name in names if name.endswith(".safetensors")]
            wanted = sorted({*small_files(names), *weights})
            for name in wanted:
                _check_link(self.directory / name)
            files = {name: _listed(name, self.directory / name) for name in wanted}
            texts = {name: _listed(name, calibration_files.find(self.directory, name)) for name in self.texts}
            return {**files, **texts}
        except OSError as error:
            raise InvalidModelDirectory(f"{self.directory} cannot be read: {error}.") from None

    def with_texts(self, names: Sequence[str]) -> LocalModel:
        """The same model with calibration texts; raises InvalidCalibration for one that cannot be read."""
        for name in names:
            calibration_files.find(self.directory, name)
        return replace(self, texts=tuple(names))

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
        """The files at the repository's root, and calibration texts wherever they lie, by path."""
        return self.resolved.tree

    @property
    def texts(self) -> tuple[str, ...]:
        """Files that the owner names for calibration."""
        return self.resolved.texts

    def with_texts(self, names: Sequence[str]) -> HubModel:
        """The same model with calibration texts; raises as ``bot.fetch.with_texts``."""
        if not names:
            return self
        return replace(self, resolved=fetch.with_texts(self.resolved, names, endpoint=self.endpoint, token=self.token))

    @property
    def directory(self) -> Path:
        """Where ``fetch`` puts it."""
        return fetch.place(self.into, self.resolved)

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


def _check_link(path: Path) -> None:
    """What ``exporter.source.files_of`` refuses, before anything is read: a link may lead to what never ends."""
    root = path.parent.resolve()
    allowed = [root, *([root.parent.parent / "blobs"] if root.parent.name == "snapshots" else [])]
    if path.is_symlink() and not any(path.resolve().is_relative_to(place) for place in allowed):
        raise InvalidModelDirectory(f"{path.parent}: {path.name} is a symbolic link that leads out of it.")


def _listed(name: str, path: Path) -> TreeFile:
    oid, sha256 = hashes.git_oid_of(path), hashes.sha256_of(path)
    return TreeFile(path=name, size_bytes=path.stat().st_size, oid=oid, sha256=sha256)


def open_model(
    model: str,
    *,
    revision: str | None,
    endpoint: str | None,
    into: Path | None = None,
    token_for: Callable[[str], str | None] = credentials.token_for,
) -> LocalModel | HubModel:
    """The source that ``model`` names; a directory goes before a Hub id of the same spelling.

    Args:
        endpoint: the Hub's address; None for huggingface_hub's own setting.
        into: where downloads are kept; None for the folder that stays between commands.
        token_for: gives the token to read with, by endpoint.

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
    token = token_for(endpoint)
    resolved = fetch.resolve(model, revision, endpoint=endpoint, token=token)
    return HubModel(resolved=resolved, endpoint=endpoint, token=token, into=into or workspace.default_root() / "models")


def as_copy_of(source: LocalModel, repo_id: str, *, endpoint: str, token: str | None) -> LocalModel:
    """The directory as a copy of the repository's main branch, which it has to be.

    Raises:
        SourceMoved: the repository holds another model.
        RepoNotFound, NotAuthorized, HubUnreachable: as the Hub answers.
    """
    found = fetch.resolve(repo_id, None, endpoint=endpoint, token=token)
    unchanged.check_same_model(source.tree, found.tree, found.repo_id)
    return LocalModel(source.directory, ModelRef(repo_id=found.repo_id, revision=found.revision), source.texts)


def check_output(out: Path) -> None:
    """Refuse an output directory with something in it before any work starts; raises OutputNotEmpty."""
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise OutputNotEmpty(f"{out} exists and is not an empty directory.")
