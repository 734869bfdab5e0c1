"""Releases and the files attached to them."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from starlette.responses import Response

from tests.localgithub import git as gits
from tests.localgithub import payloads, refs
from tests.localgithub.call import Call, Router, no_content, page, reply, text
from tests.localgithub.errors import ApiError, invalid, not_found, too_long
from tests.localgithub.state import Asset, Release, now

router = Router()
_REPO = "/repos/{owner}/{repo}/releases"
MAX_BODY = 125_000
MAX_ASSET = 2 * 1024**3


def _find(call: Call) -> Release:
    one = call.repo.releases.get(call.number("release_id"))
    if one is None or (one.draft and not _writer(call)):
        raise not_found()
    return one


def _writer(call: Call) -> bool:
    return call.token is not None and call.role in ("write", "maintain", "admin")


def _asset(call: Call) -> tuple[Release, Asset]:
    wanted = call.number("asset_id")
    for one in call.repo.releases.values():
        for item in one.assets:
            if item.id == wanted and (not one.draft or _writer(call)):
                return one, item
    raise not_found()


@router.on("GET", _REPO, "contents=read")
def listing(call: Call) -> Response:
    found = [one for one in reversed(call.repo.releases.values()) if not one.draft or _writer(call)]
    return page(call, [payloads.release(call.github, call.repo, one) for one in found])


@router.on("POST", _REPO, "contents=write")
def create(call: Call) -> Response:
    data = call.json()
    tag = text(data, "tag_name", "Release", 255, required=True) or ""
    one = Release(next(call.github.ids), tag, call.repo.default_branch, None, None, call.account, draft=True)
    _change(call, one, {"draft": False, **data})
    call.repo.releases[one.id] = one
    document = payloads.release(call.github, call.repo, one)
    return reply(document, 201, {"Location": document["url"]})


def _change(call: Call, one: Release, data: dict[str, Any]) -> None:
    git = call.repo.git
    tag, target = (
        text(data, "tag_name", "Release", 255) or one.tag,
        text(data, "target_commitish", "Release") or one.target,
    )
    name, body = text(data, "name", "Release", 255), text(data, "body", "Release", MAX_BODY)
    draft = bool(data.get("draft", one.draft))
    same = [
        other for other in call.repo.releases.values() if other.tag == tag and not other.draft and other.id != one.id
    ]
    if same and not draft:
        raise ApiError(
            422, "Validation Failed", [{"resource": "Release", "code": "already_exists", "field": "tag_name"}]
        )
    full = f"refs/tags/{tag}"
    if not draft and full not in git.references:
        commit = gits.find(git, target)
        if commit is None:
            raise invalid("Release", "target_commitish")
        try:
            refs.check_rules(call.repo, call.account.login, full, "creation")
        except ApiError as error:
            message = f"pre_receive {error.message}"
            kinds = {"resource": "Release", "code": "custom"}
            tag_error = {**kinds, "message": "Published releases must have a valid tag"}
            raise ApiError(
                422, "Validation Failed", [{**kinds, "field": "pre_receive", "message": message}, tag_error]
            ) from None
        try:
            gits.set_ref(git, full, str(commit.id))
        except ValueError:
            raise invalid("Release", "tag_name", message="tag_name is not a valid tag") from None
    one.tag, one.target = tag, target
    one.name = name if "name" in data else one.name
    one.body = body if "body" in data else one.body
    one.prerelease = bool(data.get("prerelease", one.prerelease))
    if one.draft and not draft:
        one.published_at = now()
    one.draft = draft


@router.on("GET", _REPO + "/latest", "contents=read")
def latest(call: Call) -> Response:
    found = [one for one in call.repo.releases.values() if not one.draft and not one.prerelease]
    if not found:
        raise not_found()
    return reply(payloads.release(call.github, call.repo, found[-1]))


@router.on("GET", _REPO + "/tags/{tag:path}", "contents=read")
def by_tag(call: Call) -> Response:
    for one in call.repo.releases.values():
        if one.tag == call.param("tag") and not one.draft:
            return reply(payloads.release(call.github, call.repo, one))
    raise not_found()


@router.on("GET", _REPO + "/assets/{asset_id}", "contents=read")
def get_asset(call: Call) -> Response:
    parent, one = _asset(call)
    if "octet-stream" in call.accept:
        return Response(one.path.read_bytes(), media_type="application/octet-stream")
    return reply(payloads.asset(call.github, call.repo, parent, one))


@router.on("PATCH", _REPO + "/assets/{asset_id}", "contents=write")
def edit_asset(call: Call) -> Response:
    parent, one = _asset(call)
    data = call.json()
    name = text(data, "name", "ReleaseAsset", 255)
    if name is not None and any(item.name == clean(name) and item.id != one.id for item in parent.assets):
        raise ApiError(
            422, "Validation Failed", [{"resource": "ReleaseAsset", "code": "already_exists", "field": "name"}]
        )
    one.name, one.updated_at = clean(name) if name else one.name, now()
    one.label = data.get("label", one.label)
    return reply(payloads.asset(call.github, call.repo, parent, one))


@router.on("DELETE", _REPO + "/assets/{asset_id}", "contents=write")
def delete_asset(call: Call) -> Response:
    parent, one = _asset(call)
    parent.assets.remove(one)
    one.path.unlink()
    return no_content()


@router.on("GET", _REPO + "/{release_id}", "contents=read")
def show(call: Call) -> Response:
    return reply(payloads.release(call.github, call.repo, _find(call)))


@router.on("PATCH", _REPO + "/{release_id}", "contents=write")
def edit(call: Call) -> Response:
    one = _find(call)
    _change(call, one, call.json())
    return reply(payloads.release(call.github, call.repo, one))


@router.on("DELETE", _REPO + "/{release_id}", "contents=write")
def delete(call: Call) -> Response:
    """The tag stays, as on GitHub."""
    del call.repo.releases[_find(call).id]
    return no_content()


@router.on("GET", _REPO + "/{release_id}/assets", "contents=read")
def assets(call: Call) -> Response:
    one = _find(call)
    return page(call, [payloads.asset(call.github, call.repo, one, item) for item in one.assets])


def clean(name: str) -> str:
    """The name under which GitHub keeps a file: what is not plain in it becomes a dot."""
    return re.sub(r"\.{2,}", ".", re.sub(r"[^A-Za-z0-9._@+-]", ".", name)).strip(".")


@router.on("POST", "/api/uploads" + _REPO + "/{release_id}/assets", "contents=write")
def upload(call: Call) -> Response:
    one, name = _find(call), clean(call.query("name"))
    if not name:
        raise invalid("ReleaseAsset", "name", "missing_field")
    if not call.body:
        raise ApiError(400, "Bad Content-Length: ")
    if len(call.body) >= MAX_ASSET:
        raise too_long("ReleaseAsset", "size", MAX_ASSET)
    if any(item.name == name for item in one.assets):
        raise ApiError(
            422, "Validation Failed", [{"resource": "ReleaseAsset", "code": "already_exists", "field": "name"}]
        )
    number = next(call.github.ids)
    path = call.repo.directory / "assets" / str(number)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(call.body)
    kind = call.request.headers.get("content-type", "application/octet-stream")
    digest = hashlib.sha256(call.body).hexdigest()
    made = Asset(number, name, call.query("label") or None, kind, len(call.body), digest, call.account, path)
    one.assets.append(made)
    return reply(payloads.asset(call.github, call.repo, one, made), 201)
