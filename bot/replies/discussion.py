"""The bot's reply in a discussion on the Hub: one comment for each command, edited as the work goes on. Stage 6.

In: a discussion, a job as it stands, and its reports. Out: the comment's id. The marker in the first line is an HTML
comment; anyone can copy one, so it counts only in a comment of our own account. It is looked for before a reply is
written, so that a step that is done again, or whose answer was lost, writes no second one.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.utils._headers import build_hf_headers
from huggingface_hub.utils._http import get_session, hf_raise_for_status

from bot.errors import CommitConflict, HubRefused, HubUnreachable, NotAuthorized, RepoNotFound
from bot.hubapi import asking
from bot.publish import state
from bot.replies import discussion_text
from bot.replies.comment import fit
from bot.server.records import JobRecord
from exporter import __version__

LIMIT = 65_536
"""Characters of a comment, as the Hub counts."""
EVERY_SECONDS = 15.0
"""Between two edits that only show progress: people do not read faster, and the Hub counts writes."""
CUT = "\n\n*The rest is left out here.*\n"
TIMEOUT_SECONDS = 30.0
MOST_REMEMBERED = 1_000


def reply_marker(comment_id: str) -> str:
    """The first line of the reply to a command."""
    return f"<!-- ptebot:reply comment={comment_id} -->"


def refusal_marker(account: str) -> str:
    """The first line of what an account is told that may not give commands: once in a discussion."""
    return f"<!-- ptebot:refusal account={account} -->"


@dataclass
class _Shown:
    """What a reply showed last."""

    reply_id: str
    body: str
    key: tuple[Any, ...]
    at: float
    """On the monotonic clock."""


class _Memory:
    """What this process showed last, by endpoint, discussion and marker; the oldest is forgotten first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shown: OrderedDict[tuple[str, str, int, str], _Shown] = OrderedDict()

    def get(self, key: tuple[str, str, int, str]) -> _Shown | None:
        with self._lock:
            return self._shown.get(key)

    def put(self, key: tuple[str, str, int, str], shown: _Shown | None) -> None:
        with self._lock:
            self._shown.pop(key, None)
            if shown is not None:
                self._shown[key] = shown
            while len(self._shown) > MOST_REMEMBERED:
                self._shown.popitem(last=False)


_MEMORY = _Memory()


class Discussion:
    """One discussion or pull request, and what we say in it. Cheap to make; steps may each make their own."""

    def __init__(
        self,
        api: HfApi,
        repo_id: str,
        num: int,
        *,
        public_url: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            api: of the bot's account (``bot.hubapi.connect``).
            public_url: of the server's pages, for a link to the job; '' leaves it out.
        """
        self._api, self._repo_id, self._num = api, repo_id, num
        self._public_url, self._clock = public_url.rstrip("/"), clock

    def say(self, record: JobRecord, reports: Mapping[str, str], *, force: bool = False) -> str | None:
        """Make the reply to the job's command show how the job stands.

        Args:
            reports: of ``Store.reports``: JSON by part.
            force: also where an edit that only shows progress would come too early.

        Returns:
            The reply's id; None where the job has no command to reply to.

        Raises:
            HubUnreachable: it may be tried again, and then edits what there is.
            RepoNotFound, NotAuthorized, HubRefused: it cannot be said; no reason to end a job.
        """
        if record.asker.comment_id is None:
            return None
        marker = reply_marker(record.asker.comment_id)
        key = (record.id, record.state, record.attempt, len(reports), record.pr_url)
        shown = _MEMORY.get(self._key(marker))
        early = shown is not None and shown.key == key and self._clock() - shown.at < EVERY_SECONDS
        if shown is not None and early and not force:
            return shown.reply_id
        link = f"{self._public_url}/jobs/{record.id}" if self._public_url else None
        return self.tell(marker, discussion_text.job(record, reports, link=link), known=record.reply_id, key=key)

    def tell(self, marker: str, body: str, *, known: str | None = None, key: tuple[Any, ...] = ()) -> str:
        """Make our comment with this marker say this, Markdown that is safe already; its id.

        Args:
            known: its id, where that is known.

        Raises:
            HubUnreachable, RepoNotFound, NotAuthorized, HubRefused: as the Hub answers.
        """
        whole = fit(f"{marker}\n{body}", LIMIT, cut=CUT)
        shown = _MEMORY.get(self._key(marker))
        if shown is not None and shown.body == whole:
            return shown.reply_id
        reply_id = shown.reply_id if shown is not None else known
        if reply_id is None or not self._edit(reply_id, whole):
            _MEMORY.put(self._key(marker), None)
            reply_id = self._again(marker, whole, reply_id)
        _MEMORY.put(self._key(marker), _Shown(reply_id, whole, key, self._clock()))
        return reply_id

    def has(self, marker: str) -> bool:
        """Whether we have said something with this marker."""
        return self._find(marker) is not None

    def _key(self, marker: str) -> tuple[str, str, int, str]:
        return (self._api.endpoint, self._repo_id.lower(), self._num, marker)

    def _again(self, marker: str, whole: str, known: str | None) -> str:
        """Look for the comment, then write it; where the answer to that was lost, look once more."""
        found = self._find(marker, known)
        if found is not None:
            return self._renew(found, whole)
        try:
            with asking(f"commenting on #{self._num} of {self._repo_id}", self._api):
                return str(self._api.comment_discussion(self._repo_id, self._num, whole).id)
        except (HubUnreachable, HubRefused, CommitConflict) as error:
            found = self._find(marker)
            if found is not None:
                return self._renew(found, whole)
            if isinstance(error, CommitConflict):
                raise HubRefused(str(error)) from None
            raise

    def _renew(self, found: tuple[str, bool], whole: str) -> str:
        reply_id, hidden = found
        if not hidden:  # who hid it wants to read no more of it
            self._edit(reply_id, whole)
        return reply_id

    def _edit(self, reply_id: str, whole: str) -> bool:
        """Whether the comment could be edited; it cannot where somebody hid it or it is gone."""
        try:
            with asking(f"editing the reply on #{self._num} of {self._repo_id}", self._api):
                self._api.edit_discussion_comment(self._repo_id, self._num, reply_id, whole)
        except (NotAuthorized, RepoNotFound, HubRefused, CommitConflict):
            return False
        return True

    def _find(self, marker: str, known: str | None = None) -> tuple[str, bool] | None:
        """Our comment with this marker, the oldest one, and whether it is hidden, which takes its marker away."""
        me = state.me(self._api)
        if me is None:
            raise NotAuthorized("Without a token nothing can be said in a discussion.")
        for event in events(self._api, self._repo_id, self._num):
            author, data = event.get("author"), event.get("data")
            if event.get("type") != "comment" or not isinstance(author, dict) or not isinstance(data, dict):
                continue
            if author.get("name") != me or not isinstance(event.get("id"), str):
                continue
            hidden = data.get("hidden") is True
            if hidden and event["id"] == known:
                return event["id"], True
            if not hidden and _raw(data).split("\n", 1)[0].strip() == marker:
                return event["id"], False
        return None


def events(api: HfApi, repo_id: str, num: int) -> list[dict[str, Any]]:
    """A discussion's events as the Hub gives them: huggingface_hub's classes leave out who may do what.

    Raises:
        HubUnreachable, RepoNotFound, NotAuthorized, HubRefused: as the Hub answers.
    """
    # Not get_discussion_details, which always asks for the diff of a pull request as well: that may be megabytes.
    url = f"{api.endpoint}/api/models/{repo_id}/discussions/{num}"
    headers = build_hf_headers(token=api.token, library_name="ptebot", library_version=__version__)
    with asking(f"reading #{num} of {repo_id}", api):
        response = get_session().get(url, headers=headers, timeout=TIMEOUT_SECONDS)
        hf_raise_for_status(response)
        try:
            found = response.json()
        except ValueError:
            found = None
    listed = found.get("events") if isinstance(found, dict) else None
    if not isinstance(listed, list):
        raise HubRefused(f"The Hub gives #{num} of {repo_id} no events.")
    return [one for one in listed if isinstance(one, dict)]


def _raw(data: Mapping[str, Any]) -> str:
    latest = data.get("latest")
    raw = latest.get("raw") if isinstance(latest, dict) else None
    return raw if isinstance(raw, str) else ""
