"""Commits over the API: preupload (which files are large), the commit request, and pull requests from it.

What goes in: the Hub's ndjson or JSON commit bodies. What comes out: one git commit, on a branch or as the
first commit of a new pull request; concurrent writers are told by 412 when their parent has moved on.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from starlette.responses import Response

from bot.localhub import commit_body, discussions, payloads, rules
from bot.localhub.accounts import Level, User
from bot.localhub.commit_body import CommitRequest
from bot.localhub.context import Call, reply
from bot.localhub.errors import HubError, bad_request, forbidden, revision_not_found
from bot.localhub.gitrepo import Change, GitRepo, check_path, pointer
from bot.localhub.lfs import object_store, xet_store
from bot.localhub.repos import RefUpdate, Repo


def preupload(call: Call) -> Response:
    """POST /api/models/{repo}/preupload/{rev}: the upload mode of each file, and the id of what is there now."""
    creating = call.flag("create_pr")
    repo = call.repo(writing=True)
    git = repo.git()
    rev = call.param("rev")
    if not creating:
        _check_may_commit(call, repo, git.ref_of(rev) or "")
    head = git.commit(rev)
    body = call.json()
    files = body.get("files")
    if not isinstance(files, list) or len(files) > 1000:
        raise bad_request("files must be a list of at most 1000")
    attributes = _optional_text(body, "gitAttributes") or _text(git, head, ".gitattributes")
    ignore = _optional_text(body, "gitIgnore") or _text(git, head, ".gitignore") or ""
    result = []
    for item in files:
        path, size, sample = _preupload_item(item)
        if attributes is None:
            attributes = rules.DEFAULT_GITATTRIBUTES
        large = rules.is_large(path, size, sample, attributes, call.hub.limits.regular_file)
        known = git.entry(head, path)
        info = {
            "path": path,
            "uploadMode": "lfs" if large else "regular",
            "shouldIgnore": rules.ignored(path, ignore),
        }
        if known and known.kind == "file" and (known.lfs is not None) == large:
            info["oid"] = known.etag
        result.append(info)
    return reply({"files": result, "commitOid": str(head.id)})


def commit(call: Call) -> Response:
    """POST /api/models/{repo}/commit/{rev}[?create_pr=1]."""
    creating = call.flag("create_pr")
    repo = call.repo(writing=True)
    user = call.signed_in(writing=True)
    rev = call.param("rev")
    git = repo.git()
    ref = git.ref_of(rev)
    if not creating:
        _check_may_commit(call, repo, ref or "")
    if ref is None:
        raise revision_not_found(rev)
    if not ref.startswith("refs/heads/") and (creating or not ref.startswith("refs/pr/")):
        raise bad_request("Commits go to a branch, or to a pull request's ref; a pull request starts from a branch")
    request = commit_body.parse(call)
    _receive_large(call, repo, request)
    with call.hub.locks[repo.id]:
        head = str(git.commit(ref).id)
        parent = _choose_parent(git, head, request.parent, creating)
        oid = _write(git, call, repo, request, parent)
        changed = git.commit(oid).tree_id != git.commit(parent).tree_id
        pr_num = None
        if creating:
            if not changed:
                raise bad_request("This commit changes nothing, so there is no pull request to open")
            pr_num = discussions.open_pr_from_commit(
                call, repo, ref, oid, title=request.summary, description=request.description
            )
        elif changed:
            _publish(call, repo, user, RefUpdate(ref, head, oid), request.summary)
        else:
            oid = head  # the branch says this already: as on the Hub, no empty commit
    base = f"{call.endpoint}/{repo.full_name}"
    value = {"success": True, "commitOid": oid, "commitUrl": f"{base}/commit/{oid}", "hookOutput": ""}
    if pr_num is not None:
        value["pullRequestUrl"] = f"{base}/discussions/{pr_num}"
    return reply(value)


def _publish(call: Call, repo: Repo, user: User, update: RefUpdate, summary: str) -> None:
    pr = discussions.by_ref(call.hub, repo, update.ref)

    def record() -> list[RefUpdate]:
        if pr is not None and update.new is not None:
            discussions.add_commit_event(call.hub, pr, user, summary, update.new)
        return [update]

    payloads.content(call, repo, call.hub.repos.publish(repo, record))


def _check_may_commit(call: Call, repo: Repo, ref: str) -> None:
    """Writers may commit anywhere; the author of an unfinished pull request may, to its ref.

    Raises:
        HubError: 403.
    """
    pr = discussions.by_ref(call.hub, repo, ref)
    if pr is not None and pr.status == "merged":
        raise forbidden("This pull request is merged: open another one")
    if call.level(repo) >= Level.WRITE:
        return
    if pr is None or call.user is None or pr.author.id != call.user.id:
        raise forbidden("You have no write access to this repository: open a pull request with create_pr=1")


def _choose_parent(git: GitRepo, head: str, wanted: str | None, creating: bool) -> str:
    """The commit to build on.

    Raises:
        HubError: 412, the branch is not at ``wanted`` any more; a pull request may start at an older commit of it.
    """
    if wanted is None or wanted == head:
        return head
    if creating:
        try:
            if git.is_ancestor(str(git.commit(wanted).id), head):
                return wanted
        except HubError:
            pass  # no such commit: as stale as any other
    raise HubError(412, "A commit has happened since. Please refresh and try again.")


def _write(git: GitRepo, call: Call, repo: Repo, request: CommitRequest, parent: str) -> str:
    """The commit's id; nothing points to it yet."""
    base = git.commit(parent)
    changes: list[Change] = []
    for folder in request.deleted_folders:
        entries = git.listing(base, folder, recursive=True)
        changes += [Change(entry.path, None) for entry in entries if entry.kind == "file"]
    for path in request.deleted:
        if (entry := git.entry(base, path)) is None or entry.kind != "file":
            raise HubError(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
        changes.append(Change(path, None))
    for new, old in request.renames.items():
        data = git.read(git.file(base, old))
        changes += [Change(old, None), Change(new, data)]
    changes += [Change(path, data) for path, data in request.files.items()]
    store = object_store(call.hub, repo)
    for path, (sha, size) in request.large.items():
        stored = store.size(sha)
        if stored is None:
            raise bad_request(f"The large file {path} ({sha}) was not uploaded")
        if size is not None and stored != size:
            raise bad_request(f"{path} has {stored} bytes, not {size}")
        changes.append(Change(path, pointer(sha, stored)))
    if request.large and ".gitattributes" not in request.files:
        # As the Hub does: git must treat as LFS what was uploaded as LFS.
        before = _text(git, base, ".gitattributes") or ""
        after = rules.track(before, request.large)
        if after != before:
            changes.append(Change(".gitattributes", after.encode()))
    seen = {change.path for change in changes if change.data is None}
    removals = [Change(path, None) for path in sorted(seen)]
    message = request.summary + (f"\n\n{request.description}" if request.description else "")
    additions = [change for change in changes if change.data is not None]
    return git.write_commit([parent], [*removals, *additions], call.signed_in().name, message)


def _receive_large(call: Call, repo: Repo, request: CommitRequest) -> None:
    """Take in the large files that came through Xet; those of LFS are in the store since their upload."""
    store = object_store(call.hub, repo)
    missing = {sha: size for sha, size in request.large.values() if size is not None and store.size(sha) is None}
    if missing:
        with call.hub.locks[f"xet {repo.id}"]:
            still = {sha: size for sha, size in missing.items() if store.size(sha) is None}
            xet_store(call.hub, repo).take_in(still)


def _preupload_item(item: Any) -> tuple[str, int, bytes]:
    if not isinstance(item, dict) or not isinstance(item.get("size"), int) or not isinstance(item.get("sample"), str):
        raise bad_request("Each file needs path, size and sample")
    try:
        return check_path(item.get("path")), item["size"], base64.b64decode(item["sample"], validate=True)
    except (binascii.Error, ValueError):
        raise bad_request("sample is not valid base64") from None


def _optional_text(body: dict[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise bad_request(f"{name} must be text")
    return value


def _text(git: GitRepo, head: Any, path: str) -> str | None:
    """A small text file of a commit, or None when it is not there."""
    entry = git.entry(head, path)
    return git.read(entry).decode(errors="replace") if entry and entry.kind == "file" else None
