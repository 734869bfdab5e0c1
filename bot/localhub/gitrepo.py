"""One bare git repository: revisions, trees and blobs in; commits and refs out (libgit2 does the work).

Nothing here knows of users, discussions or HTTP. Writing a commit and moving a ref are two steps, so
that the caller can record the commit in between (see ``repos.Repos.publish``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pygit2
from pygit2.enums import FileMode, ObjectType, SortMode

from bot.localhub.errors import bad_request, entry_not_found, revision_not_found

MAX_PATH = 1000
POINTER_LIMIT = 1024
_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:ext-[^\n]*\n)*oid sha256:([0-9a-f]{64})\nsize (\d{1,18})\n"
)
_HEX = re.compile(r"[0-9a-f]{7,40}")


@dataclass(frozen=True)
class Lfs:
    """What an LFS pointer says: sha256 (hex) and size in bytes; ``pointer_size``: bytes of the pointer itself."""

    sha256: str
    size: int
    pointer_size: int


@dataclass(frozen=True)
class Entry:
    """One file or directory of a tree; ``size`` is the real file's, also behind an LFS pointer (0: directory)."""

    path: str
    kind: Literal["file", "directory"]
    oid: str
    size: int
    lfs: Lfs | None = None

    @property
    def etag(self) -> str:
        """What the Hub calls the content: sha256 of an LFS file, git's own blob id of others."""
        return self.lfs.sha256 if self.lfs else self.oid


@dataclass(frozen=True)
class Change:
    """One path's new content: ``data`` (a git blob, an LFS pointer included), or removal when it is None."""

    path: str
    data: bytes | None


def check_path(path: object) -> str:
    """A file's path inside a repository, checked so that no checkout of it can leave its directory.

    Raises:
        HubError: 400, absolute, empty or dotted parts, control characters, ``.git``, or too long.
    """
    if not isinstance(path, str) or not path or len(path) > MAX_PATH:
        raise bad_request(f"Invalid path: give 1 to {MAX_PATH} characters")
    parts = path.split("/")
    odd = any(part in ("", ".", "..") or part.rstrip(". ").lower() == ".git" for part in parts)
    if odd or "\\" in path or any(ord(char) < 32 or ord(char) == 127 for char in path):
        raise bad_request(f"Invalid path: {path!r}")
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        raise bad_request(f"Invalid path: {path!r} is not Unicode text") from None
    return path


def pointer(sha256: str, size: int) -> bytes:
    """The text that git stores in place of an LFS file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def parse_pointer(data: bytes) -> Lfs | None:
    match = _POINTER.fullmatch(data) if len(data) <= POINTER_LIMIT else None
    return Lfs(match[1].decode(), int(match[2]), len(data)) if match else None


class GitRepo:
    """A bare repository on disk. Cheap to make; make one per request (libgit2 handles are not shared)."""

    def __init__(self, path: Path) -> None:
        self.git = pygit2.Repository(str(path))

    @staticmethod
    def create(path: Path, files: dict[str, bytes], author: str, message: str) -> GitRepo:
        """A new repository whose branch main holds one commit with ``files``."""
        pygit2.init_repository(str(path), bare=True, initial_head="main")
        repo = GitRepo(path)
        oid = repo.write_commit([], [Change(name, data) for name, data in files.items()], author, message)
        repo.set_ref("refs/heads/main", oid)
        return repo

    # -- revisions and refs ------------------------------------------------------------------------------------

    def ref_of(self, rev: str) -> str | None:
        """The full name of the ref that ``rev`` names (branch, tag, ``refs/pr/N``), or None."""
        candidates = (rev,) if rev.startswith("refs/") else (f"refs/heads/{rev}", f"refs/tags/{rev}")
        for name in candidates:
            if pygit2.reference_is_valid_name(name) and self.git.references.get(name) is not None:
                return name
        return None

    def commit(self, rev: str) -> pygit2.Commit:
        """The commit that a branch, tag, ref or (abbreviated) commit id names.

        Raises:
            HubError: 404 RevisionNotFound.
        """
        ref = self.ref_of(rev)
        if ref:
            return self.git.references[ref].peel(pygit2.Commit)
        if _HEX.fullmatch(rev):
            try:
                found = self.git[rev] if len(rev) == 40 else self.git.revparse_single(rev)
                return found.peel(pygit2.Commit)
            except (KeyError, ValueError, pygit2.GitError):
                raise revision_not_found(rev) from None
        raise revision_not_found(rev)

    def refs(self, prefix: str) -> list[tuple[str, str]]:
        """Sorted (full name, commit id) of the refs under ``prefix``."""
        names = sorted(name for name in self.git.references if name.startswith(prefix))
        return [(name, str(self.git.references[name].peel(pygit2.Commit).id)) for name in names]

    def set_ref(self, name: str, oid: str | None) -> None:
        """Move or create a ref (git writes it atomically); None removes it, also when it is gone already."""
        if oid is not None:
            self.git.references.create(name, pygit2.Oid(hex=oid), force=True)
        elif name in self.git.references:
            self.git.references.delete(name)

    def drop_locks(self) -> None:
        """Remove the lock files that a process killed while it moved a ref has left; no other may be at work here.

        libgit2 writes ``NAME.lock`` beside a ref and renames it; a lock that is there already makes it refuse the ref
        for ever. No ref's own name can end in ``.lock`` (git-check-ref-format).
        """
        root = Path(self.git.path)
        for lock in (*root.glob("*.lock"), *(root / "refs").rglob("*.lock")):
            lock.unlink(missing_ok=True)

    # -- reading -----------------------------------------------------------------------------------------------

    def entry(self, commit: pygit2.Commit, path: str) -> Entry | None:
        """The file or directory at ``path``, or None."""
        try:
            return self._entry(path, commit.tree[check_path(path)])
        except (KeyError, ValueError):
            return None

    def file(self, commit: pygit2.Commit, path: str) -> Entry:
        """The file at ``path``.

        Raises:
            HubError: 404 EntryNotFound (also for a directory).
        """
        entry = self.entry(commit, path)
        if entry is None or entry.kind != "file":
            raise entry_not_found(path)
        return entry

    def read(self, entry: Entry) -> bytes:
        """The git blob of an entry: the file itself, or its LFS pointer."""
        return self.git[entry.oid].data  # type: ignore[attr-defined]

    def listing(self, commit: pygit2.Commit, path: str = "", *, recursive: bool = False) -> list[Entry]:
        """The entries under a directory in git's order (sorted by path), with directories among them.

        Raises:
            HubError: 404 EntryNotFound.
        """
        tree = commit.tree
        if path:
            try:
                found = commit.tree[check_path(path)]
            except (KeyError, ValueError):
                raise entry_not_found(path) from None
            if not isinstance(found, pygit2.Tree):
                return [self._entry(path, found)]
            tree = found
        return list(self._walk(tree, f"{path}/" if path else "", recursive))

    def _walk(self, tree: pygit2.Tree, prefix: str, recursive: bool) -> Iterator[Entry]:
        for item in tree:
            yield self._entry(prefix + (item.name or ""), item)
            if recursive and isinstance(item, pygit2.Tree):
                yield from self._walk(item, f"{prefix}{item.name}/", recursive)

    def _entry(self, path: str, item: pygit2.Object) -> Entry:
        if item.type != ObjectType.BLOB:
            return Entry(path, "directory", str(item.id), 0)
        size = item.size  # type: ignore[attr-defined]
        lfs = parse_pointer(item.data) if size <= POINTER_LIMIT else None  # type: ignore[attr-defined]
        return Entry(path, "file", str(item.id), lfs.size if lfs else size, lfs)

    def log(self, commit: pygit2.Commit) -> Iterator[pygit2.Commit]:
        """The commits reachable from ``commit``, newest first."""
        return self.git.walk(commit.id, SortMode.TOPOLOGICAL | SortMode.TIME)

    def last_commits(self, commit: pygit2.Commit, paths: list[str]) -> dict[str, pygit2.Commit]:
        """For each path, the newest commit (along first parents) in which it differs from that commit's parent."""
        found: dict[str, pygit2.Commit] = {}
        left = set(paths)
        current = commit
        while left:
            parent = current.parents[0] if current.parents else None
            for path in sorted(left):
                if parent is None or _oid(current.tree, path) != _oid(parent.tree, path):
                    found[path] = current
                    left.discard(path)
            if parent is None:
                break
            current = parent
        return found

    def is_ancestor(self, old: str, new: str) -> bool:
        return old == new or self.git.descendant_of(new, old)

    # -- writing -----------------------------------------------------------------------------------------------

    def write_commit(self, parents: list[str], changes: list[Change], author: str, message: str) -> str:
        """A new commit on the first parent's tree with ``changes`` applied in order; no ref moves. Its id."""
        index = pygit2.Index()
        if parents:
            index.read_tree(self.git[parents[0]].peel(pygit2.Tree))
        for change in changes:
            if change.data is None:
                index.remove(change.path)
            else:
                self._clear(index, change.path)
                index.add(pygit2.IndexEntry(change.path, self.git.create_blob(change.data), FileMode.BLOB))
        return self.commit_tree(parents, index.write_tree(self.git), author, message)

    def commit_tree(self, parents: list[str], tree: pygit2.Oid, author: str, message: str) -> str:
        who = pygit2.Signature(author, f"{author}@localhub.invalid")
        return str(self.git.create_commit(None, who, who, message, tree, [pygit2.Oid(hex=oid) for oid in parents]))

    @staticmethod
    def _clear(index: pygit2.Index, path: str) -> None:
        """A file takes the place of a directory of the same name, and of a file that its own directory was."""
        parts = path.split("/")
        for end in range(1, len(parts)):
            if "/".join(parts[:end]) in index:
                index.remove("/".join(parts[:end]))
        index.remove_all([f"{_literal(path)}/*"])


def _literal(path: str) -> str:
    """A path as a git pathspec that matches only itself."""
    return re.sub(r"([*?\[\\])", r"\\\1", path)


def _oid(tree: pygit2.Tree, path: str) -> str | None:
    try:
        return str(tree[path].id)
    except KeyError:
        return None
