"""Publishing as a loop: look at a repository, decide on one step, take it, look again. Stage 5, and the last.

In: a host (``bot.publish.hub``, ``bot.publish.github``), a report and its files. Out: what was done and where to
see it. It ends when nothing is left to do. No write is ever repeated blindly: after any failure the host is asked
what it has first, so that a lost reply, a kill and a second run beside this one all end in one pull request.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

from bot import plan
from bot.errors import CommitConflict, PublishFailed, SourceMoved
from bot.export_process import OnProgress, Progress
from bot.publish import decide as steps
from bot.publish.offer import Change, Offer, Put
from bot.publish.state import CARD, Branch, Pull, State
from exporter.errors import NoGoodCell, PtebotError
from exporter.report import Report

MOST_STEPS = 12
"""Steps of one publish, repeated ones included; the longest way without trouble takes five."""
PAUSE_SECONDS = 1.0
"""Before the first look after a failed call; doubled each time. A slow commit may still arrive meanwhile."""
MOST_FAILURES = 5

Operation = Literal["created", "updated", "unchanged", "none"]


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What a pull request says and changes."""

    title: str
    description: str
    card_diff: str
    """Unified diff of README.md."""
    files: list[tuple[str, int | None]]
    """Path and size in bytes of each file that is written; None for one that is deleted."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """How publishing ended."""

    operation: Operation
    """With ``dry_run``, what would be done."""
    pr_url: str | None = None
    pr_num: int | None = None
    revision: str | None = None
    """The pull request's last commit; the main branch's where that has the files already."""
    reason: str = ""
    preview: Preview | None = None
    """Only with ``dry_run``."""
    manifest: Report | None = field(default=None, repr=False)
    """What is offered there, where that was found without an export."""


class Host(Protocol):
    """One repository on one service, with what publishing asks of it; every method speaks to the service.

    To add a service: implement this, and give it a ``Target`` in ``bot.publish.target``.
    """

    @property
    def name(self) -> str:
        """The service in words: ``the Hub``."""

    @property
    def repo_id(self) -> str:
        """``owner/name``, as it was given."""

    @property
    def unanswered(self) -> type[PtebotError]:
        """What is raised when it is unknown whether a call was done."""

    def me(self) -> str | None:
        """The account that writes; None where there is no token."""

    def look(self, author: str | None, known: Collection[int]) -> State:
        """The base branch, and the pull requests of ``author`` that are ours; ``known`` are ours for sure."""

    def base(self, now: State) -> Branch:
        """What the base branch has at ``now.head``."""

    def branch(self, now: State, pull: Pull) -> Branch:
        """What the branch of a pull request has; raises RevisionNotFound where it is gone."""

    def make_offer(self, report: Report, out_dir: Path, command: str) -> Offer:
        """The files, manifest and card for this repository; raises OutputNotTrusted."""

    def title(self, report: Report) -> str: ...

    def description(self, report: Report) -> str: ...

    def changes(self, offer: Offer, branch: Branch, card: bytes | None) -> list[Change]:
        """What a commit on ``branch`` would change, by paths in the repository."""

    def open(self, now: State, main: Branch, offer: Offer) -> int | None:
        """Open a pull request from the base branch; its number where the service told it."""

    def refresh(self, now: State, main: Branch, pull: Pull, branch: Branch, offer: Offer) -> None:
        """Commit to the branch of a pull request of ours what it lacks."""

    def describe(self, now: State, pull: Pull, title: str, text: str) -> None: ...

    def close(self, now: State, pull: Pull, comment: str) -> None:
        """Close a pull request; no failure where it is closed already."""


def publish(
    host: Host,
    report: Report,
    out_dir: Path,
    *,
    command: str,
    dry_run: bool = False,
    progress: OnProgress = lambda _: None,
) -> Published:
    """Offer an export to the repository that its model came from.

    Args:
        out_dir: where the report's files are.
        command: what made them, as a person would type it; shown in the card.
        dry_run: look and plan, change nothing.
        progress: told each step as stage ``publish``.

    Raises:
        NoGoodCell: the report offers no file; nothing was sent.
        OutputNotTrusted: a file in ``out_dir`` is not what the report says; nothing was sent.
        SourceMoved: the base branch's weights, config or tokenizer are not those that were exported.
        CardInvalid: README.md cannot take the section; nothing was sent.
        PublishFailed: others changed the pull request each time that it was read.
        PtebotError: as the host answers.
    """
    if not report.good_cells:
        raise NoGoodCell(f"None of the {len(report.cells)} cells gave a file that passed; no pull request is opened.")
    return _Publishing(host, host.make_offer(report, out_dir, command), progress, dry_run).run()


class _Publishing:
    """One run of the loop."""

    def __init__(self, host: Host, offer: Offer, progress: OnProgress, dry_run: bool) -> None:
        self._host, self._offer = host, offer
        self._progress, self._dry_run = progress, dry_run
        self._acted = False
        self._done: Operation | None = None
        self._created: set[int] = set()

    def run(self) -> Published:
        self._say("looking for our pull request")
        author = self._host.me()
        failures = 0
        for _ in range(MOST_STEPS):
            try:
                ended = self._step(author)
            except CommitConflict as conflict:
                failures += 1
                if failures >= MOST_FAILURES:
                    raise PublishFailed(f"{conflict} It went on so {failures} times.") from None
            except self._host.unanswered:
                failures += 1
                if failures >= MOST_FAILURES or not self._acted:
                    raise
                self._say(f"no answer; asking {self._host.name} what it has")
                time.sleep(PAUSE_SECONDS * 2 ** (failures - 1))
            else:
                if ended is not None:
                    return ended
        raise PublishFailed(f"After {MOST_STEPS} steps {self._host.repo_id} is still not as it should be.")

    def _step(self, author: str | None) -> Published | None:
        """Look, decide, act; what came of it once nothing is left to do."""
        now = self._host.look(author, self._created)
        changed = now.moved(plan.model_files(self._offer.report))
        if changed and not self._acted:
            raise SourceMoved(
                f"The {now.base} of {now.repo_id} has other content than was exported: {', '.join(changed[:5])}."
            )
        main = self._host.base(now)
        pull = steps.oldest_open(now)
        if self._dry_run:
            now = replace(now, pulls=[one for one in now.pulls if not one.open or one is pull])
        branch = self._host.branch(now, pull) if pull is not None else None
        step = steps.decide(self._offer.report, now, main, branch)
        if isinstance(step, steps.Finish):
            return self._finish(step, branch if step.pull is not None and branch is not None else main)
        if self._dry_run:
            return self._preview(step, main)
        self._act(step, now, main)
        return None

    def _finish(self, step: steps.Finish, branch: Branch) -> Published:
        operation: Operation = "none" if step.operation == "none" else self._done or "unchanged"
        num = step.pull.num if step.pull else None
        reason = step.reason if operation in ("unchanged", "none") else ""
        if operation == "created" and num not in self._created and self._created:
            operation, reason = "unchanged", "another run opened this pull request at the same time"
        url = step.pull.url if step.pull else None
        return Published(operation=operation, pr_url=url, pr_num=num, revision=branch.commit, reason=reason)

    def _act(self, step: steps.Step, now: State, main: Branch) -> None:
        self._acted = True
        if isinstance(step, steps.Create):
            if self._created:
                raise PublishFailed(f"Pull request {max(self._created)} was opened and cannot be found again.")
            self._say(f"opening the pull request: {self._offer.size}")
            self._done = "created"
            num = self._host.open(now, main, self._offer)
            if num is not None:
                self._created.add(num)
        elif isinstance(step, steps.Update):
            self._say(f"refreshing pull request {step.pull.num}: {self._offer.size}")
            self._done = self._done or "updated"
            self._host.refresh(now, main, step.pull, step.branch, self._offer)
        elif isinstance(step, steps.Describe):
            self._done = self._done or "updated"
            report = step.published
            self._host.describe(now, step.pull, self._host.title(report), self._host.description(report))
        elif isinstance(step, steps.Close):
            self._say(f"closing pull request {step.pull.num}")
            self._host.close(now, step.pull, step.comment)

    def _preview(self, step: steps.Step, main: Branch) -> Published:
        branch = step.branch if isinstance(step, steps.Update) else main
        pull = step.pull if isinstance(step, steps.Update | steps.Describe) else None
        report = step.published if isinstance(step, steps.Describe) else self._offer.report
        described = isinstance(step, steps.Describe)
        changes = [] if described else self._host.changes(self._offer, branch, main.card)
        before = (branch.card or b"").decode("utf-8", "replace").splitlines(keepends=True)
        after = self._offer.card(main.card).decode().splitlines(keepends=True)
        diff = difflib.unified_diff(before, after, f"a/{CARD}" if branch.card is not None else "/dev/null", f"b/{CARD}")
        return Published(
            operation="updated" if pull is not None else "created",
            pr_url=pull.url if pull else None,
            pr_num=pull.num if pull else None,
            preview=Preview(
                title=self._host.title(report),
                description=self._host.description(report),
                card_diff="".join(line if line.endswith("\n") else f"{line}\n" for line in diff),
                files=[(one.path, one.size_bytes if isinstance(one, Put) else None) for one in changes],
            ),
        )

    def _say(self, words: str) -> None:
        self._progress(Progress(stage="publish", message=words))
