"""Files attached to a release: what takes them where Git LFS does not. Stage 5.

In: files with their proven SHA-256. Out: one prerelease per model that has them, each under a name that its hash is
part of. A file that is there stays: the cards that link to it go on working.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import requests

from bot.errors import (
    CommitConflict,
    GitHubNotFound,
    GitHubRefused,
    GitHubUnreachable,
    LargeFileRefused,
    OutputNotTrusted,
)
from bot.githubapi import Client, asking, found_or, translated
from bot.githubfailures import refusal
from bot.publish.github import transfer
from bot.publish.github.read import Repository
from bot.publish.github.transfer import TIMEOUT_SECONDS, Body, Sent, words

LARGEST_ASSET = 2 * 1024**3
"""Bytes that GitHub takes at most for one file, less one (docs.github.com, "About releases")."""
ATTEMPTS = 4
PAUSE_SECONDS = 1.0
NEEDS = "contents: write"


@dataclass(frozen=True, kw_only=True)
class Asset:
    """A file of a release."""

    id: int
    name: str
    size_bytes: int
    sha256: str | None
    """None where GitHub does not tell it."""
    whole: bool
    """False for one whose upload was broken off."""


@dataclass(frozen=True, kw_only=True)
class Attachment:
    """One file to attach."""

    name: str
    local: Path
    sha256: str
    size_bytes: int


class Shelf:
    """The release of one model."""

    def __init__(self, client: Client, tag: str) -> None:
        self._client, self._tag = client, tag
        self._session = transfer.session()

    def assets(self, repo: Repository) -> dict[str, Asset]:
        """Whole files by name; none where there is no release."""
        found = self._release(repo)
        return {name: one for name, one in self._assets(repo, found).items() if one.whole} if found else {}

    def attach(
        self,
        repo: Repository,
        files: list[Attachment],
        title: str,
        sent: Callable[[int, int], None] = lambda _now, _all: None,
    ) -> None:
        """Upload what the release lacks; make the release where there is none.

        Args:
            title: the name of a new release.
            sent: told the bytes that were sent and those of the whole.

        Raises:
            LargeFileRefused: a file is too large for a release.
            OutputNotTrusted: a file is not what it should be; it does not stay there.
            GitHubNotAuthorized, GitHubUnreachable, GitHubRefused, BranchProtected: as GitHub answers.
        """
        for file in files:
            if file.size_bytes >= LARGEST_ASSET:
                raise LargeFileRefused(
                    f"{file.name} ({file.size_bytes:,} bytes): a release takes files below {LARGEST_ASSET:,} bytes.",
                    remedy="Ask for smaller files: fewer parameters, or a quantized precision only.",
                )
        release = self._release(repo) or self._make(repo, title)
        total, done = sum(file.size_bytes for file in files), 0
        for file in files:
            self._attach(repo, release, file, lambda now, done=done: sent(done + now, total))  # type: ignore[misc]
            done += file.size_bytes
            sent(done, total)

    def _release(self, repo: Repository) -> dict[str, Any] | None:
        try:
            with asking(f"reading the release {self._tag} of {repo.full_name}", self._client, needs="contents: read"):
                found = self._client.call("GET", f"{repo.path}/releases/tags/{quote(self._tag, safe='')}")
        except GitHubNotFound:
            return None
        return dict(found)

    def _make(self, repo: Repository, title: str) -> dict[str, Any]:
        body = {
            "tag_name": self._tag,
            "name": title,
            "body": "ExecuTorch files that ptebot made and proved. Each name ends in the start of the file's SHA-256; "
            "files of earlier versions stay, so that links to them go on working.",
            "draft": False,
            "prerelease": True,
            "make_latest": "false",
        }

        def write() -> dict[str, Any]:
            with asking(f"making the release {self._tag} of {repo.full_name}", self._client, needs=NEEDS):
                return dict(self._client.call("POST", f"{repo.path}/releases", body=body))

        return found_or(lambda: self._release(repo), write)

    def _assets(self, repo: Repository, release: Mapping[str, Any]) -> dict[str, Asset]:
        found: dict[str, Asset] = {}
        page = 1
        while page:
            with asking(f"listing the files of the release {self._tag}", self._client, needs="contents: read"):
                query = {"per_page": 100, "page": page}
                listed = self._client.call("GET", f"{repo.path}/releases/{release['id']}/assets", query=query)
            for item in listed:
                digest = str(item.get("digest") or "")
                found[item["name"]] = Asset(
                    id=int(item["id"]),
                    name=item["name"],
                    size_bytes=int(item["size"]),
                    sha256=digest.removeprefix("sha256:") if digest.startswith("sha256:") else None,
                    whole=item.get("state") == "uploaded",
                )
            page = page + 1 if len(listed) == 100 else 0
        return found

    def _attach(self, repo: Repository, release: Mapping[str, Any], file: Attachment, sent: Sent) -> None:
        for attempt in range(ATTEMPTS):
            there = self._assets(repo, release).get(file.name)
            whole = there is not None and there.whole and there.size_bytes == file.size_bytes
            if there is not None and whole and there.sha256 in (file.sha256, None):
                return
            if there is not None:
                self._remove(repo, there)
            try:
                self._upload(repo, release, file, sent)
            except (GitHubUnreachable, CommitConflict):
                if attempt == ATTEMPTS - 1:
                    raise
                time.sleep(PAUSE_SECONDS * 2**attempt)

    def _remove(self, repo: Repository, one: Asset) -> None:
        try:
            with asking(f"removing the broken {one.name} from the release", self._client, needs=NEEDS):
                self._client.call("DELETE", f"{repo.path}/releases/assets/{one.id}")
        except GitHubNotFound:
            return  # somebody else was quicker

    def _upload(self, repo: Repository, release: Mapping[str, Any], file: Attachment, sent: Sent) -> None:
        doing = f"attaching {file.name}"
        with file.local.open("rb") as stream:
            body = Body(stream, file.size_bytes, sent)
            try:
                reply = self._session.post(
                    self._address(release),
                    params={"name": file.name},
                    data=body,
                    headers={
                        "Accept": "application/vnd.github+json",
                        "Content-Type": "application/octet-stream",
                        "Authorization": f"Bearer {self._client.token}",
                    },
                    timeout=TIMEOUT_SECONDS,
                    allow_redirects=False,
                )
            except requests.RequestException as error:
                raise (translated(error, doing, self._client) or error) from None
        if reply.status_code == 422 and "immutable" in words(reply).lower():
            raise GitHubRefused(
                f"Releases of {repo.full_name} take no more files once they are published: they are immutable.",
                remedy="Set `storage: lfs`, or let releases of this repository be changed (settings, under Releases).",
            )
        if reply.status_code != 201:
            raise refusal(
                reply.status_code,
                words(reply),
                transfer.headers(reply),
                place=f"{urlsplit(reply.url).netloc} while {doing}",
                needs=NEEDS,
                token=self._client.token,
            )
        if body.sha256 != file.sha256:
            self._remove(repo, Asset(id=reply.json()["id"], name=file.name, size_bytes=0, sha256=None, whole=True))
            raise OutputNotTrusted(f"{file.name} does not have the SHA-256 that the report states.")

    def _address(self, release: Mapping[str, Any]) -> str:
        """Where uploads go. The token goes there too, so it must be a host of GitHub's."""
        url = str(release.get("upload_url", "")).split("{")[0]
        there, here = urlsplit(url), urlsplit(self._client.api_url)
        host = here.hostname or ""
        family = {host, f"uploads.{host.removeprefix('api.')}"}
        if there.hostname not in family or there.scheme != here.scheme:
            raise GitHubRefused("GitHub names an address for uploads that is none of its own.")
        return url
