"""What the API does with git: revisions, trees, differences, merges (libgit2; no HTTP here)."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pygit2
from pygit2.enums import DeltaStatus, FileMode, SortMode

HEX = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Who:
    name: str
    email: str
    time: int | None = None

    def signature(self) -> pygit2.Signature:
        seconds = int(time.time()) if self.time is None else self.time
        return pygit2.Signature(self.name, self.email, seconds, 0)


def create(path: Path, branch: str) -> pygit2.Repository:
    """A new bare repository."""
    return pygit2.init_repository(str(path), bare=True, initial_head=branch)


def find(git: pygit2.Repository, rev: str) -> pygit2.Commit | None:
    """The commit that a branch, tag, ref, or (abbreviated) commit id names."""
    for name in (f"refs/heads/{rev}", f"refs/tags/{rev}", f"refs/{rev}", rev):
        if name.startswith("refs/") and pygit2.reference_is_valid_name(name) and name in git.references:
            return git.references[name].peel(pygit2.Commit)
    if re.fullmatch(r"[0-9a-f]{7,40}", rev):
        try:
            return git.revparse_single(rev).peel(pygit2.Commit)
        except (KeyError, ValueError, pygit2.GitError):
            return None
    return None


def is_empty(git: pygit2.Repository) -> bool:
    """Whether it has no branch yet (libgit2's own answer depends on how the default branch is called)."""
    return not any(name.startswith("refs/heads/") for name in git.references)


def branch(git: pygit2.Repository, name: str) -> str | None:
    """The commit id at a branch's tip."""
    full = f"refs/heads/{name}"
    if not pygit2.reference_is_valid_name(full) or full not in git.references:
        return None
    return str(git.references[full].peel(pygit2.Commit).id)


def set_ref(git: pygit2.Repository, name: str, sha: str | None) -> None:
    """Move, make or (None) remove a ref."""
    if sha is not None:
        git.references.create(name, pygit2.Oid(hex=sha), force=True)
    elif name in git.references:
        git.references.delete(name)


def write_tree(git: pygit2.Repository, base: pygit2.Tree | None, changes: Iterable[tuple[str, str | None, int]]) -> str:
    """A tree made from ``base`` with (path, object id or None to remove, mode) applied; subtrees may be put whole.

    Raises:
        KeyError: a path to remove is not there.
    """
    index = pygit2.Index()
    if base is not None:
        index.read_tree(base)
    for path, oid, mode in changes:
        inside = [entry.path for entry in index if entry.path.startswith(f"{path}/")]
        if oid is None:
            if path not in index and not inside:
                raise KeyError(path)
            for name in [*inside, *([path] if path in index else [])]:
                index.remove(name)
            continue
        for name in inside:
            index.remove(name)
        parts = path.split("/")
        for end in range(1, len(parts)):
            if "/".join(parts[:end]) in index:
                index.remove("/".join(parts[:end]))
        if mode == FileMode.TREE:
            for name, item in walk(git[oid].peel(pygit2.Tree), f"{path}/"):
                if not isinstance(item, pygit2.Tree):
                    index.add(pygit2.IndexEntry(name, item.id, FileMode(item.filemode)))
        else:
            index.add(pygit2.IndexEntry(path, pygit2.Oid(hex=oid), FileMode(mode)))
    return str(index.write_tree(git))


def walk(tree: pygit2.Tree, prefix: str = "", recursive: bool = True) -> Iterable[tuple[str, pygit2.Object]]:
    """(path, object) of a tree in git's order, subtrees before what they hold."""
    for item in tree:
        yield f"{prefix}{item.name}", item
        if recursive and isinstance(item, pygit2.Tree):
            yield from walk(item, f"{prefix}{item.name}/")


def commit_files(
    git: pygit2.Repository, files: dict[str, bytes | None], parents: list[str], who: Who, message: str
) -> str:
    """A commit on the first parent with files written or (None) removed; its id. No ref moves."""
    base = git[parents[0]].peel(pygit2.Tree) if parents else None
    changes = [
        (path, None if data is None else str(git.create_blob(data)), int(FileMode.BLOB)) for path, data in files.items()
    ]
    return commit_tree(git, write_tree(git, base, changes), parents, who, message)


def commit_tree(
    git: pygit2.Repository, tree: str, parents: list[str], author: Who, message: str, committer: Who | None = None
) -> str:
    signature = author.signature()
    second = committer.signature() if committer else signature
    oids = [pygit2.Oid(hex=parent) for parent in parents]
    return str(git.create_commit(None, signature, second, message, pygit2.Oid(hex=tree), oids))


def merge_base(git: pygit2.Repository, one: str, two: str) -> str | None:
    found = git.merge_base(pygit2.Oid(hex=one), pygit2.Oid(hex=two))
    return str(found) if found else None


def between(git: pygit2.Repository, base: str, head: str) -> list[pygit2.Commit]:
    """The commits of ``head`` that ``base`` does not have, oldest first."""
    walker = git.walk(pygit2.Oid(hex=head), SortMode.TOPOLOGICAL | SortMode.REVERSE)
    walker.hide(pygit2.Oid(hex=base))
    return list(walker)


def is_fast_forward(git: pygit2.Repository, old: str, new: str) -> bool:
    return old == new or git.descendant_of(pygit2.Oid(hex=new), pygit2.Oid(hex=old))


@dataclass(frozen=True)
class Changed:
    """One file of a difference."""

    path: str
    previous: str | None
    status: str
    sha: str
    additions: int
    deletions: int
    patch: str


_STATUS = {
    DeltaStatus.ADDED: "added",
    DeltaStatus.DELETED: "removed",
    DeltaStatus.MODIFIED: "modified",
    DeltaStatus.RENAMED: "renamed",
    DeltaStatus.TYPECHANGE: "changed",
}


def difference(git: pygit2.Repository, old: str | None, new: str) -> list[Changed]:
    """The files that differ between two commits (None: the empty tree)."""
    tree = git[new].peel(pygit2.Tree)
    diff = tree.diff_to_tree(swap=True) if old is None else git[old].peel(pygit2.Tree).diff_to_tree(tree)
    diff.find_similar()
    found = []
    for patch in diff:
        if patch is None:
            continue
        delta = patch.delta
        status = _STATUS.get(delta.status, "changed")
        gone = delta.status == DeltaStatus.DELETED
        side = delta.old_file if gone else delta.new_file
        previous = delta.old_file.path if status == "renamed" else None
        _, added, removed = patch.line_stats
        text = (
            ""
            if delta.is_binary
            else "".join(
                hunk.header + "".join(f"{line.origin}{line.content}" for line in hunk.lines) for hunk in patch.hunks
            )
        )
        found.append(Changed(side.path, previous, status, str(side.id), added, removed, text.rstrip("\n")))
    return found


def merged_tree(git: pygit2.Repository, base: str, head: str) -> str | None:
    """The tree of a merge of ``head`` into ``base``, or None when they conflict."""
    index = git.merge_commits(pygit2.Oid(hex=base), pygit2.Oid(hex=head))
    return None if index.conflicts else str(index.write_tree(git))


def fetch(into: Path, source: Path) -> None:
    """Copy every object of the branches of ``source``; no branch of ``into`` moves."""
    command = ["git", "-c", "safe.directory=*", "-C", str(into), "fetch", "-q", "--no-tags", str(source)]
    subprocess.run([*command, "+refs/heads/*:refs/forks/fetched/*"], check=True, capture_output=True)
