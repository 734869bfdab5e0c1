"""A Docker engine: the one that answers, or one of our own on a machine that has none.

In: nothing; the machine is looked at. Out: an ``Engine``, which knows its client and its socket. Our own engine
(Debian's docker.io, as root) has its socket and its data for itself, and no network but the host's: no bridge, no
rules of a firewall are made. Its images stay in ``.cache/engine`` of the checkout, so that a second build is quick.
Several processes may use it at once; the last one ends it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from filelock import FileLock

ROOT = Path(__file__).resolve().parents[1]
STATE = ROOT / ".cache" / "engine"
PACKAGES = {"dockerd": "docker.io", "docker": "docker.io", "iptables": "iptables", "mmdebstrap": "mmdebstrap"}
"""Program -> the package of Debian that has it."""
START_SECONDS = 60.0


class NoEngine(Exception):
    """There is no engine and none can be had; the text says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """Where the engine listens, and the client that can speak to it."""

    host: str
    """As DOCKER_HOST has it."""
    client: str
    """Path of the program."""
    own: bool
    """Started by us."""

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "DOCKER_HOST": self.host, "DOCKER_BUILDKIT": "1"}

    def run(self, *args: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        """``docker ARGS``; output is captured as text where ``options`` do not say otherwise."""
        chosen = {"capture_output": True, "text": True, **options}
        done = subprocess.run([self.client, *args], env=self.environment, check=False, **chosen)
        if check and done.returncode:
            raise RuntimeError(f"docker {' '.join(args[:2])} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done


@contextmanager
def engine(*, keep: bool = False) -> Iterator[Engine]:
    """An engine for the time of the block.

    Args:
        keep: let one that we started go on; ``stop`` ends it.

    Raises:
        NoEngine: none answers, and this machine or this user cannot start one.
    """
    if (found := answering()) is not None:
        yield found
        return
    if os.geteuid() != 0:
        raise NoEngine("No Docker engine answers. Start one, or run this as root on Debian to have one started.")
    install()
    STATE.mkdir(parents=True, exist_ok=True)
    with (STATE / "users").open("a") as users:
        with alone("starting"):
            fcntl.flock(users, fcntl.LOCK_SH)
            started = _running() or _start()
            if keep:
                (STATE / "keep").touch()
        try:
            yield started
        finally:
            with alone("starting"):
                if not (STATE / "keep").exists() and _nobody_else(users):
                    _stop()


def stop() -> bool:
    """End our own engine, whoever started it; whether there was one."""
    if not STATE.is_dir():
        return False
    with alone("starting"):
        (STATE / "keep").unlink(missing_ok=True)
        return _stop()


def answering() -> Engine | None:
    """The engine that this machine offers anyway: at DOCKER_HOST, or at the usual socket."""
    client = shutil.which("docker")
    if client is None:
        return None
    host = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    known = Engine(host=host, client=_best_client(host) or client, own=False)
    return known if known.run("version", check=False).returncode == 0 else None


def install() -> None:
    """Bring what is missing from Debian's archive.

    Raises:
        NoEngine: this is no Debian.
    """
    missing = sorted({package for program, package in PACKAGES.items() if shutil.which(program) is None})
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise NoEngine(f"Missing: {', '.join(missing)}. Install them, or start a Docker engine.")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
    with FileLock(Path(tempfile.gettempdir()) / "ptebot-tests-apt.lock"):  # as tools.postgres: apt has one at a time
        for command in (["update"], ["install", "--yes", "--no-install-recommends", *missing]):
            subprocess.run([*apt, *command], check=True, stdout=sys.stderr, env=environment)


def _start() -> Engine:
    """A daemon on a socket of its own. Sockets have short names only, so they do not lie in the checkout."""
    folder = Path(tempfile.mkdtemp(prefix="ptebot-engine-"))
    host = f"unix://{folder}/docker.sock"
    command = ["dockerd", "--host", host, "--data-root", str(STATE / "data"), "--exec-root", str(folder / "exec")]
    command += ["--pidfile", str(folder / "pid"), "--bridge=none", "--iptables=false", "--ip6tables=false"]
    command += ["--ip-forward=false", "--shutdown-timeout=5"]
    with (STATE / "dockerd.log").open("wb") as log:
        daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    client = _best_client(host)
    if client is None:
        raise NoEngine("There is no Docker client.")
    new = Engine(host=host, client=client, own=True)
    until = time.monotonic() + START_SECONDS
    while new.run("version", check=False).returncode:
        if daemon.poll() is not None or time.monotonic() > until:
            daemon.kill()
            raise NoEngine(f"dockerd does not start:\n{(STATE / 'dockerd.log').read_text(errors='replace')[-2000:]}")
        time.sleep(0.2)
    said = {"host": host, "client": client, "pid": daemon.pid, "folder": str(folder)}
    (STATE / "engine.json").write_text(json.dumps(said), encoding="utf-8")
    return new


def _running() -> Engine | None:
    """Our own engine, when another process has started it already."""
    with suppress(OSError, ValueError, KeyError):
        said = json.loads((STATE / "engine.json").read_text(encoding="utf-8"))
        known = Engine(host=said["host"], client=said["client"], own=True)
        if known.run("version", check=False).returncode == 0:
            return known
    return None


def _stop() -> bool:
    try:
        said = json.loads((STATE / "engine.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    with suppress(ProcessLookupError):
        if _is_dockerd(said["pid"]):
            os.kill(said["pid"], signal.SIGTERM)
    until = time.monotonic() + START_SECONDS
    while _is_dockerd(said["pid"]) and time.monotonic() < until:
        time.sleep(0.1)
    (STATE / "engine.json").unlink()
    shutil.rmtree(said["folder"], ignore_errors=True)
    return True


def _is_dockerd(pid: int) -> bool:
    """Whether the process lives and is the daemon, not another that got its number (or one that ended unread)."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        return b"dockerd" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _best_client(host: str) -> str | None:
    """A client that can build with BuildKit: newer ones need the plugin buildx for it, Debian's has it inside."""
    folders = dict.fromkeys([*os.environ.get("PATH", "").split(os.pathsep), "/usr/bin"])
    found = [path for folder in folders if (path := shutil.which("docker", path=folder)) is not None]

    def said(client: str, *args: str) -> str:
        environment = {**os.environ, "DOCKER_HOST": host}
        return subprocess.run(
            [client, *args], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False
        ).stdout

    def able(client: str) -> bool:
        major = said(client, "version", "--format", "{{.Client.Version}}").partition(".")[0]
        return (major.isdigit() and 18 < int(major) < 23) or bool(said(client, "buildx", "version"))

    return next((client for client in found if able(client)), found[0] if found else None)


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Nobody else on this machine, and in this checkout, is in a block of that name."""
    STATE.mkdir(parents=True, exist_ok=True)
    with (STATE / f"{name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _nobody_else(users: IO[str]) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
