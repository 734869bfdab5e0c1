"""A repository on a Hub made into a directory that the exporter reads. Stage 2 of the way of one request.

In: a repository's id and a revision. Out: a directory with just the files that an export depends on, all
from one commit, each with the content that the Hub's tree lists. Which weights are read, and which are
refused (pickles, adapters, GGUF), is the exporter's own rule, applied to the names before any weight is
downloaded. Files arrive in a staging directory, which an interrupted download leaves for the next one to
continue, and the directory appears under its own name only when it is whole.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]  # public, by its documentation
from huggingface_hub.utils.tqdm import tqdm

from bot.errors import DownloadDamaged, RepoNotFound, UnsafeRepository
from bot.export_process import OnProgress, Progress
from bot.hashes import git_oid_of, sha256_of
from bot.hubapi import SHA, TreeFile, asking, connect, list_folder, tree_file
from bot.plan import small_files
from bot.publish import words
from bot.publish.card import REPO_ID
from exporter import calibration_files
from exporter.errors import DiskFull, InvalidCalibration

MAX_SMALL_BYTES = 256 << 20
"""One config or tokenizer file; the largest tokenizers in use have some 35 million bytes."""
MAX_TOTAL_BYTES = 512 << 30
SPARE_BYTES = 256 << 20
"""What must stay free on the disk beside the download."""
PARALLEL = 4
_SECONDS_BETWEEN_LINES = 0.5


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """A revision of a repository, pinned."""

    repo_id: str
    """As the Hub spells it now, which differs from what was asked for after a rename."""
    revision: str
    """The commit, 40 hex digits."""
    tree: dict[str, TreeFile]
    """The files at the repository's root, by name."""
    private: bool = True
    """Whether the Hub shows it to its own people only."""
    texts: tuple[str, ...] = ()
    """Files that the owner names for calibration; ``tree`` has them too, wherever they lie."""


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A downloaded revision."""

    directory: Path
    repo_id: str
    revision: str
    tree: dict[str, TreeFile]


def resolve(repo_id: str, revision: str | None, *, endpoint: str | None, token: str | None) -> Resolved:
    """Pin a branch, tag or commit (default ``main``) and list what it holds; downloads nothing.

    Raises:
        RepoNotFound, RevisionNotFound, NotAuthorized, HubUnreachable: as the Hub answers.
        UnsafeRepository: a file name that could leave a directory, or too many files.
    """
    if not REPO_ID.fullmatch(repo_id):
        raise RepoNotFound(f"{repo_id[:200]!r} is not a repository's id.", remedy="Give OWNER/NAME as on the Hub.")
    api = connect(endpoint, token)
    with asking(f"looking up {repo_id}", api):
        info = api.model_info(repo_id, revision=revision or "main")
    if not REPO_ID.fullmatch(info.id) or not SHA.fullmatch(info.sha or ""):
        raise UnsafeRepository(f"The Hub describes {repo_id} as {info.id[:200]!r} at {str(info.sha)[:80]!r}.")
    sha = str(info.sha)
    return Resolved(
        repo_id=info.id, revision=sha, tree=list_folder(api, info.id, sha), private=info.private is not False
    )


def with_texts(found: Resolved, names: Sequence[str], *, endpoint: str | None, token: str | None) -> Resolved:
    """The same revision with the owner's calibration files, which may lie in folders; downloads nothing.

    Raises:
        InvalidCalibration: the revision has no such file, or it is empty or too large.
        HubUnreachable, NotAuthorized, RepoNotFound: as the Hub answers.
    """
    if (reason := calibration_files.wrong_list(names)) is not None:
        raise InvalidCalibration(f"The calibration text {reason}.")
    deep = [name for name in names if name not in found.tree]
    more: dict[str, TreeFile] = {}
    if deep:
        api = connect(endpoint, token)
        with asking(f"looking for {', '.join(deep)} in {found.repo_id}", api):
            listed = api.get_paths_info(found.repo_id, deep, revision=found.revision)
        more = {one.path: tree_file(one) for one in listed if isinstance(one, RepoFile) and one.path in deep}
    tree = {**found.tree, **more}
    for name in names:
        if name not in tree:
            raise InvalidCalibration(
                f"The calibration text {name} is not there: {found.repo_id} has no such file at {found.revision[:12]}.",
                remedy="Name a file by its path from the root of the repository, as the repository spells it.",
            )
        calibration_files.check_size(name, tree[name].size_bytes)
    return replace(found, tree=tree, texts=tuple(names))


def place(into: Path, found: Resolved) -> Path:
    """Where ``fetch`` puts a revision below ``into``."""
    return into.resolve() / found.repo_id.replace("/", "--") / found.revision


def fetch(
    repo_id: str,
    revision: str | None,
    *,
    endpoint: str | None,
    token: str | None,
    into: Path,
    progress: OnProgress = lambda _: None,
    resolved: Resolved | None = None,
) -> Fetched:
    """Download what an export of a revision needs below ``into``; at once when it is there already.

    Args:
        into: a directory of our own for downloads; the files go to ``into/<owner>--<name>/<commit>``.
        progress: told the share of bytes that arrived, 0 to 1, as stage ``fetch``.
        resolved: what ``resolve`` gave for the same repository and revision, if it was asked before.

    Raises:
        PickledWeightsOnly, AdapterWithoutBase, QuantizedCheckpoint, MissingShard, InvalidModelDirectory: the
            exporter would refuse what is there; no weight was downloaded.
        UnsafeRepository: a file is larger than its kind can be.
        DiskFull: it would not fit.
        DownloadDamaged: a file's bytes are not those that the Hub lists.
        RepoNotFound, RevisionNotFound, NotAuthorized, HubUnreachable: as the Hub answers.
    """
    found = resolved or resolve(repo_id, revision, endpoint=endpoint, token=token)
    api = connect(endpoint, token)
    final = place(into, found)
    home, staging = final.parent, final.with_name(f"{found.revision}.part")
    home.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(home / f"{found.revision}.lock"):
        if final.is_dir() and _whole(final, found):
            progress(Progress(stage="fetch", fraction=1.0, message="already downloaded"))
        else:
            _fetch_into(staging, found, api, progress)
            shutil.rmtree(staging / ".cache", ignore_errors=True)
            shutil.rmtree(final, ignore_errors=True)
            staging.replace(final)
        _fetch_texts(final, staging, found, api)
    return Fetched(directory=final, repo_id=found.repo_id, revision=found.revision, tree=found.tree)


def _fetch_into(staging: Path, found: Resolved, api: HfApi, progress: OnProgress) -> None:
    small = [found.tree[name] for name in small_files(found.tree)]
    for file in small:
        if file.size_bytes > MAX_SMALL_BYTES:
            raise UnsafeRepository(f"{file.path} has {file.size_bytes:,} bytes; at most {MAX_SMALL_BYTES:,} are taken.")
    _check_room(small, staging)
    staging.mkdir(exist_ok=True)
    download = _Download(api, found, staging, progress)
    download.run(small)
    weights = [found.tree[name] for name in _weights(staging, found.tree)]
    _check_room(weights, staging)
    download.run(weights)


def _fetch_texts(final: Path, staging: Path, found: Resolved, api: HfApi) -> None:
    """Add the owner's texts to a whole download, which may have been made without them or with others."""
    missing = [found.tree[name] for name in found.texts if not _same(final / name, found.tree[name])]
    if not missing:
        return
    staging.mkdir(exist_ok=True)
    _Download(api, found, staging, lambda _: None).run(missing)
    for file in missing:
        target = final / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        (staging / file.path).replace(target)
    shutil.rmtree(staging, ignore_errors=True)


def _weights(staging: Path, tree: dict[str, TreeFile]) -> list[str]:
    """The weight files that the exporter would read, or its refusal, from the names (and the index) alone."""
    # Imported late: the exporter's rule comes with transformers, which takes a second to load.
    from exporter import weights

    return [path.name for path in weights.find({name: staging / name for name in tree})]


def _whole(directory: Path, found: Resolved) -> bool:
    """Whether every file in a finished directory still has the listed content, and none of ours is missing."""
    names = {path.name for path in directory.iterdir() if not path.is_dir()}  # texts in folders are looked at apart
    expected = set(small_files(found.tree))
    return expected <= names <= found.tree.keys() and all(_same(directory / n, found.tree[n]) for n in names)


def _same(path: Path, listed: TreeFile) -> bool:
    if path.is_symlink() or not path.is_file() or path.stat().st_size != listed.size_bytes:
        return False
    return sha256_of(path) == listed.sha256 if listed.sha256 is not None else git_oid_of(path) == listed.oid


def _check_room(files: Iterable[TreeFile], staging: Path) -> None:
    total = sum(file.size_bytes for file in files)
    if total > MAX_TOTAL_BYTES:
        raise UnsafeRepository(f"The files have {total:,} bytes together; at most {MAX_TOTAL_BYTES:,} are taken.")
    there = sum(path.stat().st_size for path in staging.rglob("*") if path.is_file()) if staging.is_dir() else 0
    free = shutil.disk_usage(staging.parent).free
    if total - there + SPARE_BYTES > free:
        raise DiskFull(f"The download takes {total:,} bytes and {staging.parent} has {free:,} free.")


class _Download:
    """Files of one commit into one directory, a few at a time, verified, with progress by bytes."""

    def __init__(self, api: HfApi, found: Resolved, staging: Path, progress: OnProgress) -> None:
        self._api, self._found, self._staging, self._progress = api, found, staging, progress
        self._lock = threading.Lock()
        self._done, self._total, self._last = 0, 0, 0.0

    def run(self, files: list[TreeFile]) -> None:
        """Download ``files``; raises as ``fetch``."""
        self._total += sum(file.size_bytes for file in files)
        with ThreadPoolExecutor(PARALLEL) as pool:
            for done in [pool.submit(self._one, file) for file in files]:
                done.result()

    def _one(self, file: TreeFile) -> None:
        path = self._staging / file.path
        for attempt in (1, 2):
            if not (path.exists() and _same(path, file)):
                with asking(f"downloading {file.path} of {self._found.repo_id}", self._api):
                    self._api.hf_hub_download(
                        self._found.repo_id,
                        file.path,
                        revision=self._found.revision,
                        local_dir=self._staging,
                        force_download=attempt > 1,
                        tqdm_class=_counting(self._count),
                    )
            if _same(path, file):
                return
        raise DownloadDamaged(f"{file.path} of {self._found.repo_id} arrived with other bytes than the Hub lists.")

    def _count(self, size: int) -> None:
        with self._lock:
            self._done = min(self._total, self._done + size)
            now = time.monotonic()
            if now - self._last < _SECONDS_BETWEEN_LINES and self._done < self._total:
                return
            self._last, done, total = now, self._done, self._total
        message = f"{words.size(done)} of {words.size(total)}"
        self._progress(Progress(stage="fetch", fraction=done / total if total else None, message=message))


def _counting(count: Callable[[int], None]) -> type[tqdm]:
    """A bar for huggingface_hub that draws nothing and tells how many bytes came."""

    class Counting(tqdm):
        def update(self, n: float | None = 1) -> Any:
            count(int(n or 0))
            return None

    return Counting
