"""Start the local Hub: check the host, make the administrator's token, bind the socket, run uvicorn."""

from __future__ import annotations

import ipaddress
import json
import os
import secrets
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from bot.localhub.app import LOCAL_NAMES, create_app
from bot.localhub.context import Hub
from bot.localhub.errors import PortTaken, UnsafeHost
from bot.localhub.hub import open_hub

ADMIN = "admin"
TOKEN_FILE = "admin-token"  # noqa: S105 - a file's name
NOTICE = "This is ptebot's local Hub, for demos and tests: not a service to trust with anything else."


def serve(
    data: Path,
    host: str = "127.0.0.1",
    port: int = 0,
    json_line: bool = False,
    allow_remote: bool = False,
    users: Sequence[str] = (),
) -> None:
    """Serve the hub in ``data`` until interrupted.

    With ``json_line`` the first line on stdout is ``{"endpoint": ..., "token": ..., "users": {name: token}}`` (the
    first token is the administrator's); otherwise a person is told the address and where that token is kept.

    Raises:
        UnsafeHost: ``host`` is not a loopback address and ``allow_remote`` is not set.
        PortTaken: nothing can listen at that host and port.
        InvalidHubData: ``data`` holds something else.
    """
    if not allow_remote and not is_loopback(host):
        raise UnsafeHost(f"{host} can be reached from other machines")
    listener = bind(host, port)
    try:
        hub = open_hub(data)
        token = admin_token(hub)
        app = create_app(hub, hosts=["*"] if allow_remote else LOCAL_NAMES)
        endpoint = endpoint_of(listener, host)
        if json_line:
            tokens = {name: hub.accounts.new_token(hub.accounts.create(name), "write") for name in users}
            print(json.dumps({"endpoint": endpoint, "token": token, "users": tokens}), flush=True)
            print(NOTICE, file=sys.stderr, flush=True)
        else:
            print(f"{NOTICE}\nListening on {endpoint}\nAdministrator's token: in {hub.data / TOKEN_FILE}", flush=True)
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=5)
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        listener.close()


def is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def bind(host: str, port: int) -> socket.socket:
    """A listening socket (port 0: any free one).

    Raises:
        PortTaken: with the system's reason.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        # asyncio turns Nagle's algorithm off only where the protocol is stated; left on, each reply waits 40 ms.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except (OSError, OverflowError) as error:
        raise PortTaken(f"{host}:{port}: {error}") from error
    return listener


def endpoint_of(listener: socket.socket, host: str) -> str:
    port = listener.getsockname()[1]
    name = host.strip("[]")
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def admin_token(hub: Hub) -> str:
    """The administrator's token: made on the first start, kept in the data directory for its owner only."""
    path = hub.data / TOKEN_FILE
    admin = hub.accounts.create(ADMIN, is_admin=True, fullname="Administrator")
    if path.is_file():
        token = path.read_text().strip()
    else:
        token = "hf_" + secrets.token_hex(20)
        staged = path.with_suffix(".new")
        staged.unlink(missing_ok=True)
        with os.fdopen(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(token + "\n")
        staged.replace(path)
    hub.accounts.keep_token(token, admin, "write", "administrator")
    return token
