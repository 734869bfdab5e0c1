"""How the bot speaks to a Hub: one client per endpoint and token, its failures as ours, no secret in any text.

Used by ``bot.fetch`` (stage 2) and ``bot.publish.hub`` (stage 5). In: what huggingface_hub raises. Out: one
of the classes of ``bot.errors``, with the Hub's own words where it said some, and without the request object,
which holds the token.
"""

from __future__ import annotations

import errno
import os
import re
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import httpx2
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.tqdm import disable_progress_bars

from bot.errors import (
    CommitConflict,
    HubRefused,
    HubUnreachable,
    NotAuthorized,
    RepoNotFound,
    RevisionNotFound,
    UnsafeRepository,
)
from exporter import __version__
from exporter.errors import DiskFull, PtebotError

MOST_FILES = 20_000
"""Entries of one folder that are listed before a repository is refused."""
SHA = re.compile(r"[0-9a-f]{40}")
_SECRET = re.compile(
    r"\bhf_[A-Za-z0-9_]{8,}[\w.-]*|\beyJ[\w-]+\.[\w.-]+|(?<=bearer )[^\s'\"]+|(?<=://)[^\s/@]+(?=@)"
    r"|\?[^\s'\"]*=[^\s'\"]*",
    re.IGNORECASE,
)
"""Tokens by shape, credentials in a URL, and queries, which may be signatures."""


@dataclass(frozen=True, kw_only=True)
class TreeFile:
    """One file as a Hub's tree lists it."""

    path: str
    size_bytes: int
    oid: str
    """The git blob id; for a large file that of its pointer."""
    sha256: str | None
    """Of the content; only for a large file (LFS, Xet)."""


def connect(endpoint: str | None, token: str | None) -> HfApi:
    """A client that uses this token or none at all: a stored login is never picked up behind our back."""
    disable_progress_bars()
    return HfApi(
        endpoint=endpoint.rstrip("/") if endpoint else None,
        token=token or False,
        library_name="ptebot",
        library_version=__version__,
    )


def scrub(text: str, token: str | None = None) -> str:
    """``text`` without the token and without anything that looks like one."""
    if token:
        text = text.replace(token, "***")
    return _SECRET.sub("***", text)


@contextmanager
def asking(what: str, api: HfApi) -> Iterator[None]:
    """Turn every failure of the Hub inside the block into ours; ``what`` was being done ("reading o/n").

    The original is dropped from the traceback (``from None``), because it holds the request and its headers.
    """
    try:
        yield
    except PtebotError:
        raise
    except Exception as error:
        found = translated(error, what, api)
        if found is None:
            raise
        raise found from None


def translated(error: Exception, what: str, api: HfApi) -> Exception | None:  # noqa: PLR0911 - one line per kind
    """Our failure for one of huggingface_hub's; None when it is none of the Hub's doing."""
    token = api.token if isinstance(api.token, str) else None
    said = scrub(_said(error), token)
    place = f"{api.endpoint} while {what}"
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        return translated(error.__cause__, what, api)
    if isinstance(error, OfflineModeIsEnabled):
        return HubUnreachable(f"Offline mode forbids {what}.", remedy="Unset HF_HUB_OFFLINE and run the command again.")
    if isinstance(error, HfHubHTTPError):
        return _refused(error, said, place)
    if isinstance(error, HFValidationError):
        return RepoNotFound(f"Not a repository's id, while {what}: {said}.")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"The disk is full, while {what}.")
    if isinstance(error, httpx2.HTTPError | ConnectionError | TimeoutError | LocalEntryNotFoundError | RuntimeError):
        # hf_xet raises bare RuntimeErrors for its storage's failures.
        return HubUnreachable(f"No answer from {place}: {said}.")
    if isinstance(error, ValueError | TypeError | LookupError | AttributeError) and _raised_by_its_library(error):
        return HubRefused(
            f"{place}: the reply is not one of a Hub's ({type(error).__name__}).",
            remedy="Check the address of the Hub, and a proxy on the way.",
        )
    return None


def _raised_by_its_library(error: Exception) -> bool:
    """Whether huggingface_hub, or what it reads replies with, met a reply of another shape; else it is our defect."""
    frames = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
    return any(f"{os.sep}huggingface_hub{os.sep}" in name for name in frames)


def _refused(error: HfHubHTTPError, said: str, place: str) -> Exception:
    """By class, else by status; the first line that fits counts."""
    status = error.response.status_code
    answered = f"{place}: the Hub answered {status}: {said}."
    gated = "Ask for access on the repository's page, then give that account's token (HF_TOKEN)."
    table: list[tuple[bool, Exception]] = [
        (isinstance(error, GatedRepoError), NotAuthorized(f"The repository is gated: {answered}", remedy=gated)),
        (isinstance(error, RevisionNotFoundError), RevisionNotFound(f"No such revision: {answered}")),
        (
            isinstance(error, RepositoryNotFoundError),
            RepoNotFound(f"No repository that this token can see: {answered}"),
        ),
        (isinstance(error, DisabledRepoError), RepoNotFound(f"The repository is disabled: {answered}")),
        (status in (401, 403), NotAuthorized(answered)),
        (status in (409, 412), CommitConflict(answered)),
        (status == 429 or status >= 500, HubUnreachable(answered)),
        (status == 404 and not isinstance(error, RemoteEntryNotFoundError), RepoNotFound(answered)),
    ]
    return next((failure for fits, failure in table if fits), HubRefused(answered))


def _said(error: Exception) -> str:
    """The Hub's own words, else the first words of the exception; on one line, without a closing period."""
    server = getattr(error, "server_message", None)
    words = " ".join((server or str(error) or type(error).__name__).split())
    return words[:300].rstrip(". ")


def list_folder(api: HfApi, repo_id: str, revision: str, folder: str | None = None) -> dict[str, TreeFile]:
    """The files at the root of a repository, or all those below ``folder``, by path. No such folder: empty.

    Raises:
        UnsafeRepository: a path that could leave a directory, or more than ``MOST_FILES`` entries.
        HubUnreachable, RepoNotFound, RevisionNotFound, NotAuthorized: as the Hub answers.
    """
    files: dict[str, TreeFile] = {}
    with asking(f"listing the files of {repo_id}", api):
        try:
            entries = list(
                islice(
                    api.list_repo_tree(repo_id, path_in_repo=folder, revision=revision, recursive=folder is not None),
                    MOST_FILES + 1,
                )
            )
        except RemoteEntryNotFoundError:
            return {}
    if len(entries) > MOST_FILES:
        raise UnsafeRepository(f"{repo_id} has more than {MOST_FILES:,} entries in one folder.")
    for entry in entries:
        check_path(entry.path, repo_id)
        if isinstance(entry, RepoFile):
            files[entry.path] = tree_file(entry)
    return files


def tree_file(entry: RepoFile) -> TreeFile:
    """What the Hub lists of one file."""
    sha256 = entry.lfs.sha256 if entry.lfs is not None else None
    return TreeFile(path=entry.path, size_bytes=entry.size, oid=entry.blob_id, sha256=sha256)


def check_path(path: str, repo_id: str) -> None:
    """Refuse a path that could leave the directory it is written to, or upset a terminal."""
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in path or not path.isprintable():
        raise UnsafeRepository(f"{repo_id} lists a file by an unsafe name: {path[:200]!r}.")


def read_file(api: HfApi, repo_id: str, commit: str, listed: TreeFile | None, *, limit: int) -> bytes | None:
    """A small file's bytes at a commit; None where ``listed``, what the commit's tree says of it, is None.

    Raises:
        UnsafeRepository: larger than ``limit`` bytes, by what the Hub lists or by what it sends.
        HubUnreachable, RepoNotFound, RevisionNotFound, NotAuthorized: as the Hub answers.
    """
    if listed is None:
        return None
    if listed.size_bytes > limit:
        raise UnsafeRepository(
            f"{listed.path} of {repo_id} has {listed.size_bytes:,} bytes; at most {limit:,} are read."
        )
    with tempfile.TemporaryDirectory(prefix="ptebot-read-") as scratch:
        with asking(f"reading {listed.path} of {repo_id}", api):
            local = Path(api.hf_hub_download(repo_id, listed.path, revision=commit, local_dir=scratch))
        if local.stat().st_size != listed.size_bytes:
            raise UnsafeRepository(f"{listed.path} of {repo_id} does not have the size that the Hub lists.")
        return local.read_bytes()
