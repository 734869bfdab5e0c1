"""What a pull request needs of git: its merge base, conflicts, diff, changed files, and the merge itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pygit2

from bot.localhub.discussions import Discussion
from bot.localhub.errors import HubError
from bot.localhub.gitrepo import Entry, GitRepo

ChangeKind = Literal["added", "removed", "changed"]
MAX_DIFF = 4 * 1024 * 1024


@dataclass(frozen=True)
class FileChange:
    """One path that differs between two commits, with its sizes before and after (bytes; None: not there)."""

    path: str
    kind: ChangeKind
    old: Entry | None
    new: Entry | None


def head(git: GitRepo, pr: Discussion) -> str | None:
    """The last commit on the pull request's ref; None when the ref was deleted."""
    ref = git.ref_of(pr.ref)
    return str(git.commit(ref).id) if ref else None


def base(git: GitRepo, pr: Discussion) -> str:
    """The commit to compare with: where the pull request left its base (before its merge, if it is merged)."""
    if pr.merge_oid:
        parents = git.commit(pr.merge_oid).parents
        start = str(parents[0].id)
        ours = start if len(parents) == 1 else git.git.merge_base(parents[0].id, parents[1].id)
        return str(ours or start)
    top = head(git, pr)
    target = str(git.commit(pr.base).id)
    return str((git.git.merge_base(target, top) if top else None) or target)


def changes(git: GitRepo, old: str, new: str) -> list[FileChange]:
    """Every file that differs between two commits, sorted by path."""
    before, after = git.commit(old), git.commit(new)
    result = []
    for delta in git.git.diff(before, after).deltas:
        path = delta.new_file.path or delta.old_file.path
        was, now = git.entry(before, path), git.entry(after, path)
        kind: ChangeKind = "added" if was is None else "removed" if now is None else "changed"
        result.append(FileChange(path, kind, was, now))
    return sorted(result, key=lambda change: change.path)


def diff(git: GitRepo, old: str, new: str) -> str:
    """The unified diff between two commits; beyond 4 MiB it is cut, saying so."""
    patch = git.git.diff(git.commit(old), git.commit(new)).patch or ""
    return patch if len(patch) <= MAX_DIFF else patch[:MAX_DIFF] + "\n(the diff is cut here)\n"


def conflicts(git: GitRepo, pr: Discussion) -> list[str]:
    """The paths that a merge now would leave in conflict."""
    top = head(git, pr)
    if top is None or pr.status == "merged":
        return []
    return _conflicting(git.git.merge_commits(git.commit(pr.base), git.commit(top)))


def merge(git: GitRepo, pr: Discussion, author: str) -> tuple[str, str]:
    """A merge commit of the pull request into its base; nothing points to it yet. (The base's head, its id.)

    Raises:
        HubError: 409 conflicts, naming the files; 400 nothing to merge.
    """
    ours = git.commit(pr.base)
    top = head(git, pr)
    if top is None or git.is_ancestor(top, str(ours.id)):
        raise HubError(400, "This pull request has no commit to merge")
    theirs = git.commit(top)
    index = git.git.merge_commits(ours, theirs)
    found = _conflicting(index)
    if found:
        raise HubError(409, f"Conflicts in {', '.join(found)}", filesWithConflicts=found)
    parents = [str(ours.id), str(theirs.id)]
    return parents[0], git.commit_tree(parents, index.write_tree(git.git), author, f"{pr.title} (#{pr.num})")


def _conflicting(index: pygit2.Index) -> list[str]:
    names = set()
    for sides in index.conflicts or ():
        names |= {side.path for side in sides if side is not None}
    return sorted(names)
