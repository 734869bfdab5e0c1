"""The Git LFS protocol: batch requests, single and multipart uploads, verification, downloads.

Upload addresses are signed and need no token, as on the Hub (clients send none with a PUT).
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from bot.localhub.context import Call, Hub, reply
from bot.localhub.errors import HubError, bad_request
from bot.localhub.objects import CHUNK, ObjectStore, check_sha256, check_signature, sign
from bot.localhub.repos import Repo
from bot.localhub.xet import XetStore

MEDIA_TYPE = "application/vnd.git-lfs+json"
MAX_OBJECTS = 1000


def object_store(hub: Hub, repo: Repo) -> ObjectStore:
    return ObjectStore(hub.database, repo)


def xet_store(hub: Hub, repo: Repo) -> XetStore:
    return XetStore(hub.database, repo, object_store(hub, repo))


def batch(call: Call) -> Response:
    """POST /{repo}.git/info/lfs/objects/batch."""
    body = call.json()
    uploading = body.get("operation") == "upload"
    if body.get("operation") not in ("upload", "download"):
        raise bad_request("operation must be upload or download")
    repo = call.repo(writing=uploading)
    objects = body.get("objects")
    if not isinstance(objects, list) or len(objects) > MAX_OBJECTS:
        raise bad_request(f"objects must be a list of at most {MAX_OBJECTS}")
    multipart = "multipart" in (body.get("transfers") or [])
    store = object_store(call.hub, repo)
    results = [_action(call, repo, store, item, uploading=uploading, multipart=multipart) for item in objects]
    return Response(
        reply({"transfer": "multipart" if multipart and uploading else "basic", "objects": results}).body,
        media_type=MEDIA_TYPE,
    )


def _action(
    call: Call, repo: Repo, store: ObjectStore, item: Any, *, uploading: bool, multipart: bool
) -> dict[str, Any]:
    size = item.get("size") if isinstance(item, dict) else None
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise bad_request("Each object needs oid and size")
    oid = check_sha256(item.get("oid"))
    result: dict[str, Any] = {"oid": oid, "size": size}
    stored = store.size(oid)
    limits = call.hub.limits
    base = f"{call.endpoint}/_lfs/{repo.id}/{oid}/{size}"
    key = call.hub.signing_key
    if not uploading:
        if stored is None:
            return result | {"error": {"code": 404, "message": "Object does not exist"}}
        return result | {"actions": {"download": {"href": f"{base}?{sign(key, 'get', repo.id, oid, size)}"}}}
    if stored is not None:
        return result  # no actions: it is here already
    if size > limits.lfs_file:
        return result | {"error": {"code": 422, "message": f"The file is larger than {limits.lfs_file} bytes"}}
    upload: dict[str, Any] = {"href": f"{base}?{sign(key, 'put', repo.id, oid, size)}"}
    if multipart and size >= limits.multipart_from:
        count = -(-size // limits.part_size)
        parts = {
            str(part): f"{base}/{part}?{sign(key, 'part', repo.id, oid, size, part)}" for part in range(1, count + 1)
        }
        upload = {
            "href": f"{base}/complete?{sign(key, 'complete', repo.id, oid, size)}",
            "header": {"chunk_size": str(limits.part_size), **parts},
        }
    verify = {"href": f"{call.endpoint}/{quote(repo.full_name)}.git/info/lfs/objects/verify"}
    return result | {"actions": {"upload": upload, "verify": verify}}


def verify(call: Call) -> Response:
    """POST /{repo}.git/info/lfs/objects/verify: whether an upload arrived."""
    repo = call.repo(writing=True)
    body = call.json()
    if object_store(call.hub, repo).size(check_sha256(body.get("oid"))) != body.get("size"):
        raise HubError(404, "The object was not uploaded")
    return reply({})


def complete(call: Call) -> Response:
    """POST /_lfs/{id}/{oid}/{size}/complete {oid, parts: [{partNumber, etag}]}: join the parts of an upload."""
    repo, oid, size = _signed(call.request, call.hub, "complete")
    parts = call.json().get("parts")
    count = -(-size // call.hub.limits.part_size)
    if not isinstance(parts, list) or [_part_number(part) for part in parts] != list(range(1, count + 1)):
        raise bad_request(f"parts must name 1 to {count}, each once and in order")
    store = object_store(call.hub, repo)
    paths = [_part_path(store, oid, number) for number in range(1, count + 1)]
    if not all(path.is_file() for path in paths):
        raise bad_request("A part is missing")
    for path, part in zip(paths, parts, strict=True):
        if _etag(path) != str(part.get("etag", "")).strip('"'):
            raise bad_request("A part's etag does not fit its content")
    staged = store.staging()
    digest = hashlib.sha256()
    with staged.open("wb") as target:
        for path in paths:
            with path.open("rb") as source:
                while chunk := source.read(CHUNK):
                    digest.update(chunk)
                    target.write(chunk)
    store.adopt(staged, oid, size, actual=digest.hexdigest())
    for path in paths:
        path.unlink()
    return reply({})


async def put(request: Request, hub: Hub) -> Response:
    """PUT /_lfs/{id}/{oid}/{size}[/{part}]: the bytes of a file or of one of its parts."""
    part = request.path_params.get("part")
    extra = (int(part),) if part else ()
    repo, oid, size = await run_in_threadpool(_signed, request, hub, "part" if part else "put", *extra)
    store = object_store(hub, repo)
    limit = min(hub.limits.part_size, size) if part else size
    staged = store.staging()
    try:
        digest = await _receive(request.stream(), staged, limit)
        if part:
            staged.replace(_part_path(store, oid, int(part)))
            return Response(headers={"ETag": f'"{_etag(_part_path(store, oid, int(part)))}"'})
        await run_in_threadpool(store.adopt, staged, oid, size, actual=digest)
    finally:
        staged.unlink(missing_ok=True)
    return Response(headers={"ETag": f'"{oid}"'})


async def get(request: Request, hub: Hub) -> Response:
    """GET /_lfs/{id}/{oid}/{size}: what git-lfs downloads."""
    repo, oid, _size = await run_in_threadpool(_signed, request, hub, "get")
    return FileResponse(object_store(hub, repo).path(oid), media_type="application/octet-stream")


async def _receive(stream: AsyncIterator[bytes], target: Path, limit: int) -> str:
    """Write a request's body to a file; its sha256.

    Raises:
        HubError: 413, it has more than ``limit`` bytes.
    """
    digest = hashlib.sha256()
    received = 0
    with target.open("wb") as file:
        async for chunk in stream:
            received += len(chunk)
            if received > limit:
                raise HubError(413, "The body is larger than announced")
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def _signed(request: Request, hub: Hub, what: str, *extra: int) -> tuple[Repo, str, int]:
    """What a signed address speaks of.

    Raises:
        HubError: 403 the signature does not fit; 404 the repository is gone.
    """
    parameters = request.path_params
    repo_id, oid, size = parameters["repo_id"], check_sha256(parameters["oid"]), int(parameters["size"])
    query = request.query_params
    check_signature(
        hub.signing_key, query.get("expires", ""), query.get("signature", ""), what, repo_id, oid, size, *extra
    )
    repo = hub.repos.by_id(repo_id)
    if repo is None:
        raise HubError(404, "Repository not found", "RepoNotFound")
    return repo, oid, size


def _part_path(store: ObjectStore, oid: str, number: int) -> Path:
    return store.staging().with_name(f"{oid}.{number}")


def _part_number(part: Any) -> Any:
    return part.get("partNumber") if isinstance(part, dict) else None


def _etag(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
