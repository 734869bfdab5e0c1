"""All that a job says on GitHub while it works: one object for a door to hold. Stage 6.

In: a client and where the request came from. Out: reactions, one comment, one check, a link back. What cannot be
said never ends a job: it becomes a warning, told once. The one thing that does end it is ``allowed``: where it
cannot be told whether somebody may give commands, nothing runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from bot.errors import CommitConflict
from bot.githubapi import Client, asking
from bot.publish.markdown import text
from bot.replies import link, permission, reactions
from bot.replies.check import Check, Conclusion
from bot.replies.comment import Comment, reply_marker
from bot.replies.shapes import web_address
from bot.triggers import comments
from bot.triggers.payload import REPOSITORY
from bot.triggers.request import Origin, Request
from exporter.errors import PtebotError

EVERY_SECONDS = 20.0
"""Between two edits of the comment: GitHub counts them as writes, and people do not read faster."""
MOST_PROGRESS = 200
CHECKED = ("push", "release", "pull_request", "pull_request_target")
"""Events that are about a commit, which then shows a check; at others it is only where the job happens to run."""

T = TypeVar("T")


def nothing(_: str) -> None:
    """Warn nobody."""


@dataclass
class Conversation:
    """What one request hears from us.

    A request from a fork gets no replies: its token only reads, and the job's summary says everything.
    """

    client: Client | None
    """None where there is no token: nothing is said then, and nobody may give commands."""
    origin: Origin
    run_url: str | None = None
    """The job's page with its log."""
    warn: Callable[[str], None] = nothing
    """Told, once for each kind, what could not be said and why."""
    name: str = "ptebot"
    """Of the check."""
    clock: Callable[[], float] = time.monotonic
    _may: bool | None = field(default=None, init=False)
    _eyes: int | None = field(default=None, init=False)
    _failed: set[str] = field(default_factory=set, init=False)
    _last: float | None = field(default=None, init=False)
    _ended: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        origin, client = self.origin, self.client
        self._comment: Comment | None = None
        self._check: Check | None = None
        if client is None or origin.forked:
            return
        if origin.comment_id is not None and origin.number is not None:
            marker = reply_marker(origin.comment_id)
            self._comment = Comment(client, origin.repository, origin.number, marker, after=origin.comment_id)
        elif origin.sha is not None and origin.event in CHECKED:
            self._check = Check(client, origin.repository, origin.sha, self.run_url, self.name)

    def allowed(self) -> bool:
        """Whether who asks may: always, but for a comment, whose author has to have write permission.

        Raises:
            PtebotError: GitHub does not tell; nothing may run.
        """
        if self.origin.event != "issue_comment":
            return True
        if self._may is None:
            self._may = self.client is not None and permission.may_write(
                self.client, self.origin.repository, self.origin.actor
            )
        return self._may

    def start(self, doing: str = "The export is about to start.") -> None:
        """At once: eyes, the comment, or a check that work goes on. ``doing`` is shown as plain text."""
        client, comment = self.client, self._comment
        if client is not None and comment is not None:
            self._eyes = self._try("react to the comment", lambda: self._react(client, "eyes"))
            self._last = self.clock()
            self._try("reply to the comment", lambda: comment.show(self._working(doing)))
        if (check := self._check) is not None:
            self._try("show a check on the commit", lambda: check.start(doing))

    def progress(self, said: str) -> None:
        """How far it is, as plain text; most of it is not shown, so that the comment is not edited all the time."""
        comment, now = self._comment, self.clock()
        if comment is None or self._ended or (self._last is not None and now - self._last < EVERY_SECONDS):
            return
        self._last = now
        self._try("reply to the comment", lambda: comment.show(self._working(said)))

    def finish(
        self,
        ok: bool,
        body: str,
        *,
        title: str = "",
        url: str | None = None,
        conclusion: Conclusion | None = None,
    ) -> None:
        """How it ended.

        Args:
            body: Markdown that is safe already: the verdict and the table.
            title: the verdict in a line of plain text, for the check.
            url: the pull request, where there is one.
            conclusion: of the check; None: success or failure, as ``ok`` says.
        """
        self._ended = True
        comment, check = self._comment, self._check
        if comment is not None:
            self._try("reply to the comment", lambda: comment.show(f"{body.rstrip()}\n\n{self._log()}"), final=True)
            self._react_to_the_end("rocket" if ok else "confused")
        if check is not None:
            end: Conclusion = conclusion or ("success" if ok else "failure")
            words = title or ("Done" if ok else "Failed")
            self._try(
                "show a check on the commit", lambda: check.finish(end, words, body or words, url=url), final=True
            )

    def refuse(self, reason: str) -> None:
        """Nothing is done, and why (plain text). Who may not give commands gets a reaction only: strangers could
        make the bot talk otherwise."""
        if self._comment is not None and self._may is not True:
            self._ended = True
            self._react_to_the_end("confused")
            return
        self.finish(False, f"Nothing was done: {text(reason)}", title=reason, conclusion="neutral")

    def help(self, request: Request) -> None:
        """The grammar, and what was wrong where something was."""
        self.finish(request.problem is None, help_text(request.problem))

    def link_back(self, *, model: str, operation: str, url: str | None) -> None:
        """Tell the pull request that brought the change where its files are offered now, on the Hub for one."""
        client, origin = self.client, self.origin
        if client is None or origin.forked or url is None or origin.comment_id is not None:
            return

        def post() -> None:
            if (number := link.conversation_of(client, self.origin)) is not None:
                link.post(client, self.origin, number, model=model, operation=operation, url=url)

        self._try("leave a link on the pull request", post, final=True)

    def _react(self, client: Client, content: reactions.Content) -> int | None:
        comment = self.origin.comment_id
        return reactions.add(client, self.origin.repository, comment, content) if comment is not None else None

    def _react_to_the_end(self, content: reactions.Content) -> None:
        client, eyes, comment = self.client, self._eyes, self.origin.comment_id
        if client is None or comment is None:
            return
        self._try("react to the comment", lambda: self._react(client, content), final=True)
        if eyes is not None:
            self._try(
                "react to the comment",
                lambda: reactions.remove(client, self.origin.repository, comment, eyes),
                final=True,
            )

    def _working(self, said: str) -> str:
        return f"{text(said, MOST_PROGRESS)}\n\n{self._log()}"

    def _log(self) -> str:
        address = web_address(self.run_url)
        return f"[Log]({address})\n" if address else ""

    def _try(self, doing: str, do: Callable[[], T], *, final: bool = False) -> T | None:
        """Do it, or warn. What failed once is tried again at the end only: the next one would fail as well."""
        if doing in self._failed and not final:
            return None
        try:
            try:
                return do()
            except CommitConflict:
                self._follow()
                return do()
        except (PtebotError, CommitConflict) as error:
            if doing not in self._failed:
                why = f"{error.what} {error.advice}" if isinstance(error, PtebotError) else str(error)
                self.warn(f"ptebot could not {doing}. {why}")
            self._failed.add(doing)
            return None

    def _follow(self) -> None:
        """Learn the repository's name again: it may have been renamed since the event."""
        client = self.client
        if client is None:
            return
        with asking(f"reading {self.origin.repository}", client, needs="metadata: read"):
            answer = client.call("GET", f"/repos/{self.origin.repository}")
        name = answer.get("full_name") if isinstance(answer, dict) else None
        if isinstance(name, str) and REPOSITORY.fullmatch(name):
            self.origin = replace(self.origin, repository=name)
            for part in (self._comment, self._check):
                if part is not None:
                    part.repository = name


def help_text(problem: str | None) -> str:
    """What can be said in a comment, Markdown; first what was wrong."""
    wrong = f"{text(problem)} Nothing was done.\n\n" if problem else ""
    return f"{wrong}What can be said:\n\n```text\n{comments.GRAMMAR}```\n\n{comments.EXPLAINED}"
