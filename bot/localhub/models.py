"""Accounts and repositories over the API: whoami, create, list, info, settings, move, delete, branches, tags."""

from __future__ import annotations

import math
from typing import Any

import pygit2
from starlette.responses import Response

from bot.localhub import markdown, payloads
from bot.localhub.accounts import Level, User
from bot.localhub.context import Call, reply, text_field
from bot.localhub.errors import HubError, bad_request, forbidden
from bot.localhub.files import iso
from bot.localhub.gitrepo import GitRepo
from bot.localhub.lfs import object_store
from bot.localhub.objects import check_sha256
from bot.localhub.repos import Repo

_INFO = ("author", "cardData", "createdAt", "disabled", "downloads", "gated", "lastModified", "library_name", "likes",
         "pipeline_tag", "private", "sha", "siblings", "tags", "usedStorage")  # fmt: skip


def whoami(call: Call) -> Response:
    """GET /api/whoami-v2."""
    caller = call.caller
    if caller is None or (caller.only_repo is not None and not call.hub.tells_publishers):
        raise HubError(401, "Please sign in" if caller is None else "Invalid username or password.")
    user = caller.user
    token = {"displayName": caller.token_name, "role": caller.token_role, "createdAt": caller.token_created}
    orgs = [
        {
            "type": "org", "id": org.id, "name": org.name, "fullname": org.fullname,
            "avatarUrl": "/static/avatar.svg", "roleInOrg": role,
        }
        for org, role in call.hub.accounts.memberships(user)
    ]  # fmt: skip
    auth = {"type": "access_token", "accessToken": token} if caller.scopes is None else {"type": "oauth"}
    return reply({
        "type": "user", "id": user.id, "name": user.name, "fullname": user.fullname, "isPro": False,
        "avatarUrl": "/static/avatar.svg", "orgs": orgs, "auth": auth,
    })  # fmt: skip


def create_user(call: Call) -> Response:
    """POST /api/localhub/users {name, orgs?: {org: role}, tokenRole?}: an account and a token for it.

    This server's own addition, for administrators: the real Hub has no such call.
    """
    if not call.signed_in(writing=True).is_admin:
        raise forbidden("Administrators only")
    body = call.json()
    orgs = body.get("orgs", {})
    if not isinstance(orgs, dict):
        raise bad_request("orgs must map names to roles")
    accounts = call.hub.accounts
    with call.hub.database.transaction():
        user = accounts.create(text_field(body, "name", 1, 96), fullname=str(body.get("fullname", ""))[:200])
        for name, role in orgs.items():
            accounts.join(accounts.create(name, is_org=True), user, role)
        token = accounts.new_token(user, body.get("tokenRole", "write"))
    return reply({"id": user.id, "name": user.name, "token": token})


def create(call: Call) -> Response:
    """POST /api/repos/create."""
    user = call.signed_in(writing=True)
    body = call.json()
    if body.get("type", "model") != "model":
        raise bad_request("This Hub holds models only")
    owner = _namespace(call, body.get("organization") or user.name)
    if call.hub.accounts.namespace_role(user, owner.id) not in ("admin", "write", "contributor"):
        raise forbidden(f"You have no right to create a repository under {owner.name}")
    name = text_field(body, "name", 1, 96)
    private = _visibility(body)
    try:
        repo = call.hub.repos.create(owner, name, user, private=bool(private))
    except HubError as error:
        if error.status == 409:
            error.extra["url"] = f"{call.endpoint}/{owner.name}/{name}"
        raise
    payloads.repository(call, repo, "create")
    return reply({"url": f"{call.endpoint}/{repo.full_name}", "name": repo.full_name, "id": repo.id})


def delete(call: Call) -> Response:
    """DELETE /api/repos/delete {name, organization?}."""
    user = call.signed_in(writing=True)
    body = call.json()
    repo = _named(call, f"{body.get('organization') or user.name}/{text_field(body, 'name', 1, 96)}", Level.ADMIN)
    payloads.repository(call, repo, "delete")
    with call.hub.locks[repo.id]:
        call.hub.repos.delete(repo)
    return reply({})


def move(call: Call) -> Response:
    """POST /api/repos/move {fromRepo, toRepo}."""
    user = call.signed_in(writing=True)
    body = call.json()
    repo = _named(call, text_field(body, "fromRepo", 3, 200), Level.ADMIN)
    namespace, _, name = text_field(body, "toRepo", 3, 200).partition("/")
    owner = _namespace(call, namespace)
    if call.hub.accounts.namespace_role(user, owner.id) not in ("admin", "write"):
        raise forbidden(f"You have no right to move a repository to {owner.name}")
    call.hub.repos.move(repo, owner, name)
    payloads.repository(call, call.hub.repos.by_id(repo.id) or repo, "move")
    return reply({})


def settings(call: Call) -> Response:
    """PUT /api/models/{repo}/settings {private? | visibility?}."""
    repo = call.repo(Level.ADMIN)
    private = _visibility(call.json())
    if private is None:
        raise bad_request("Only private and visibility can be set on this Hub")
    call.hub.repos.set_private(repo, private)
    changed = call.hub.repos.by_id(repo.id) or repo
    payloads.config(call, changed, {"private": private})
    return reply({"private": private, "visibility": "private" if private else "public"})


def listing(call: Call) -> Response:
    """GET /api/models?author=&search=&limit=&cursor=&sort=lastModified&expand=: what the caller may see.

    The newest first, or with ``sort`` the one that changed last; a page links to the next one.
    """
    author, text = call.query("author").lower(), call.query("search").lower()
    found = [
        repo
        for repo in call.hub.repos.all()
        if call.level(repo) >= Level.READ
        and (not author or repo.owner.name.lower() == author)
        and text in repo.full_name.lower()
    ]
    if call.query("sort") == "lastModified":
        found.sort(key=lambda repo: repo.git().commit("main").commit_time, reverse=True)
    query = call.request.query_params
    wanted = tuple(query.getlist("expand")) or ("author", "private", "createdAt", "tags", "sha")
    start, size = call.number("cursor", 0, 0, 10**6), call.number("limit", 1000, 1, 1000)
    headers = {}
    if start + size < len(found):
        following = call.request.url.include_query_params(cursor=start + size)
        headers["Link"] = f'<{call.endpoint}{following.path}?{following.query}>; rel="next"'
    return reply([info_json(call, repo, "main", wanted) for repo in found[start : start + size]], headers=headers)


def info(call: Call) -> Response:
    """GET /api/models/{repo}[/revision/{rev}]?blobs=1&expand=."""
    repo = call.repo()
    query = call.request.query_params
    wanted = tuple(query.getlist("expand") + query.getlist("expand[]")) or _INFO
    return reply(info_json(call, repo, call.param("rev") or "main", wanted, blobs=call.flag("blobs")))


def auth_check(call: Call) -> Response:
    """GET /api/models/{repo}/auth-check[/write]: 200 when the caller may read (or write)."""
    if call.param("what") not in ("", "write"):
        raise HubError(404, "Unknown check")
    call.repo(Level.WRITE if call.param("what") else Level.READ)
    return reply({})


def validate_yaml(call: Call) -> Response:
    """POST /api/validate-yaml {content, repoType}: whether a card's metadata can be taken."""
    card = markdown.parse_card(text_field(call.json(), "content", 0, 2**22))
    errors = [{"message": card.error}] if card.error else []
    tags = card.data.get("tags")
    if tags is not None and not (isinstance(tags, list) and all(isinstance(tag, str) for tag in tags)):
        errors.append({"message": '"tags" must be a list of strings'})
    warnings = [] if card.front_matter.strip() else [{"message": "empty or missing yaml metadata in repo card"}]
    return reply({"errors": errors, "warnings": warnings}, 400 if errors else 200)


def duplicate_files(call: Call) -> Response:
    """POST /api/models/{repo}/lfs-files/duplicate {target, files}: large files for another repository to commit."""
    source = object_store(call.hub, call.repo())
    body = call.json()
    target_name = body.get("target", {}).get("name") if isinstance(body.get("target"), dict) else None
    files = body.get("files")
    if not isinstance(target_name, str) or not isinstance(files, list) or not 0 < len(files) <= 1000:
        raise bad_request("Give target and 1 to 1000 files")
    call.signed_in(writing=True)
    target = object_store(call.hub, _named(call, target_name, Level.WRITE))
    wanted = {check_sha256(item.get("sha256") if isinstance(item, dict) else None) for item in files}
    for sha in sorted(wanted):
        source.copy_to(target, sha)
    return reply({"success": True, "processed": len(wanted), "succeeded": len(wanted), "failed": []})


def info_json(call: Call, repo: Repo, rev: str, wanted: tuple[str, ...], *, blobs: bool = False) -> dict[str, Any]:
    """A repository as the API gives it, with only the ``wanted`` properties beside its id."""
    git = repo.git()
    head = git.commit(rev)
    card = read_card(git, head)
    files = [entry for entry in git.listing(head, recursive=True) if entry.kind == "file"]
    siblings: list[dict[str, Any]] = []
    for entry in files:
        item: dict[str, Any] = {"rfilename": entry.path}
        if blobs:
            item |= {"size": entry.size, "blobId": entry.oid}
            if entry.lfs:
                lfs = {"sha256": entry.lfs.sha256, "size": entry.lfs.size, "pointerSize": entry.lfs.pointer_size}
                item["lfs"] = lfs
        siblings.append(item)
    everything = {
        "author": repo.owner.name, "cardData": _json_safe(card.data) if card.data else None, "createdAt": repo.created,
        "disabled": False, "downloads": 0, "gated": False, "lastModified": iso(head.commit_time), "likes": 0,
        "library_name": card.data.get("library_name"), "pipeline_tag": card.data.get("pipeline_tag"),
        "private": repo.private, "sha": str(head.id), "siblings": siblings, "tags": markdown.tags(card.data),
        "usedStorage": sum(entry.size for entry in files),
    }  # fmt: skip
    result = {"_id": repo.id, "id": repo.full_name, "modelId": repo.full_name}
    return result | {key: value for key, value in everything.items() if key in wanted and value is not None}


def read_card(git: GitRepo, head: pygit2.Commit) -> markdown.Card:
    """The commit's README.md, taken apart; empty when there is none."""
    entry = git.entry(head, "README.md")
    is_text = entry is not None and entry.kind == "file" and entry.lfs is None
    return markdown.parse_card(git.read(entry).decode(errors="replace") if entry and is_text else "")


def _json_safe(value: Any) -> Any:
    """YAML knows dates and other keys than text; JSON does not."""
    if isinstance(value, dict):
        return {str(key): _json_safe(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_json_safe(item) for item in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    return value if isinstance(value, float) and math.isfinite(value) else str(value)


def _named(call: Call, full_name: str, need: Level) -> Repo:
    """A repository named in a body instead of the address, under the same rules."""
    namespace, _, name = full_name.partition("/")
    call.request.path_params.update(ns=namespace, name=name)
    return call.repo(need)


def _namespace(call: Call, name: object) -> User:
    owner = call.hub.accounts.by_name(name) if isinstance(name, str) else None
    if owner is None:
        raise HubError(404, "No such user or organisation")
    return owner


def _visibility(body: dict[str, Any]) -> bool | None:
    """Whether a body asks for a private repository; None when it does not say.

    Raises:
        HubError: 400.
    """
    visibility, private = body.get("visibility"), body.get("private")
    if visibility not in (None, "public", "private") or private not in (None, True, False):
        raise bad_request("visibility must be public or private")
    return visibility == "private" if visibility else private
