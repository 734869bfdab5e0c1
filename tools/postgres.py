"""A PostgreSQL server of our own, from Debian's packages, for tests and for the bench of the bot.

In: nothing; what is missing is installed. Out: a ``Postgres`` on a free port of the loopback, with its data in a
temporary folder, that makes databases and ends with the block, or with the process that started it.
"""

from __future__ import annotations

import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psycopg
from filelock import FileLock

START_SECONDS = 60.0
FAST = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
"""Data that nobody needs after a power cut (PostgreSQL's documentation, chapter "Non-Durable Settings")."""
_NUMBERS = count(1)


class NoPostgres(Exception):
    """There is no server and none can be had; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Postgres:
    """A running server."""

    port: int
    password: str
    folder: Path
    process: subprocess.Popen[bytes]

    def url(self, database: str) -> str:
        return f"postgresql://ptebot:{self.password}@127.0.0.1:{self.port}/{database}"

    def create(self) -> str:
        """A fresh, empty database's address."""
        name = f"ptebot_{os.getpid()}_{next(_NUMBERS)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def drop(self, url: str) -> None:
        """Remove a database, whoever is connected to it."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{url.rpartition("/")[2]}" WITH (FORCE)')


@contextmanager
def postgres(*, durable: bool = False) -> Iterator[Postgres]:
    """A server for the time of the block.

    Args:
        durable: commits reach the disk, as they have to where figures are measured.

    Raises:
        NoPostgres: it cannot be installed or started here.
    """
    programs = _programs()
    user = _user()
    with tempfile.TemporaryDirectory(prefix="ptebot-postgres-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        password = secrets.token_urlsafe(16)
        (folder / "password").write_text(password)
        if user is not None:
            os.chown(folder, user.pw_uid, user.pw_gid)
            os.chown(folder / "password", user.pw_uid, user.pw_gid)
        made = [programs / "initdb", "--pgdata", folder / "data", "--username=ptebot", "--auth=scram-sha-256"]
        made += [f"--pwfile={folder / 'password'}", "--encoding=UTF8", "--locale=C", "--no-sync"]
        done = subprocess.run(_as(user, *map(str, made)), capture_output=True, text=True, check=False, cwd=folder)
        if done.returncode:
            raise NoPostgres(f"initdb ended with {done.returncode}: {done.stderr[-1000:]}")
        server = _start(programs, user, folder, {} if durable else FAST, password)
        try:
            yield server
        finally:
            server.process.send_signal(signal.SIGINT)  # "fast shutdown": open connections are closed
            try:
                server.process.wait(START_SECONDS)
            except subprocess.TimeoutExpired:
                server.process.send_signal(signal.SIGQUIT)
                server.process.wait()


def _start(
    programs: Path, user: pwd.struct_passwd | None, folder: Path, options: dict[str, str], password: str
) -> Postgres:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_connections": "200", **options}
    command = [str(programs / "postgres"), "-D", str(folder / "data"), "-p", str(port)]
    command += [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    log = folder / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen(_as(user, *command), stdout=stream, stderr=stream, cwd=folder)
    server = Postgres(port=port, password=password, folder=folder, process=process)
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            psycopg.connect(server.url("postgres"), connect_timeout=5).close()
        except psycopg.OperationalError as error:
            if process.poll() is not None or time.monotonic() > until:
                process.kill()
                told = log.read_text(errors="replace")[-1000:]
                raise NoPostgres(f"postgres does not start: {error}\n{told}") from None
            time.sleep(0.05)
        else:
            return server


def _as(user: pwd.struct_passwd | None, *command: str) -> list[str]:
    """The command as another user, ended by the kernel when this process dies (setpriv(1), prctl(2))."""
    own = ["--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--clear-groups"] if user is not None else []
    return ["setpriv", *own, "--pdeathsig", "INT", *command]


def _user() -> pwd.struct_passwd | None:
    """Who runs the server: it refuses root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise NoPostgres("PostgreSQL does not run as root, and there is no other user.")


def _programs() -> Path:
    """The folder with initdb and postgres; they are not on PATH in Debian."""
    if (found := _newest()) is not None:
        return found
    root = os.geteuid() == 0
    if not shutil.which("apt-get") or not (root or shutil.which("sudo")):
        raise NoPostgres("PostgreSQL is missing and cannot be installed: Debian has it in the package postgresql.")
    apt = [*([] if root else ["sudo", "-n"]), "apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with FileLock(Path(tempfile.gettempdir()) / "ptebot-tests-apt.lock"):
        for arguments in (["update"], ["install", "-y", "--no-install-recommends", "postgresql"]):
            if _newest() is None:
                subprocess.run([*apt, *arguments], check=True, stdout=sys.stderr, env=environment)
    found = _newest()
    if found is None:
        raise NoPostgres("The package postgresql brought no server.")
    return found


def _newest() -> Path | None:
    def version(path: Path) -> int:
        number = re.match(r"\d+", path.parent.name)
        return int(number.group()) if number else 0

    found = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "initdb").is_file()]
    if found:
        return max(found, key=version)
    if (there := shutil.which("initdb")) and shutil.which("postgres"):
        return Path(there).resolve().parent
    return None
