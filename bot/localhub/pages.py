"""Pages for a person: index, model card, files, commits. Rendered here on the server, with no script at all.

Everything shown is hostile: templates escape what they print, cards pass through markdown.py, and the
Content-Security-Policy allows only this server's own style sheet and images.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pygit2
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import RedirectResponse, Response

from bot.localhub import discussions, markdown, pulls
from bot.localhub.accounts import Level
from bot.localhub.context import Call
from bot.localhub.errors import HubError
from bot.localhub.files import commit_json
from bot.localhub.gitrepo import Entry, GitRepo, check_path
from bot.localhub.lfs import object_store
from bot.localhub.models import read_card
from bot.localhub.repos import Repo

SHOWN_TEXT = 512 * 1024
SHOWN_DIFF = 200 * 1024
COMMITS_SHOWN = 100
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def size_text(count: int) -> str:
    """A number of bytes for a person, in decimal units as the Hub shows them."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5 or unit == "GB":
            break
        value /= 1000
    return f"{count} B" if unit == "B" else f"{value:.3g} {unit}" if value < 999.5 else f"{value:.0f} {unit}"


def day(stamp: str) -> str:
    """An API timestamp for a person."""
    return datetime.fromisoformat(stamp).strftime("%-d %b %Y, %H:%M UTC")


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters.update(size=size_text, day=day, part=lambda text: quote(text, safe=""), path=quote)


def render(call: Call, template: str, code: int = 200, /, **values: Any) -> Response:
    html = _ENVIRONMENT.get_template(template).render(user=call.user, **values)
    return Response(html, code, HEADERS, "text/html")


def page(handler: Callable[[Call], Response]) -> Callable[[Call], Response]:
    """A page's handler whose errors are pages too."""

    def shown(call: Call) -> Response:
        try:
            return handler(call)
        except HubError as error:
            return render(call, "error.html", error.status, status=error.status, message=error.message)

    shown.__name__ = handler.__name__
    shown.__module__ = handler.__module__
    return shown


# -- view models -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DiffLine:
    """One line of a shown diff; ``kind``: add, del, hunk or same."""

    kind: str
    text: str


@dataclass(frozen=True)
class FileDiff:
    """One changed file with its lines (none for a large or binary file)."""

    change: pulls.FileChange
    lines: list[DiffLine]


@dataclass(frozen=True)
class CardDiff:
    """What changed in a card: lines of its metadata, and blocks of its text, rendered."""

    metadata: list[DiffLine]
    blocks: list[markdown.Block]


def frame(call: Call, repo: Repo, tab: str) -> dict[str, Any]:
    """What the head of every page of a repository shows."""
    found = discussions.search(call.hub, repo, status="open")
    return {
        "repo": repo,
        "tab": tab,
        "open_count": len(found),
        "base": f"/{repo.full_name}",
        "tags": markdown.tags(read_card(repo.git(), repo.git().commit("main")).data),
    }


def revisions(git: GitRepo, rev: str) -> dict[str, Any]:
    """What the revision selector shows: branches, tags and pull requests, and the one that is chosen."""
    groups = [("Branches", "refs/heads/"), ("Tags", "refs/tags/"), ("Pull requests", "refs/pr/")]
    menu = []
    for title, prefix in groups:
        names = [name if prefix == "refs/pr/" else name.removeprefix(prefix) for name, _ in git.refs(prefix)]
        if names:
            menu.append((title, names))
    return {"rev": rev, "rev_short": rev[:10] if len(rev) == 40 else rev, "menu": menu}


def line_diff(old: str, new: str) -> list[DiffLine]:
    """A unified diff of two texts as lines to show, without its file header."""
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), n=3, lineterm="")
    return [_diff_line(line) for line in list(lines)[2:]]


def _diff_line(line: str) -> DiffLine:
    kind = {"+": "add", "-": "del", "@": "hunk"}.get(line[:1], "same")
    return DiffLine(kind, line)


def text_of(git: GitRepo, entry: Entry | None) -> str | None:
    """A file's text, or None when it is large, binary or not there."""
    if entry is None or entry.kind != "file" or entry.lfs or entry.size > SHOWN_TEXT:
        return None
    data = git.read(entry)
    try:
        return None if b"\0" in data else data.decode()
    except UnicodeDecodeError:
        return None


def card_diff(git: GitRepo, change: pulls.FileChange, base: str) -> CardDiff:
    """The rendered diff of a README.md."""
    old, new = text_of(git, change.old) or "", text_of(git, change.new) or ""
    before, after = markdown.parse_card(old), markdown.parse_card(new)
    return CardDiff(
        line_diff(before.front_matter, after.front_matter),
        markdown.rendered_diff(before.body, after.body, base),
    )


def file_diffs(git: GitRepo, changed: list[pulls.FileChange]) -> list[FileDiff]:
    """Line diffs of the changed text files, up to a bound for one page in all."""
    result, room = [], SHOWN_DIFF
    for change in changed:
        old, new = text_of(git, change.old), text_of(git, change.new)
        lines: list[DiffLine] = []
        if (old is not None or change.old is None) and (new is not None or change.new is None):
            cost = len(old or "") + len(new or "")
            if cost <= room:
                room -= cost
                lines = line_diff(old or "", new or "")
        result.append(FileDiff(change, lines))
    return result


# -- pages -----------------------------------------------------------------------------------------------------


@page
def index(call: Call) -> Response:
    """GET / and GET /{owner}: the models that the caller may see."""
    owner = call.param("ns")
    if owner and call.hub.accounts.by_name(owner) is None:
        raise HubError(404, "There is no such user or organisation")
    rows = []
    for repo in call.hub.repos.all():
        if call.level(repo) >= Level.READ and owner.lower() in ("", repo.owner.name.lower()):
            git = repo.git()
            head = git.commit("main")
            files = [entry for entry in git.listing(head, recursive=True) if entry.kind == "file"]
            rows.append({
                "repo": repo, "updated": commit_json(head)["date"], "size": sum(entry.size for entry in files),
                "tags": markdown.tags(read_card(git, head).data)[:6],
                "open_count": len(discussions.search(call.hub, repo, status="open")),
            })  # fmt: skip
    rows.sort(key=lambda row: str(row["updated"]), reverse=True)
    return render(call, "index.html", rows=rows, owner=owner)


@page
def card(call: Call) -> Response:
    """GET /{repo}: the model card, its metadata hidden behind tags, and the files beside it."""
    repo = call.repo()
    git = repo.git()
    head = git.commit("main")
    parsed = read_card(git, head)
    files = [entry for entry in git.listing(head, recursive=True) if entry.kind == "file"]
    html = markdown.render(parsed.body, f"/{repo.full_name}/resolve/main/")
    return render(
        call, "card.html", **frame(call, repo, "card"), html=html, card=parsed, files=files,
        total=sum(entry.size for entry in files), head=commit_json(head),
    )  # fmt: skip


@page
def tree(call: Call) -> Response:
    """GET /{repo}/tree/{rev}[/{path}]: a directory, with each entry's size and last commit."""
    repo, git, head, rev = _at(call)
    path = call.param("path").strip("/")
    entries = git.listing(head, path)
    if path and len(entries) == 1 and entries[0].path == path:
        return RedirectResponse(f"/{repo.full_name}/blob/{quote(rev, safe='')}/{quote(path)}", 303)
    entries.sort(key=lambda entry: (entry.kind != "directory", entry.path.lower()))
    made = {path: commit_json(item) for path, item in git.last_commits(head, [e.path for e in entries]).items()}
    return render(
        call, "tree.html", **frame(call, repo, "files"), **revisions(git, rev), entries=entries, made=made,
        crumbs=_crumbs(path), head=commit_json(head), place="tree", dir_path=path,
    )  # fmt: skip


@page
def blob(call: Call) -> Response:
    """GET /{repo}/blob/{rev}/{path}: one file: its text, or what is known of a large one."""
    repo, git, head, rev = _at(call)
    entry = git.file(head, check_path(call.param("path")))
    xet_hash = object_store(call.hub, repo).xet_hashes().get(entry.etag) if entry.lfs else None
    return render(
        call, "blob.html", **frame(call, repo, "files"), **revisions(git, rev), entry=entry, text=text_of(git, entry),
        crumbs=_crumbs(entry.path), xet_hash=xet_hash, head=commit_json(head), place="blob", dir_path=entry.path,
        is_image=entry.path.lower().endswith((".png", ".jpg", ".jpeg", ".gif", ".webp")),
    )  # fmt: skip


@page
def commits(call: Call) -> Response:
    """GET /{repo}/commits/{rev}."""
    repo, git, head, rev = _at(call)
    found = [commit_json(item) for _, item in zip(range(COMMITS_SHOWN), git.log(head), strict=False)]
    return render(
        call, "commits.html", **frame(call, repo, "files"), **revisions(git, rev), commits=found, place="commits",
        dir_path="",
    )  # fmt: skip


@page
def commit(call: Call) -> Response:
    """GET /{repo}/commit/{rev}: what one commit changed."""
    repo, git, head, _rev = _at(call)
    changed = pulls.changes(git, str(head.parents[0].id), str(head.id)) if head.parents else []
    return render(
        call, "commit.html", **frame(call, repo, "files"), commit=commit_json(head), oid=str(head.id),
        diffs=file_diffs(git, changed), parents=[str(parent.id) for parent in head.parents],
    )  # fmt: skip


def login(call: Call) -> Response:
    """GET /login: the browser asks for a user name and a token (as password), and keeps them for this address."""
    if call.user is None:
        headers = HEADERS | {"WWW-Authenticate": 'Basic realm="Local Hub: any name, a token as the password"'}
        response = render(call, "error.html", 401, status=401, message="Sign in with a token as the password.")
        response.headers.update(headers)
        return response
    return RedirectResponse("/", 303)


def _at(call: Call) -> tuple[Repo, GitRepo, pygit2.Commit, str]:
    repo = call.repo()
    git = repo.git()
    rev = call.param("rev")
    return repo, git, git.commit(rev), rev


def _crumbs(path: str) -> list[tuple[str, str]]:
    parts = [part for part in path.split("/") if part]
    return [(part, "/".join(parts[: end + 1])) for end, part in enumerate(parts)]
