"""One comment of ours in a conversation, found again by marker and author, and edited instead of doubled. Stage 6.

The marker is an HTML comment in the first line. Anyone can copy one, so it counts only in a comment of our own
account; and a reply whose answer was lost is looked for before another one is written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from bot.errors import CommitConflict, GitHubNotFound, GitHubUnreachable
from bot.githubapi import Client, asking, found_or, same_account
from bot.replies.shapes import id_of, rows

LIMIT = 65_536
"""Characters of a comment, as GitHub counts."""
MOST_PAGES = 20
"""Of a hundred comments each, that are searched for ours."""
NEEDS = "issues: write"
CUT = "\n\n*The rest is left out here; the summary of the job has it.*\n"


def reply_marker(comment: int) -> str:
    """The first line of the reply to a command."""
    return f"<!-- ptebot:reply comment={comment} -->"


def link_marker(key: str) -> str:
    """The first line of a link back; ``key`` tells models apart (plain hex digits)."""
    return f"<!-- ptebot:link {key} -->"


@dataclass
class Comment:
    """Our comment in a conversation; made by the first ``show``."""

    client: Client
    repository: str
    number: int
    """The issue or pull request."""
    marker: str
    after: int | None = None
    """A comment that ours answers: only later ones are looked at."""
    _id: int | None = field(default=None, init=False)
    _shown: str = field(default="", init=False)

    def show(self, body: str) -> None:
        """Make the comment say this, Markdown that is safe already.

        Raises:
            GitHubUnreachable, GitHubNotAuthorized, GitHubRefused and so on, as GitHub answers.
        """
        whole = fit(f"{self.marker}\n{body}", LIMIT)
        if whole == self._shown:
            return
        if self._id is None:
            self._id = self._find()
        if self._id is None or not self._edit(self._id, whole):
            self._id = None
            self._id = found_or(self._find, lambda: self._create(whole))
        self._shown = whole

    def _create(self, body: str) -> int:
        with asking(f"commenting on #{self.number}", self.client, needs=NEEDS):
            made = self.client.call(
                "POST", f"/repos/{self.repository}/issues/{self.number}/comments", body={"body": body}
            )
        return id_of(made)

    def _edit(self, number: int, body: str) -> bool:
        """Whether the comment is there to be edited: people may delete it. The same edit twice changes nothing more."""
        path = f"/repos/{self.repository}/issues/comments/{number}"
        for last in (False, True):
            try:
                with asking(f"editing the comment on #{self.number}", self.client, needs=NEEDS):
                    self.client.call("PATCH", path, body={"body": body})
                return True
            except GitHubNotFound:
                return False
            except (GitHubUnreachable, CommitConflict):
                if last:
                    raise
        return False

    def _find(self) -> int | None:
        """Our comment with this marker, the oldest where there are several."""
        with asking(f"reading the comments on #{self.number}", self.client, needs="issues: read"):
            query: dict[str, Any] = {"per_page": 100}
            if self.after is not None and (since := self._since(self.after)) is not None:
                query["since"] = since
            me: str | None = None
            for page in range(1, MOST_PAGES + 1):
                listed = self.client.call(
                    "GET", f"/repos/{self.repository}/issues/{self.number}/comments", query={**query, "page": page}
                )
                for one in rows(listed):
                    if (author := self._author_of_ours(one)) is not None:
                        me = me or self.client.me()
                        if same_account(author, me):
                            return id_of(one)
                if len(listed) < 100:
                    break
        return None

    def _author_of_ours(self, one: dict[str, Any]) -> str | None:
        """Who wrote a listed comment that begins as ours do; None for any other."""
        body, user = one.get("body"), one.get("user")
        if not isinstance(body, str) or not isinstance(user, dict) or body.split("\n", 1)[0].strip() != self.marker:
            return None
        return str(user.get("login") or "")

    def _since(self, comment: int) -> str | None:
        try:
            with asking("reading the command", self.client, needs="issues: read"):
                answer = self.client.call("GET", f"/repos/{self.repository}/issues/comments/{comment}")
        except GitHubNotFound:
            return None  # somebody deleted it; its reply may be there all the same
        created = answer.get("created_at") if isinstance(answer, dict) else None
        return created if isinstance(created, str) and len(created) < 40 else None


def fit(body: str, limit: int, *, cut: str = CUT) -> str:
    """``body`` in at most ``limit`` characters: whole lines of its beginning, with open blocks closed."""
    if len(body) <= limit:
        return body
    kept = body[: limit - len(cut) - 200]
    kept = kept[: kept.rfind("\n")] if "\n" in kept else kept
    fence = _open_fence(kept)
    closing = "".join(f"\n</{name}>" for name in reversed(_open_details(kept)))
    return f"{kept}{f'{chr(10)}{fence}' if fence else ''}{closing}{cut}"


def _open_fence(text: str) -> str:
    """The fence that closes a code block which the text leaves open."""
    fence = ""
    for found in re.finditer(r"^(`{3,}|~{3,})(.*)$", text, re.MULTILINE):
        if not fence:
            fence = found[1]
        elif found[1].startswith(fence) and not found[2].strip():
            fence = ""
    return fence[:100]


def _open_details(text: str) -> list[str]:
    count = len(re.findall(r"<details>", text)) - len(re.findall(r"</details>", text))
    return ["details"] * max(0, min(count, 10))
