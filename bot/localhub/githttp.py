"""``git clone`` over HTTP: git's own upload-pack behind the smart protocol, for reading only.

Large files come as LFS pointers; git-lfs fetches them through lfs.py. Pushing is not offered: commits
come over the API, where their large files are checked.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import zlib
from collections.abc import Iterator

from starlette.responses import Response, StreamingResponse

from bot.localhub.context import MIB, Call
from bot.localhub.errors import HubError, bad_request
from bot.localhub.objects import CHUNK

MAX_REQUEST = 16 * MIB
_HEADERS = {"Cache-Control": "no-cache"}
_PROTOCOL = re.compile(r"version=[0-9]")


def advertise(call: Call) -> Response:
    """GET /{repo}[.git]/info/refs?service=git-upload-pack: the refs that a clone may ask for.

    Raises:
        HubError: 403 for a push; 501 where git is not installed.
    """
    if call.query("service") != "git-upload-pack":
        raise HubError(403, "This Hub takes commits over its API, not by git push")
    process = _upload_pack(call, "--http-backend-info-refs")
    output, _ = process.communicate()
    if process.returncode:
        raise HubError(500, "git cannot read this repository")
    preamble = b"001e# service=git-upload-pack\n0000"
    return Response(preamble + output, headers=_HEADERS, media_type="application/x-git-upload-pack-advertisement")


def upload_pack(call: Call) -> Response:
    """POST /{repo}[.git]/git-upload-pack: the pack that the client asked for.

    Raises:
        HubError: 400 a body that is not what its encoding says; 413 too large; 501 without git.
    """
    body = call.body
    if call.request.headers.get("content-encoding") == "gzip":
        try:
            body = zlib.decompressobj(wbits=31).decompress(body, MAX_REQUEST)
        except (zlib.error, gzip.BadGzipFile):
            raise bad_request("The body is not gzip") from None
    process = _upload_pack(call)
    return StreamingResponse(_talk(process, body), headers=_HEADERS, media_type="application/x-git-upload-pack-result")


def _upload_pack(call: Call, *options: str) -> subprocess.Popen[bytes]:
    try:
        repo = call.repo()
    except HubError as error:
        if call.user is None:  # git sends its password only when it is asked for one
            error.status, error.message = 401, "Sign in with a token as the password"
            error.headers["WWW-Authenticate"] = 'Basic realm="Local Hub"'
        raise
    git = shutil.which("git")
    if git is None:
        raise HubError(501, "git is not installed here, so there is nothing to clone with")
    environment = {"PATH": os.environ.get("PATH", ""), "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    protocol = call.request.headers.get("git-protocol", "")
    if _PROTOCOL.fullmatch(protocol):
        environment["GIT_PROTOCOL"] = protocol
    directory = str(repo.directory / "git")
    command = [git, "-c", "safe.directory=*", "upload-pack", "--stateless-rpc", *options, directory]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )


def _talk(process: subprocess.Popen[bytes], body: bytes) -> Iterator[bytes]:
    with process:
        try:
            if process.stdin is None or process.stdout is None:
                return
            try:
                process.stdin.write(body)
                process.stdin.close()
            except BrokenPipeError:
                pass  # git has answered already, with an error that it now prints
            while chunk := process.stdout.read(CHUNK):
                yield chunk
        finally:
            process.kill()
