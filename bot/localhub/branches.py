"""Branches and tags over the API: list, create, delete; and the list of pull requests' refs."""

from __future__ import annotations

import pygit2
from starlette.responses import Response

from bot.localhub import payloads
from bot.localhub.accounts import Level
from bot.localhub.context import Call, reply, text_field
from bot.localhub.errors import HubError, bad_request, forbidden, revision_not_found
from bot.localhub.repos import RefUpdate, Repo


def refs(call: Call) -> Response:
    """GET .../refs[?include_prs=1]."""
    git = call.repo().git()

    def under(prefix: str, strip: str) -> list[dict[str, str]]:
        return [{"name": name.removeprefix(strip), "ref": name, "targetCommit": oid} for name, oid in git.refs(prefix)]

    value = {
        "branches": under("refs/heads/", "refs/heads/"), "tags": under("refs/tags/", "refs/tags/"),
        "converts": under("refs/convert/", "refs/convert/"),
    }  # fmt: skip
    if call.flag("include_prs"):
        value["pullRequests"] = under("refs/pr/", "refs/pr/")
    return reply(value)


def create_branch(call: Call) -> Response:
    """POST /api/models/{repo}/branch/{rev} {startingPoint?, overwrite?}."""
    repo = call.repo(Level.WRITE)
    body = call.json()
    start = body.get("startingPoint") or "main"
    if not isinstance(start, str):
        raise bad_request("startingPoint must name a revision")
    oid = str(repo.git().commit(start).id)
    return _new_ref(call, repo, f"refs/heads/{call.param('rev')}", oid, overwrite=body.get("overwrite") is True)


def delete_branch(call: Call) -> Response:
    """DELETE /api/models/{repo}/branch/{rev}; main stays."""
    if call.param("rev") == "main":
        raise forbidden("The branch main cannot be deleted")
    return _drop_ref(call, f"refs/heads/{call.param('rev')}")


def create_tag(call: Call) -> Response:
    """POST /api/models/{repo}/tag/{rev} {tag, message?}."""
    repo = call.repo(Level.WRITE)
    oid = str(repo.git().commit(call.param("rev")).id)
    return _new_ref(call, repo, f"refs/tags/{text_field(call.json(), 'tag', 1, 200)}", oid)


def delete_tag(call: Call) -> Response:
    """DELETE /api/models/{repo}/tag/{rev}."""
    return _drop_ref(call, f"refs/tags/{call.param('rev')}")


def _new_ref(call: Call, repo: Repo, ref: str, oid: str, *, overwrite: bool = False) -> Response:
    if not pygit2.reference_is_valid_name(ref) or ref.split("/")[2] == "refs":
        raise bad_request("Invalid name for a branch or tag")
    with call.hub.locks[repo.id]:
        git = repo.git()
        known = git.ref_of(ref)
        if known and not overwrite:
            raise HubError(409, f"{ref} exists already")
        old = str(git.commit(ref).id) if known else None
        if any(name.startswith(f"{ref}/") or ref.startswith(f"{name}/") for name, _ in git.refs("refs/")):
            raise HubError(409, f"{ref} cannot stand beside a ref that is part of its name")
        updates = call.hub.repos.publish(repo, lambda: [RefUpdate(ref, old, oid)])
    payloads.content(call, repo, updates)
    return reply({})


def _drop_ref(call: Call, ref: str) -> Response:
    repo = call.repo(Level.WRITE)
    with call.hub.locks[repo.id]:
        git = repo.git()
        if not git.ref_of(ref):
            raise revision_not_found(ref)
        old = str(git.commit(ref).id)
        updates = call.hub.repos.publish(repo, lambda: [RefUpdate(ref, old, None)])
    payloads.content(call, repo, updates)
    return reply({})
