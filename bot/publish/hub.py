"""A Hub repository as publishing's host: files, manifest and card section as one commit on one pull request.

Stage 5. In: what ``bot.publish.loop`` decided. Out: the Hub's calls for it. A commit carries everything and opens
the pull request at once, so that nothing is ever half published.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi

from bot.errors import (
    CardInvalid,
    CommitConflict,
    HubRefused,
    HubUnreachable,
    NotAuthorized,
    OutputNotTrusted,
    PublishFailed,
)
from bot.export_process import OnProgress
from bot.hubapi import asking, connect, scrub
from bot.publish import loop, message, state
from bot.publish.loop import Published
from bot.publish.offer import Change, Delete, Offer, make_offer
from bot.publish.places import OnTheHub
from bot.publish.state import Branch, Pull, State
from exporter.report import Report

Operation = CommitOperationAdd | CommitOperationDelete


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
    may_write: Callable[[], None] = lambda: None,
) -> Published:
    """Offer an export to the Hub repository that its model came from; as ``bot.publish.loop.publish``.

    Args:
        token: with ``dry_run``, one is needed for hidden repositories only.
        may_write: called right before everything that others see; what it raises ends the publishing.

    Raises:
        NotAuthorized, RepoNotFound, HubUnreachable, HubRefused: as the Hub answers.
        PtebotError: as ``bot.publish.loop.publish``.
    """
    if token is None and not dry_run and report.good_cells:
        raise NotAuthorized("A pull request cannot be opened without a token.")
    host = HubHost(connect(endpoint, token), repo_id, may_write)
    return loop.publish(host, report, out_dir, command=command, dry_run=dry_run, progress=progress)


class HubHost:
    """One repository on a Hub."""

    name = "the Hub"
    unanswered = HubUnreachable

    def __init__(self, api: HfApi, repo_id: str, may_write: Callable[[], None] = lambda: None) -> None:
        self._api, self._may_write = api, may_write
        self.repo_id = repo_id
        self._seen: dict[str, Branch] = {}

    def me(self) -> str | None:
        return state.me(self._api)

    def try_rights(self) -> None:
        """Raises NotAuthorized for a token that only reads; what one with chosen rights may do, only use tells."""
        try:
            with asking("asking what the token may do", self._api):
                told = self._api.whoami(cache=True).get("auth") or {}
        except (NotAuthorized, HubRefused, HubUnreachable):
            return  # one that was made for a single repository cannot ask this
        if (told.get("accessToken") or {}).get("role") == "read":
            raise NotAuthorized(f"The token may only read, so it cannot open a pull request on {self.repo_id}.")

    def look(self, author: str | None, known: Collection[int]) -> State:
        return state.look(self._api, self.repo_id, author, known)

    def base(self, now: State) -> Branch:
        return state.read_branch(self._api, now.repo_id, now.head, self._seen)

    def branch(self, now: State, pull: Pull) -> Branch:
        return state.read_branch(self._api, now.repo_id, pull.ref, self._seen)

    def make_offer(self, report: Report, out_dir: Path, command: str) -> Offer:
        return make_offer(report, out_dir, place=OnTheHub(self.repo_id), command=command)

    def title(self, report: Report) -> str:
        return message.pr_title(report)

    def description(self, report: Report) -> str:
        return message.pr_description(report)

    def changes(self, offer: Offer, branch: Branch, card: bytes | None) -> list[Change]:
        return offer.changes(branch, card)

    def open(self, now: State, main: Branch, offer: Offer) -> int | None:
        return self._commit(offer, now, main, main.card, create_pr=True).pr_num

    def refresh(self, now: State, main: Branch, pull: Pull, branch: Branch, offer: Offer) -> None:
        self._commit(offer, now, branch, main.card, revision=pull.ref)

    def describe(self, now: State, pull: Pull, title: str, text: str) -> None:
        self._may_write()
        with asking(f"describing pull request {pull.num}", self._api):
            if pull.title != title:
                self._api.rename_discussion(now.repo_id, pull.num, title)
            self._api.edit_discussion_comment(now.repo_id, pull.num, pull.comment_id, text)

    def close(self, now: State, pull: Pull, comment: str) -> None:
        self._may_write()
        try:
            with asking(f"closing pull request {pull.num}", self._api):
                self._api.change_discussion_status(now.repo_id, pull.num, "closed", comment=comment)
        except (HubRefused, CommitConflict):
            # Another run may have closed it between our look and now; then this is no failure.
            with asking(f"reading pull request {pull.num}", self._api):
                if self._api.get_discussion_details(now.repo_id, pull.num).status != "closed":
                    raise

    def _commit(
        self,
        offer: Offer,
        now: State,
        branch: Branch,
        card: bytes | None,
        *,
        revision: str = "main",
        create_pr: bool = False,
    ) -> CommitInfo:
        """One commit on top of ``branch`` with everything in it that differs from what should be there."""
        operations = [_operation(change) for change in offer.changes(branch, card)]
        with asking(f"committing to {now.repo_id}", self._api):
            # Uploads take minutes and nobody sees them; the commit after them is one short request.
            self._upload(now.repo_id, operations, revision, create_pr)
            self._may_write()
            try:
                return self._api.create_commit(
                    now.repo_id,
                    operations,
                    commit_message=message.pr_title(offer.report),
                    commit_description=message.pr_description(offer.report) if create_pr else "",
                    revision=revision,
                    create_pr=create_pr,
                    parent_commit=branch.commit,
                )
            except ValueError as error:
                if "metadata in README.md" not in str(error):
                    raise
                said = " ".join(scrub(str(error), str(self._api.token)).split())
                raise CardInvalid(f"The Hub does not take the card: {said[:400]}") from None

    def _upload(self, repo_id: str, operations: list[Operation], revision: str, create_pr: bool) -> None:
        """The large files; raises PublishFailed for what the repository's .gitignore names: the Hub would silently
        leave it out of the commit."""
        additions = [one for one in operations if isinstance(one, CommitOperationAdd)]
        self._api.preupload_lfs_files(repo_id, additions, revision=revision, create_pr=create_pr)
        ignored = [one.path_in_repo for one in additions if one._should_ignore]
        if ignored:
            raise PublishFailed(
                f"The .gitignore of {repo_id} leaves out {', '.join(ignored[:3])}.",
                remedy="Take the line that names it out of .gitignore on the main branch and run the command again.",
            )


def _operation(change: Change) -> Operation:
    """A change in the Hub's terms; raises OutputNotTrusted where a file is not the one that was proven."""
    if isinstance(change, Delete):
        return CommitOperationDelete(path_in_repo=change.path, is_folder=False)
    add = CommitOperationAdd(path_in_repo=change.path, path_or_fileobj=change.content)
    if change.sha256 is not None and add.upload_info.sha256.hex() != change.sha256:
        raise OutputNotTrusted(f"{change.path} does not have the SHA-256 that the report states.")
    return add
