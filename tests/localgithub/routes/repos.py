"""Repositories, accounts, rights, branches, dispatches, the rate limit."""

from __future__ import annotations

import time
from typing import Any

import pygit2
from starlette.responses import Response

from tests.localgithub import git as gits
from tests.localgithub import payloads
from tests.localgithub.call import INTEGRATION, Call, Router, no_content, page, reply
from tests.localgithub.errors import ApiError, invalid, not_found

router = Router()


@router.on("GET", "/user")
def user(call: Call) -> Response:
    who = call.account
    if call.token is not None and call.token.kind == "installation":
        raise ApiError(403, INTEGRATION)
    return reply(_profile(call, who.login))


@router.on("GET", "/users/{username}")
def account(call: Call) -> Response:
    return reply(_profile(call, call.param("username")))


def _profile(call: Call, login: str) -> dict[str, Any]:
    who = call.github.accounts.get(login.lower())
    if who is None:
        raise not_found()
    empty = dict.fromkeys(("name", "company", "location", "email", "hireable", "bio", "twitter_username"))
    counts = dict.fromkeys(("public_repos", "public_gists", "followers", "following"), 0)
    dates = {"created_at": "2020-01-01T00:00:00Z", "updated_at": "2020-01-01T00:00:00Z"}
    return payloads.account(call.github, who) | empty | counts | dates | {"blog": ""}


@router.on("GET", "/rate_limit")
def rate_limit(call: Call) -> Response:
    one = {"limit": 5000, "used": 1, "remaining": 4999, "reset": int(time.time()) + 3600}
    return reply({"resources": dict.fromkeys(("core", "search", "graphql"), one), "rate": one})


@router.on("GET", "/repos/{owner}/{repo}", "metadata=read")
def show(call: Call) -> Response:
    document = payloads.repository(call.github, call.repo, call.role)
    parent = call.github.repos.get(call.repo.parent or 0)
    if parent:
        small = payloads.repository(call.github, parent, full=False)
        document |= {"parent": small, "source": small}
    return reply(document)


@router.on("GET", "/repos/{owner}/{repo}/collaborators/{username}/permission", "metadata=read", role="write")
def permission(call: Call) -> Response:
    """``permission`` knows the four old levels, ``role_name`` the real ones."""
    if call.token is None:
        raise ApiError(401, "Requires authentication")
    login = call.param("username")
    who = call.github.accounts.get(login.lower())
    if who is None:
        raise ApiError(404, f"{login} is not a user")
    role = call.repo.role_of(who)
    old = {"triage": "read", "maintain": "write"}.get(role, role)
    rank = ("none", "read", "triage", "write", "maintain", "admin").index(role)
    levels = {"pull": 1, "triage": 2, "push": 3, "maintain": 4, "admin": 5}
    extra = {"permissions": {name: rank >= level for name, level in levels.items()}, "role_name": role}
    person = payloads.account(call.github, who) | extra
    return reply({"permission": old, "user": person, "role_name": role})


@router.on("POST", "/repos/{owner}/{repo}/dispatches", "contents=write")
def dispatch(call: Call) -> Response:
    data = call.json()
    event, payload = data.get("event_type"), data.get("client_payload", {})
    if not isinstance(event, str) or not 1 <= len(event) <= 100:
        raise invalid("RepositoryDispatch", "event_type")
    if not isinstance(payload, dict) or len(payload) > 10:
        raise ApiError(422, "Invalid request.\n\nNo more than 10 properties are allowed; more were supplied.")
    call.repo.dispatches.append({"event_type": event, "client_payload": payload})
    return no_content()


@router.on("GET", "/repos/{owner}/{repo}/branches", "contents=read")
def branches(call: Call) -> Response:
    git = call.repo.git
    names = sorted(name.removeprefix("refs/heads/") for name in git.references if name.startswith("refs/heads/"))
    found = []
    for name in names:
        sha = gits.branch(git, name)
        url = f"{payloads.repo_url(call.github, call.repo)}/commits/{sha}"
        found.append({"name": name, "commit": {"sha": sha, "url": url}, "protected": _protected(call, name)})
    return page(call, found)


@router.on("GET", "/repos/{owner}/{repo}/branches/{branch:path}", "contents=read")
def branch(call: Call) -> Response:
    name, git = call.param("branch"), call.repo.git
    sha = gits.branch(git, name)
    if sha is None:
        raise ApiError(404, "Branch not found")
    url = f"{payloads.repo_url(call.github, call.repo)}/branches/{name}"
    guarded = _protected(call, name)
    contexts = {"enforcement_level": "off", "contexts": [], "checks": []}
    return reply(
        {
            "name": name, "commit": payloads.commit(call.github, call.repo, git[sha].peel(pygit2.Commit)),
            "_links": {"self": url, "html": f"{call.github.server_url}/{call.repo.full_name}/tree/{name}"},
            "protected": guarded, "protection": {"enabled": guarded, "required_status_checks": contexts},
            "protection_url": f"{url}/protection",
        }
    )  # fmt: skip


def _protected(call: Call, name: str) -> bool:
    return any(rule.forbids_to("", name, what) for rule in call.repo.rules for what in rule.forbids)
