"""Files, manifest and card section as one commit on one pull request of a Hub repository. Stage 5, and the last.

In: a report, its files and a repository. Out: what was done and where to see it. Publishing is a loop: look at
the Hub (``state``), decide on one step (``decide``), take it, look again; it ends when nothing is left to do.
The Hub's commit call is never repeated blindly: after any failure the Hub is asked what it has first.
"""

from __future__ import annotations

import difflib
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi

from bot.errors import (
    CardInvalid,
    CommitConflict,
    HubRefused,
    HubUnreachable,
    NotAuthorized,
    PublishFailed,
    SourceMoved,
)
from bot.export_process import OnProgress, Progress
from bot.hubapi import asking, connect, scrub
from bot.publish import decide as steps
from bot.publish import message, state
from bot.publish.offer import Offer, make_offer
from bot.publish.offer import Operation as Offered
from bot.publish.state import CARD, Branch, State
from exporter.errors import NoGoodCell
from exporter.report import Report

MOST_STEPS = 12
"""Steps of one publish, repeated ones included; the longest way without trouble takes five."""
PAUSE_SECONDS = 1.0
"""Before the first look after a failed call; doubled each time. A slow commit may still arrive meanwhile."""
MOST_FAILURES = 5

GITIGNORE = ".gitignore"

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


def publish(
    report: Report,
    out_dir: Path,
    *,
    repo_id: str,
    endpoint: str | None,
    token: str | None,
    command: str,
    dry_run: bool = False,
    progress: OnProgress = lambda _: None,
) -> Published:
    """Offer an export to the repository that its model came from.

    Args:
        out_dir: where the report's files are.
        command: what made them, as a person would type it; shown in the card.
        dry_run: look and plan, change nothing; a token is then needed for hidden repositories only.
        progress: told each step as stage ``publish``.

    Raises:
        NoGoodCell: the report offers no file; nothing was sent.
        OutputNotTrusted: a file in ``out_dir`` is not what the report says; nothing was sent.
        SourceMoved: the main branch's weights, config or tokenizer are not those that were exported.
        CardInvalid: README.md cannot take the section; nothing was sent.
        NotAuthorized, RepoNotFound, HubUnreachable, HubRefused: as the Hub answers.
        PublishFailed: others changed the pull request each time that it was read.
    """
    if not report.good_cells:
        raise NoGoodCell(f"None of the {len(report.cells)} cells gave a file that passed; no pull request is opened.")
    if token is None and not dry_run:
        raise NotAuthorized("A pull request cannot be opened without a token.")
    api = connect(endpoint, token)
    offer = make_offer(report, out_dir, repo_id=repo_id, command=command)
    return _Publishing(api, offer, repo_id, progress, dry_run).run()


class _Publishing:
    """One run of the loop."""

    def __init__(self, api: HfApi, offer: Offer, repo_id: str, progress: OnProgress, dry_run: bool) -> None:
        self._api, self._offer, self._repo_id = api, offer, repo_id
        self._progress, self._dry_run = progress, dry_run
        self._acted = False
        self._done: Operation | None = None
        self._created: set[int] = set()
        self._seen: dict[str, Branch] = {}

    def run(self) -> Published:
        self._say("looking for our pull request")
        author = state.me(self._api)
        failures = 0
        for _ in range(MOST_STEPS):
            try:
                ended = self._step(author)
            except CommitConflict as conflict:
                failures += 1
                if failures >= MOST_FAILURES:
                    raise PublishFailed(f"{conflict} It went on so {failures} times.") from None
            except HubUnreachable:
                failures += 1
                if failures >= MOST_FAILURES or not self._acted:
                    raise
                self._say("no answer; asking the Hub what it has")
                time.sleep(PAUSE_SECONDS * 2 ** (failures - 1))
            else:
                if ended is not None:
                    return ended
        raise PublishFailed(f"After {MOST_STEPS} steps {self._repo_id} is still not as it should be.")

    def _step(self, author: str | None) -> Published | None:
        """Look, decide, act; what came of it once nothing is left to do."""
        now = state.look(self._api, self._repo_id, author, self._created)
        changed = now.moved(self._offer.report.model.files)
        if changed and not self._acted:
            raise SourceMoved(
                f"The main branch of {now.repo_id} has other content than was exported: {', '.join(changed[:5])}."
            )
        main = state.read_branch(self._api, now.repo_id, now.head, self._seen)
        pull = steps.oldest_open(now)
        if self._dry_run:
            now = replace(now, pulls=[one for one in now.pulls if not one.open or one is pull])
        branch = state.read_branch(self._api, now.repo_id, pull.ref, self._seen) if pull is not None else None
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
            info = self._commit(now, main, main.card, create_pr=True)
            if info.pr_num is not None:
                self._created.add(info.pr_num)
        elif isinstance(step, steps.Update):
            self._say(f"refreshing pull request {step.pull.num}: {self._offer.size}")
            self._done = self._done or "updated"
            self._commit(now, step.branch, main.card, revision=step.pull.ref)
        elif isinstance(step, steps.Describe):
            self._done = self._done or "updated"
            with asking(f"describing pull request {step.pull.num}", self._api):
                title = message.pr_title(step.published)
                if step.pull.title != title:
                    self._api.rename_discussion(now.repo_id, step.pull.num, title)
                text = message.pr_description(step.published)
                self._api.edit_discussion_comment(now.repo_id, step.pull.num, step.pull.comment_id, text)
        elif isinstance(step, steps.Close):
            self._say(f"closing pull request {step.pull.num}")
            self._close(now.repo_id, step)

    def _close(self, repo_id: str, step: steps.Close) -> None:
        num = step.pull.num
        try:
            with asking(f"closing pull request {num}", self._api):
                self._api.change_discussion_status(repo_id, num, "closed", comment=step.comment)
        except (HubRefused, CommitConflict):
            # Another run may have closed it between our look and now; then this is no failure.
            with asking(f"reading pull request {num}", self._api):
                if self._api.get_discussion_details(repo_id, num).status != "closed":
                    raise

    def _commit(
        self, now: State, branch: Branch, card: bytes | None, *, revision: str = "main", create_pr: bool = False
    ) -> CommitInfo:
        """One commit on top of ``branch`` with everything in it that differs from what should be there."""
        operations = self._offer.operations(branch, card)
        title = message.pr_title(self._offer.report)
        with asking(f"committing to {now.repo_id}", self._api):
            if GITIGNORE in now.source:
                self._refuse_if_ignored(now.repo_id, operations, revision, create_pr)
            try:
                return self._api.create_commit(
                    now.repo_id,
                    operations,
                    commit_message=title,
                    commit_description=message.pr_description(self._offer.report) if create_pr else "",
                    revision=revision,
                    create_pr=create_pr,
                    parent_commit=branch.commit,
                )
            except ValueError as error:
                if "metadata in README.md" not in str(error):
                    raise
                said = " ".join(scrub(str(error), str(self._api.token)).split())
                raise CardInvalid(f"The Hub does not take the card: {said[:400]}") from None

    def _refuse_if_ignored(self, repo_id: str, operations: list[Offered], revision: str, create_pr: bool) -> None:
        """The Hub silently leaves out of a commit what the repository's .gitignore names."""
        additions = [one for one in operations if isinstance(one, CommitOperationAdd)]
        self._api.preupload_lfs_files(repo_id, additions, revision=revision, create_pr=create_pr)
        ignored = [one.path_in_repo for one in additions if one._should_ignore]
        if ignored:
            raise PublishFailed(
                f"The .gitignore of {repo_id} leaves out {', '.join(ignored[:3])}.",
                remedy="Take the line that names it out of .gitignore on the main branch and run the command again.",
            )

    def _preview(self, step: steps.Step, main: Branch) -> Published:
        branch = step.branch if isinstance(step, steps.Update) else main
        pull = step.pull if isinstance(step, steps.Update | steps.Describe) else None
        report = step.published if isinstance(step, steps.Describe) else self._offer.report
        operations = [] if isinstance(step, steps.Describe) else self._offer.operations(branch, main.card)
        before = (branch.card or b"").decode("utf-8", "replace").splitlines(keepends=True)
        after = self._offer.card(main.card).decode().splitlines(keepends=True)
        diff = difflib.unified_diff(before, after, f"a/{CARD}" if branch.card is not None else "/dev/null", f"b/{CARD}")
        return Published(
            operation="updated" if pull is not None else "created",
            pr_url=pull.url if pull else None,
            pr_num=pull.num if pull else None,
            preview=Preview(
                title=message.pr_title(report),
                description=message.pr_description(report),
                card_diff="".join(line if line.endswith("\n") else f"{line}\n" for line in diff),
                files=[
                    (one.path_in_repo, one.upload_info.size if isinstance(one, CommitOperationAdd) else None)
                    for one in operations
                ],
            ),
        )

    def _say(self, words: str) -> None:
        self._progress(Progress(stage="publish", message=words))
