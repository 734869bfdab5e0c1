"""What a commit shows of an export: a check run where the token may write one, else a commit status. Stage 6.

There is one for a commit and a name. A job's own token writes check runs as the same app that runs the jobs, so a
job of that name has a run beside ours: ours is told by its ``external_id``. A status replaces the one before it by
its context.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote

from bot.errors import CommitConflict, GitHubNotAuthorized, GitHubNotFound, GitHubRefused, GitHubUnreachable
from bot.githubapi import Client, asking, found_or
from bot.publish.markdown import one_line, text
from bot.replies.comment import fit
from bot.replies.shapes import id_of, rows, web_address

Conclusion = Literal["success", "failure", "neutral", "cancelled"]
EXTERNAL_ID = "ptebot"
LIMIT = 65_535
"""Of a check run's summary: GitHub says characters, and has counted bytes."""
MOST_TITLE = 200
MOST_DESCRIPTION = 140
"""Characters of a status."""
STATES = {"success": "success", "failure": "failure", "neutral": "success", "cancelled": "error"}
"""A status has no neutral end; to do nothing is no failure."""


@dataclass
class Check:
    """One name's check on one commit."""

    client: Client
    repository: str
    sha: str
    details_url: str | None
    """Where the log is, until there is something better to lead to."""
    name: str = "ptebot"
    _id: int | None = field(default=None, init=False)
    _own: bool = field(default=False, init=False)
    """Made by this process."""
    _status_only: bool = field(default=False, init=False)

    def start(self, title: str) -> None:
        """Show that work goes on; raises as GitHub answers."""
        self._show(title, "", None, self.details_url)

    def finish(self, conclusion: Conclusion, title: str, summary: str, *, url: str | None = None) -> None:
        """Show how it ended.

        Args:
            summary: Markdown that is safe already.
            url: where to look further, a pull request for one.
        """
        self._show(title, summary, conclusion, url or self.details_url)

    def _show(self, title: str, summary: str, conclusion: Conclusion | None, url: str | None) -> None:
        if not self._status_only:
            try:
                self._check_run(one_line(title, MOST_TITLE), summary, conclusion, web_address(url))
                return
            except (GitHubNotAuthorized, GitHubNotFound) as error:
                # A token of a person writes no check runs, one of a job only with `checks: write`.
                self._status_only = True
                refused = error
            self._status_or(refused, title, conclusion, url)
        else:
            self._status(title, conclusion, web_address(url))

    def _status_or(
        self, refused: GitHubNotAuthorized | GitHubNotFound, title: str, conclusion: Conclusion | None, url: str | None
    ) -> None:
        try:
            self._status(title, conclusion, web_address(url))
        except (GitHubNotAuthorized, GitHubNotFound):
            raise GitHubNotAuthorized(
                f"Neither a check run nor a status can be put on the commit: {refused.what}",
                remedy="Add `checks: write` or `statuses: write` to `permissions:` of the job.",
            ) from None

    def _check_run(self, title: str, summary: str, conclusion: Conclusion | None, url: str | None) -> None:
        body: dict[str, Any] = {
            "status": "completed" if conclusion else "in_progress",
            "output": {"title": title or self.name, "summary": _fit(summary or text(title) or self.name)},
        }
        if conclusion:
            body["conclusion"] = conclusion
        if url:
            body["details_url"] = url
        if self._id is None:
            self._id = self._find()
        if self._id is not None:
            try:
                self._update(self._id, body)
                return
            except GitHubRefused:
                if self._own:
                    raise
                # Another run of ours ended it, and an ended one is not begun again everywhere: GitHub shows the newest.
        known = self._id
        self._id = found_or(lambda: self._find(known), lambda: self._create(body))
        self._own = True

    def _create(self, body: dict[str, Any]) -> int:
        wanted = {"name": self.name, "head_sha": self.sha, "external_id": EXTERNAL_ID, **body}
        with asking("making the check run", self.client, needs="checks: write"):
            return id_of(self.client.call("POST", f"/repos/{self.repository}/check-runs", body=wanted))

    def _update(self, number: int, body: dict[str, Any]) -> None:
        """The same update twice changes nothing more."""
        for last in (False, True):
            try:
                with asking("updating the check run", self.client, needs="checks: write"):
                    self.client.call("PATCH", f"/repos/{self.repository}/check-runs/{number}", body=body)
                return
            except (GitHubUnreachable, CommitConflict):
                if last:
                    raise

    def _find(self, before: int | None = None) -> int | None:
        """Our newest check run of this name, where it is newer than ``before``."""
        path = f"/repos/{self.repository}/commits/{self.sha}/check-runs"
        with asking("looking for the check run", self.client, needs="checks: write"):
            listed = self.client.call("GET", path, query={"check_name": self.name, "filter": "all", "per_page": 100})
            found = listed["check_runs"] if isinstance(listed, dict) else []
            ours = [one for one in rows(found) if one.get("external_id") == EXTERNAL_ID]
            newest = max((id_of(one) for one in ours), default=0)
        return newest if newest > (before or 0) else None

    def _status(self, title: str, conclusion: Conclusion | None, url: str | None) -> None:
        body = {
            "state": STATES[conclusion] if conclusion else "pending",
            "context": self.name,
            "description": one_line(title, MOST_DESCRIPTION),
        }
        if url:
            body["target_url"] = url
        found_or(lambda: self._there(body), lambda: self._write(body))

    def _write(self, body: dict[str, str]) -> bool:
        with asking("setting the commit's status", self.client, needs="statuses: write"):
            self.client.call("POST", f"/repos/{self.repository}/statuses/{quote(self.sha)}", body=body)
        return True

    def _there(self, body: dict[str, str]) -> bool | None:
        """Whether the newest status of this name is the one that was to be written."""
        try:
            with asking("reading the commit's statuses", self.client, needs="statuses: read"):
                listed = self.client.call("GET", f"/repos/{self.repository}/commits/{self.sha}/statuses")
        except GitHubRefused:
            return None
        newest = next((one for one in rows(listed) if one.get("context") == self.name), {})
        return True if all(newest.get(key) == value for key, value in body.items()) else None


def _fit(summary: str) -> str:
    """Cut until it fits in bytes too."""
    limit, cut = LIMIT, fit(summary, LIMIT)
    while (size := len(cut.encode())) > LIMIT:
        limit = max(limit * LIMIT // size - 1, 1000)
        cut = fit(summary, limit)
    return cut
