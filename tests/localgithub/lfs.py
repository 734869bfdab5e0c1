"""Git LFS as GitHub serves it: batch, upload to an object storage, verify, download, and the plan's limits.

The storage behaves as GitHub's: its addresses work only with the headers that the batch reply named (another
``Authorization`` is refused), a body needs its length, and what arrives must have the announced hash and size.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from tests.localgithub.errors import ApiError
from tests.localgithub.smarthttp import readable
from tests.localgithub.state import Repo, State, Token

MEDIA_TYPE = "application/vnd.git-lfs+json"
MAX_OBJECTS = 100
_OID = re.compile(r"[0-9a-f]{64}")
OVER_QUOTA = (
    "This repository exceeded its LFS budget. "
    "The account responsible for the budget should increase it to restore access."
)


def path_of(repo: Repo, oid: str) -> Path:
    return repo.directory / "lfs" / oid[:2] / oid


def stored(repo: Repo) -> int:
    """Bytes of LFS files that a repository holds."""
    folder = repo.directory / "lfs"
    return sum(path.stat().st_size for path in folder.glob("*/*")) if folder.is_dir() else 0


def routes(state: State) -> list[Route]:
    def route(method: str, path: str, handler: Callable[[State, Request], Awaitable[Response]]) -> Route:
        async def endpoint(request: Request) -> Response:
            try:
                return await handler(state, request)
            except ApiError as error:
                body = {
                    "message": error.message,
                    "documentation_url": "https://docs.github.com/git-lfs",
                    "request_id": "1",
                }
                return JSONResponse(body, error.status, error.headers, media_type=MEDIA_TYPE)

        return Route(path, endpoint, methods=[method])

    base = "/{owner}/{repo}.git/info/lfs"
    return [
        route("POST", base + "/objects/batch", batch),
        route("POST", base + "/objects/verify/{id:int}", verify),
        route("POST", base + "/locks/verify", no_locks),
        route("PUT", "/_storage/{id:int}/{oid}", put),
        route("GET", "/_storage/{id:int}/{oid}", get),
    ]


async def no_locks(_state: State, _request: Request) -> Response:
    return JSONResponse({"ours": [], "theirs": []}, media_type=MEDIA_TYPE)


def _caller(state: State, request: Request, *, writing: bool) -> tuple[Repo, Token | None]:
    """The repository and who asks.

    Raises:
        ApiError: 401 nobody, though somebody is needed; 403 the token may only read; 404.
    """
    from tests.localgithub.app import authenticate

    challenge = {"LFS-Authenticate": 'Basic realm="GitHub"'}
    try:
        token = authenticate(state, request)
    except ApiError as error:
        raise ApiError(401, error.message, headers=challenge) from None
    if token is None and writing:
        raise ApiError(401, "Credentials needed", headers=challenge)
    repo = readable(state, request, token)
    if not writing:
        return repo, token
    inside = token is not None and (token.repos is None or repo.id in token.repos) and token.allows("contents", "write")
    person = token is not None and token.kind != "installation"
    if not inside or (person and token and repo.role_of(token.account) not in ("write", "maintain", "admin")):
        raise ApiError(403, "You must have push access to this repository.")
    if repo.archived:
        raise ApiError(403, "This repository was archived so it is read-only.")
    return repo, token


async def batch(state: State, request: Request) -> Response:
    body = await _json(request)
    operation, objects = body.get("operation"), body.get("objects")
    if operation not in ("upload", "download") or not isinstance(objects, list):
        raise ApiError(422, "Bad operation or objects")
    if unknown := set(body) - {"operation", "transfers", "ref", "objects", "hash_algo"}:
        raise ApiError(422, f"Unknown: {', '.join(sorted(unknown))}")
    if "ref" in body and (not isinstance(body["ref"], dict) or not str(body["ref"].get("name")).startswith("refs/")):
        raise ApiError(422, "ref must be an object with the full name of a ref")
    if len(objects) > MAX_OBJECTS:
        raise ApiError(413, f"Batch of {len(objects)} objects; at most {MAX_OBJECTS} are taken")
    if "basic" not in body.get("transfers", ["basic"]) or body.get("hash_algo", "sha256") != "sha256":
        raise ApiError(409, "Unsupported transfer or hash algorithm")

    def work() -> list[dict[str, Any]]:
        with state.lock:
            repo, _ = _caller(state, request, writing=operation == "upload")
            if not repo.lfs.enabled:
                raise ApiError(403, "Git LFS is disabled for this repository.")
            if operation == "upload":
                _check_quota(repo, objects)
            return [_object(state, repo, operation, item) for item in objects]

    return JSONResponse({"transfer": "basic", "objects": await run_in_threadpool(work)}, media_type=MEDIA_TYPE)


def _check_quota(repo: Repo, objects: list[Any]) -> None:
    if repo.lfs.quota is None:
        return
    sizes = [one["size"] for one in objects if isinstance(one, dict) and isinstance(one.get("size"), int)]
    if stored(repo) + sum(sizes) > repo.lfs.quota:
        raise ApiError(repo.lfs.quota_status, OVER_QUOTA)


def _object(state: State, repo: Repo, operation: str, item: Any) -> dict[str, Any]:
    oid, size = (item.get("oid"), item.get("size")) if isinstance(item, dict) else (None, None)
    result: dict[str, Any] = {"oid": oid, "size": size}
    if not isinstance(oid, str) or not _OID.fullmatch(oid) or not isinstance(size, int) or size < 0:
        return result | {"error": {"code": 422, "message": "Validation error: oid and size"}}
    path, href = path_of(repo, oid), f"{state.server_url}/_storage/{repo.id}/{oid}"
    here = path.is_file()
    if operation == "download":
        if not here or path.stat().st_size != size:
            return result | {"error": {"code": 404, "message": "Object does not exist on the server"}}
        return result | {
            "actions": {
                "download": {"href": f"{href}?token={_sign(state, 'get', repo, oid, size)}", "expires_in": 3600}
            }
        }
    if here:
        return result
    if size > repo.lfs.max_file:
        message = f"Size must be less than or equal to {repo.lfs.max_file}"
        return result | {"error": {"code": 422, "message": message}}
    signed = {"Authorization": f"AWS4-HMAC-SHA256 Credential=local, Signature={_sign(state, 'put', repo, oid, size)}"}
    upload = {
        "href": href,
        "header": {**signed, "x-amz-content-sha256": oid, "x-amz-size": str(size)},
        "expires_in": 900,
    }
    proof = {"Authorization": f"RemoteAuth {_sign(state, 'verify', repo, oid, size)}", "Accept": MEDIA_TYPE}
    where = f"{state.server_url}/{repo.full_name}.git/info/lfs/objects/verify/{repo.id}"
    return result | {
        "authenticated": True,
        "actions": {"upload": upload, "verify": {"href": where, "header": proof, "expires_in": 86400}},
    }


def _sign(state: State, what: str, repo: Repo, oid: str, size: int) -> str:
    return hmac.new(state.signing_key, f"{what}\n{repo.id}\n{oid}\n{size}".encode(), hashlib.sha256).hexdigest()


async def put(state: State, request: Request) -> Response:
    """The storage: exactly the announced bytes, with exactly the announced headers."""
    repo, oid = state.repos[request.path_params["id"]], request.path_params["oid"]
    length = request.headers.get("content-length", "")
    if not length.isdigit():
        return Response("MissingContentLength", 411)
    announced = request.headers.get("x-amz-size", "")
    if not announced.isdigit():
        return Response("AccessDenied", 403)
    wanted = _sign(state, "put", repo, oid, int(announced))
    if not request.headers.get("authorization", "").endswith(f"Signature={wanted}"):
        return Response("Only one auth mechanism allowed, and it must be the one that was given", 400)
    if request.headers.get("x-amz-content-sha256") != oid:
        return Response("SignatureDoesNotMatch", 403)
    path = path_of(repo, oid)
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f"{oid}.{id(request)}")
    digest, size = hashlib.sha256(), 0
    try:
        with staged.open("wb") as file:
            async for chunk in request.stream():
                digest.update(chunk)
                size += len(chunk)
                file.write(chunk)
                await asyncio.sleep(0)
        if digest.hexdigest() != oid or size != int(announced):
            return Response("XAmzContentSHA256Mismatch", 400)
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)
    return Response(status_code=200)


async def get(state: State, request: Request) -> Response:
    repo, oid = state.repos[request.path_params["id"]], request.path_params["oid"]
    path = path_of(repo, oid)
    if not path.is_file():
        return Response("NoSuchKey", 404)
    if request.headers.get("authorization"):
        return Response("Only one auth mechanism allowed", 400)
    if request.query_params.get("token") != _sign(state, "get", repo, oid, path.stat().st_size):
        return Response("AccessDenied", 403)
    return FileResponse(path, media_type="application/octet-stream")


async def verify(state: State, request: Request) -> Response:
    body = await _json(request)
    repo = state.repos.get(request.path_params["id"])
    oid, size = body.get("oid"), body.get("size")
    if repo is None or not isinstance(oid, str) or not _OID.fullmatch(oid) or not isinstance(size, int):
        raise ApiError(404, "Not Found")
    if request.headers.get("authorization") != f"RemoteAuth {_sign(state, 'verify', repo, oid, size)}":
        raise ApiError(401, "Bad credentials")
    path = path_of(repo, oid)
    if not path.is_file() or path.stat().st_size != size:
        raise ApiError(404, "Object does not exist on the server")
    return JSONResponse({}, media_type=MEDIA_TYPE)


async def _json(request: Request) -> dict[str, Any]:
    if MEDIA_TYPE not in request.headers.get("content-type", ""):
        raise ApiError(422, f"Content-Type must be {MEDIA_TYPE}")
    try:
        body = await request.json()
    except ValueError:
        raise ApiError(400, "Problems parsing JSON") from None
    if not isinstance(body, dict):
        raise ApiError(400, "Problems parsing JSON")
    return body
