"""Git LFS uploads: files here, objects in a repository's storage there. Stage 5.

In: files with their proven SHA-256. Out: every one of them in the storage, or a typed failure. It speaks the batch
API (github.com/git-lfs/git-lfs, docs/api/batch.md and basic-transfers.md). An object is named by its content, so
that all of it may be repeated at will: what is there already is not sent again.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from bot import hashes
from bot.errors import GitHubRefused, GitHubUnreachable, LargeFileRefused, OutputNotTrusted
from bot.githubapi import Client, translated
from bot.githubfailures import refusal, scrub
from bot.publish.github import transfer
from bot.publish.github.transfer import TIMEOUT_SECONDS, Body, Sent, words

MEDIA_TYPE = "application/vnd.git-lfs+json"
MOST_OBJECTS = 100
"""In one batch request, as GitHub takes them."""
ATTEMPTS = 4
PAUSE_SECONDS = 1.0
"""Before the second attempt; doubled each time."""
_FULL = re.compile(
    r"\b(?:budget|quota|data packs?|storage limit|insufficient storage|lfs is disabled|to public fork)\b", re.I
)
"""What is about the storage and not about the token, of GitHub's 403s too."""
_TOO_LARGE = re.compile(r"less than or equal to (?P<limit>\d{1,15})")
SentOf = Callable[[int, int], None]
"""Told the bytes that were sent and those of the whole."""


@dataclass(frozen=True, kw_only=True)
class Large:
    """One file to store."""

    path: str
    """In the repository, for messages."""
    local: Path
    sha256: str
    size_bytes: int


class Storage:
    """One repository's LFS storage."""

    def __init__(self, client: Client, clone_url: str) -> None:
        self._client = client
        self._url = f"{clone_url}/info/lfs/objects/batch"
        self._session = transfer.session()

    def store(self, files: list[Large], branch: str, sent: SentOf = lambda _now, _all: None) -> None:
        """Upload what the storage lacks.

        Args:
            branch: the branch whose commit will point to the files.

        Raises:
            OutputNotTrusted: a file is not what it should be; it is not sent.
            LargeFileRefused: a file is too large for the plan, or the storage is full.
            GitHubNotAuthorized, GitHubRateLimited, GitHubUnreachable, GitHubRefused: as GitHub answers.
        """
        for file in files:
            if hashes.sha256_of(file.local) != file.sha256:
                raise OutputNotTrusted(f"{file.path} does not have the SHA-256 that the report states.")
        total, done = sum(file.size_bytes for file in files), 0
        for start in range(0, len(files), MOST_OBJECTS):
            for file in files[start : start + MOST_OBJECTS]:
                self._store(file, branch, lambda now, done=done: sent(done + now, total))  # type: ignore[misc]
                done += file.size_bytes
                sent(done, total)

    def _store(self, file: Large, branch: str, sent: Sent) -> None:
        for attempt in range(ATTEMPTS):
            try:
                self._attempt(file, branch, sent)
            except GitHubUnreachable:
                if attempt == ATTEMPTS - 1:
                    raise
                time.sleep(PAUSE_SECONDS * 2**attempt)
            else:
                return

    def _attempt(self, file: Large, branch: str, sent: Sent) -> None:
        actions = self._actions(file, branch)
        if actions.get("upload"):
            with self._asking(f"uploading {file.path}"), file.local.open("rb") as stream:
                reply = self._session.put(
                    self._address(actions["upload"]),
                    data=Body(stream, file.size_bytes, sent),
                    headers=_headers(actions["upload"]),
                    timeout=TIMEOUT_SECONDS,
                    allow_redirects=False,
                )
            self._check(reply, f"uploading {file.path}", file)
        if actions.get("verify"):
            with self._asking(f"verifying {file.path}"):
                reply = self._session.post(
                    self._address(actions["verify"]),
                    data=json.dumps({"oid": file.sha256, "size": file.size_bytes}),
                    headers={"Accept": MEDIA_TYPE, **_headers(actions["verify"]), "Content-Type": MEDIA_TYPE},
                    timeout=TIMEOUT_SECONDS,
                    allow_redirects=False,
                )
            self._check(reply, f"verifying {file.path}", file)

    def _actions(self, file: Large, branch: str) -> dict[str, Any]:
        """What is to be done for a file; nothing where the storage has it."""
        doing = f"asking Git LFS to take {file.path}"
        body = {
            "operation": "upload",
            "transfers": ["basic"],
            "ref": {"name": f"refs/heads/{branch}"},
            "objects": [{"oid": file.sha256, "size": file.size_bytes}],
            "hash_algo": "sha256",
        }
        basic = base64.b64encode(f"x-access-token:{self._client.token}".encode()).decode()
        headers = {"Accept": MEDIA_TYPE, "Content-Type": MEDIA_TYPE, "Authorization": f"Basic {basic}"}
        with self._asking(doing):
            reply = self._session.post(
                self._url, data=json.dumps(body), headers=headers, timeout=TIMEOUT_SECONDS, allow_redirects=False
            )
        self._check(reply, doing, file)
        try:
            (found,) = [one for one in reply.json()["objects"] if one["oid"] == file.sha256]
            error, actions = found.get("error"), found.get("actions") or {}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise GitHubRefused(f"{self._place(doing)}: the reply is not one of Git LFS.") from None
        if error:
            raise self._refused(file, f"{error.get('code')}: {error.get('message')}")
        return dict(actions)

    def _check(self, reply: requests.Response, doing: str, file: Large) -> None:
        if reply.status_code < 300:
            return
        said = words(reply)
        full = reply.status_code in (403, 413, 422, 507) and _FULL.search(said)
        if full or _TOO_LARGE.search(said) or reply.status_code in (413, 507):
            raise self._refused(file, f"{reply.status_code}: {said}")
        if reply.status_code == 400 and "mismatch" in said.lower():
            raise GitHubUnreachable(f"{self._place(doing)}: the file was damaged on the way.")
        raise refusal(
            reply.status_code,
            said,
            transfer.headers(reply),
            place=self._place(doing),
            needs="contents: write",
            token=self._client.token,
        )

    def _refused(self, file: Large, said: str) -> LargeFileRefused:
        limit = _TOO_LARGE.search(said)
        told = f" Its limit is {int(limit['limit']):,} bytes." if limit else ""
        said = scrub(" ".join(said.split())[:300], self._client.token)
        return LargeFileRefused(f"{file.path} ({file.size_bytes:,} bytes): Git LFS answered {said}.{told}")

    def _address(self, action: dict[str, Any]) -> str:
        """Where an action leads; never out of https into the open."""
        url = str(action.get("href", ""))
        if urlsplit(url).scheme not in ({"https"} if self._url.startswith("https") else {"http", "https"}):
            raise GitHubRefused("Git LFS names an address for the upload that is not on https.")
        return url

    def _place(self, doing: str) -> str:
        return f"{urlsplit(self._url).netloc} while {doing}"

    @contextmanager
    def _asking(self, doing: str) -> Iterator[None]:
        try:
            yield
        except requests.RequestException as error:
            raise (translated(error, doing, self._client) or error) from None


def _headers(action: dict[str, Any]) -> dict[str, str]:
    given = action.get("header") or {}
    return {"Content-Type": "application/octet-stream", **{str(name): str(value) for name, value in given.items()}}
