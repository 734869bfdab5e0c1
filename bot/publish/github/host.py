"""A folder of a GitHub repository as publishing's host: one branch, one pull request, the files beside. Stage 5.

In: what ``bot.publish.loop`` decided. Out: GitHub's calls for it. The order lets a run end anywhere: files are
stored first, under their hashes; then a commit points to them; then the branch moves; then the pull request opens.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bot import plan
from bot.errors import (
    BranchProtected,
    CommitConflict,
    GitHubNotFound,
    GitHubRateLimited,
    GitHubRefused,
    GitHubUnreachable,
    PublishFailed,
)
from bot.export_process import OnProgress, Progress
from bot.githubapi import Client, asking
from bot.hubapi import TreeFile
from bot.publish import message
from bot.publish.github import names, read
from bot.publish.github.commit import Committer
from bot.publish.github.read import Reader, Repository
from bot.publish.github.store import STORES, Setting, Storing
from bot.publish.offer import Change, Offer, make_offer
from bot.publish.places import DIRECTORY, FOLDER
from bot.publish.state import CARD, Branch, Pull, State
from exporter.errors import InvalidModelDirectory
from exporter.report import Report

NEEDS = "pull-requests: write"


class GitHubHost:
    """One model's folder in a repository on GitHub."""

    name = "GitHub"
    unanswered = GitHubUnreachable

    def __init__(
        self,
        client: Client,
        repo_id: str,
        *,
        folder: str,
        base: str | None = None,
        storage: Storing = "lfs",
        progress: OnProgress = lambda _: None,
    ) -> None:
        self.repo_id = repo_id
        self._client, self._base, self._progress = client, base, progress
        self._folder = names.check_folder(folder)
        self._reader = Reader(client, self._folder)
        setting = Setting(client=client, reader=self._reader, folder=self._folder, progress=progress)
        self._store = STORES[storage](setting)
        self._repo: Repository | None = None
        self._details: dict[int, dict[str, Any]] = {}

    # -- looking -------------------------------------------------------------------------------------------------------

    def me(self) -> str | None:
        return self._client.me() if self._client.token else None

    def try_rights(self) -> None:
        """Ask for what publishing needs, in ways that leave nothing: GitHub tells nobody what a token may do.

        A blob without a commit is swept up by git. A pull request from a branch to itself is refused, but only after
        the right to open one was looked at.

        Raises:
            GitHubNotAuthorized, GitHubNotFound, RepositoryReadOnly: the right is missing, and named.
        """
        repo = self._resolve()
        branch = self._base or repo.default_branch
        blob = {"content": "ptebot\n", "encoding": "utf-8"}
        pull = {"title": "Never opened", "head": branch, "base": branch}
        for what, path, body, needs in (
            ("write to", "git/blobs", blob, "contents: write"),
            ("open pull requests on", "pulls", pull, NEEDS),
        ):
            try:
                with asking(f"trying whether the token may {what} {repo.full_name}", self._client, needs=needs):
                    self._client.call("POST", f"{repo.path}/{path}", body=body)
            except (GitHubRefused, GitHubUnreachable, GitHubRateLimited, BranchProtected, CommitConflict):
                continue  # no answer about the right

    def look(self, author: str | None, known: Collection[int]) -> State:
        repo = self._resolve()
        base = self._base or repo.default_branch
        head = self._reader.tip(repo, base)
        if head is None:
            raise GitHubNotFound(
                f"{repo.full_name} has no branch {base!r}.", remedy="Push a first commit to it, or name another branch."
            )
        pulls: list[Pull] = []
        if author is not None:
            pulls, self._details = self._reader.pulls(repo, self._branch(), author, known)
        return State(
            repo_id=repo.full_name,
            head=head,
            source=self._reader.source(repo, head),
            pulls=pulls,
            host=self.name,
            base=f"branch {base}",
            rebuilds=True,
        )

    def base(self, now: State) -> Branch:
        return self._at(now.head)

    def branch(self, now: State, pull: Pull) -> Branch:
        return self._at(str(self._details[pull.num]["head"]["sha"]))

    def _at(self, commit: str) -> Branch:
        return self._store.seen(self._known(), self._reader.published(self._known(), commit))

    def _resolve(self) -> Repository:
        """The repository as it is now; tells where it was renamed, refuses where it is archived."""
        asked = self._repo.full_name if self._repo else self.repo_id
        repo = self._reader.repository(asked)
        if repo.full_name.lower() != asked.lower():
            self._say(f"{asked} is called {repo.full_name} now")
        read.refuse_archived(repo)
        self._repo = repo
        return repo

    def _known(self) -> Repository:
        return self._repo or self._resolve()

    def _branch(self) -> str:
        other = self._base if self._base != self._known().default_branch else None
        return names.branch(self._folder, other)

    # -- what is offered -----------------------------------------------------------------------------------------------

    def make_offer(self, report: Report, out_dir: Path, command: str) -> Offer:
        place = self._store.place(self._known(), report)
        offer = make_offer(report, out_dir, place=place, command=command.replace(DIRECTORY, self._folder))
        return replace(offer, in_tree=self._store.in_tree, front_matter=False)

    def title(self, report: Report) -> str:
        title = message.pr_title(report)
        return title if self._folder == "." else f"{self._folder}: {title}"[: message.MAX_TITLE]

    def description(self, report: Report) -> str:
        where = f"the folder `{self._folder}`" if self._folder != "." else "the repository"
        changes = (
            f"What changes in {where}: {self._store.words()}; the manifest `{read.MANIFEST}` with every hash and "
            "figure, and a plot of them where something was quantized; and a section of "
            f"{CARD} between markers. The rest of {CARD} keeps every byte."
        )
        place = self._store.place(self._known(), report)
        return message.pr_description(report, changes=changes, rebuilding=place.rebuilding)

    def changes(self, offer: Offer, branch: Branch, card: bytes | None) -> list[Change]:
        found = [*self._store.besides(self._known(), branch), *offer.changes(branch, card)]
        return [replace(change, path=names.below(self._folder, change.path)) for change in found]

    # -- acting --------------------------------------------------------------------------------------------------------

    def open(self, now: State, main: Branch, offer: Offer) -> int | None:
        repo, branch = self._known(), self._branch()
        committer = Committer(self._client, self._reader, repo)
        tip = self._reader.tip(repo, branch)
        if tip is None or not self._left_ready(offer, tip, main):
            if tip is not None:
                committer.check_ours(branch, tip, now.head)
            changes = self.changes(offer, main, main.card)
            self._store.put(repo, now.head, branch, offer, changes)
            commit = committer.make(changes, base=now.head, parents=[now.head], message=self._message(offer))
            if tip is None:
                committer.start(branch, commit)
            else:
                committer.advance(branch, commit, force=True)
        body = {
            "title": self.title(offer.report),
            "body": self.description(offer.report),
            "head": branch,
            "base": self._base or repo.default_branch,
        }
        with asking(f"opening a pull request on {repo.full_name}", self._client, needs=NEEDS):
            return int(self._client.call("POST", f"{repo.path}/pulls", body=body)["number"])

    def refresh(self, now: State, main: Branch, pull: Pull, branch: Branch, offer: Offer) -> None:
        committer = Committer(self._client, self._reader, self._known())
        start, parents = branch, [branch.commit]
        if pull.conflicts:
            # Merged, not rewritten: what others committed to the branch stays in its history.
            self._refuse_others(committer, now.head, branch, pull)
            start, parents = main, [branch.commit, now.head]
        changes = self.changes(offer, start, main.card)
        self._store.put(self._known(), now.head, self._branch(), offer, changes)
        commit = committer.make(changes, base=start.commit, parents=parents, message=self._message(offer))
        committer.advance(self._branch(), commit)

    def describe(self, now: State, pull: Pull, title: str, text: str) -> None:
        self._edit(pull, {"title": title, "body": text}, "describing")

    def close(self, now: State, pull: Pull, comment: str) -> None:
        body = f"{self._details[pull.num].get('body') or ''}\n\n{comment}\n"
        self._edit(pull, {"state": "closed", "body": body[-message.MAX_DESCRIPTION :]}, "closing")

    def _edit(self, pull: Pull, body: Mapping[str, str], doing: str) -> None:
        with asking(f"{doing} pull request {pull.num}", self._client, needs=NEEDS):
            self._client.call("PATCH", f"{self._known().path}/pulls/{pull.num}", body=dict(body))

    def _left_ready(self, offer: Offer, tip: str, main: Branch) -> bool:
        """Whether an earlier run, which ended before it opened the pull request, left a branch that has it all."""
        left = self._at(tip)
        return left.offers(offer.report) and not self.changes(offer, left, main.card)

    def _refuse_others(self, committer: Committer, head: str, branch: Branch, pull: Pull) -> None:
        ours = (names.below(self._folder, f"{FOLDER}/"), names.below(self._folder, CARD))
        others = committer.others(head, branch.commit, ours)
        if others:
            raise PublishFailed(
                f"Pull request {pull.num} conflicts with its base, and its branch has changes that are not ptebot's: "
                f"{', '.join(others[:3])}.",
                remedy=f"Merge the base into {self._branch()} by hand, or close the pull request.",
            )

    def _message(self, offer: Offer) -> str:
        return names.commit_message(self.title(offer.report), plan.identity(offer.report))

    def _say(self, text: str) -> None:
        self._progress(Progress(stage="publish", message=text))


def refuse_pointers(tree: Mapping[str, TreeFile], base: Mapping[str, TreeFile]) -> None:
    """Refuse a checkout that has Git LFS pointers where the model's files belong.

    Raises:
        InvalidModelDirectory: names the files.
    """
    bare = [
        name
        for name, file in tree.items()
        if (there := base.get(name)) is not None and there.sha256 is not None and there.oid == file.oid
    ]
    if bare:
        raise InvalidModelDirectory(
            f"The checkout has Git LFS pointers, not the files: {', '.join(sorted(bare)[:5])}.",
            remedy="Give `lfs: true` to actions/checkout, or run `git lfs pull`.",
        )


REPOSITORY = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,38})/(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,100}")
"""``owner/name`` as GitHub gives them."""
