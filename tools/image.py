"""``python -m tools.image [--tag NAME]`` (``make image``): the committed Dockerfile becomes an image, here.

In: the checkout and a Docker engine. Out: an image. Where the base can be pulled, the build gets no arguments, like
the one on GitHub's runner. Where it cannot, a base of the same release is made with mmdebstrap, and pip's packages
are collected here first, with whatever pip is configured for on this machine, and served to the build on loopback.
"""

from __future__ import annotations

import argparse
import hashlib
import http.server
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tools.engine import ROOT, STATE, Engine, NoEngine, alone, engine, install, stop

TAG = "ptebot:dev"
STAND_IN = "ptebot-stand-in:bookworm"
STAND_IN_PYTHON = (3, 11)
"""What Debian 12 has, and so the Python that packages are collected for."""
PULL_SECONDS = 120
EXTRAS = ("openvino", "kubernetes", "otel")
"""Of ptebot's packages, those that the Dockerfile installs too."""
MOST_CACHE = "8GB"
"""What our own engine keeps of earlier builds: the layers of the last one, and some of those before."""
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*", "/usr/share/lintian/*")
"""Debian's slim images leave these out, too."""

Say = Callable[[str], None]


def build(on: Engine, *, tag: str = TAG, say: Say = lambda text: print(text, file=sys.stderr)) -> dict[str, float]:
    """Build the image ``tag``.

    Returns:
        Seconds of each part.

    Raises:
        RuntimeError: the build failed; the text has its log.
        NoEngine: nothing can be pulled, and the stand-in cannot be made by this user or this Python.
    """
    with alone("building"):
        return _build(on, tag, say)


def _build(on: Engine, tag: str, say: Say) -> dict[str, float]:
    seconds: dict[str, float] = {}
    with _timed(seconds, "pull", say):
        pullable = _pull(on, default_base())
    if pullable:
        with _timed(seconds, "build", say):
            _docker_build(on, tag, {})
        return seconds
    _may_stand_in()
    wheels = STATE / "wheels"
    with ThreadPoolExecutor(2) as pool:
        base = pool.submit(_part, seconds, "base", say, lambda: _stand_in(on))
        collected = pool.submit(_part, seconds, "wheels", say, lambda: _collect(wheels))
        base.result()
        collected.result()
    with _served(wheels) as address, _timed(seconds, "build", say):
        given = {"BASE_IMAGE": STAND_IN, "PIP_NO_INDEX": "true", "PIP_EXTRA_INDEX_URL": "", "PIP_FIND_LINKS": address}
        _docker_build(on, tag, given)
    if on.own:
        on.run("image", "prune", "--force")
        on.run("builder", "prune", "--force", "--keep-storage", MOST_CACHE)
    return seconds


def default_base() -> str:
    """The base that the Dockerfile names."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    found = re.search(r"^ARG BASE_IMAGE=(\S+@sha256:[0-9a-f]{64})$", text, re.MULTILINE)
    if found is None:
        raise RuntimeError("The Dockerfile names no base with a digest.")
    return found[1]


def _docker_build(on: Engine, tag: str, arguments: dict[str, str]) -> None:
    given = [f"--build-arg={name}={value}" for name, value in arguments.items()]
    given += [f"--build-arg={name}" for name in PROXIES if name in os.environ]
    host = ["--network=host"] if on.own or arguments else []
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "capture_output": False}
    done = on.run("build", "--tag", tag, *host, *given, str(ROOT), check=False, **options)
    if done.returncode:
        raise RuntimeError(f"docker build ended with {done.returncode}:\n{done.stdout[-6000:]}")


def _pull(on: Engine, image: str) -> bool:
    try:
        return on.run("pull", "--quiet", image, check=False, timeout=PULL_SECONDS).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _may_stand_in() -> None:
    if os.geteuid() != 0:
        raise NoEngine(f"{default_base()} cannot be pulled, and only root can make a stand-in for it.")
    if sys.version_info[:2] != STAND_IN_PYTHON:
        wanted = ".".join(map(str, STAND_IN_PYTHON))
        raise NoEngine(f"{default_base()} cannot be pulled; a stand-in needs packages collected by Python {wanted}.")
    install()


def _stand_in(on: Engine) -> None:
    """Debian 12 from its archive, imported as an image; one from an earlier run is taken again."""
    if on.run("image", "inspect", STAND_IN, check=False).returncode == 0:
        return
    with tempfile.TemporaryDirectory(prefix="ptebot-base-") as folder:
        tar = Path(folder) / "base.tar"
        options = ["--quiet", "--variant=minbase", "--include=ca-certificates"]
        options += [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
        command = ["mmdebstrap", *options, "bookworm", str(tar)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"mmdebstrap ended with {done.returncode}:\n{done.stderr[-4000:]}")
        on.run("import", str(tar), STAND_IN)


def _collect(wheels: Path) -> None:
    """Every package of the image as a wheel, once for each state of the files that name them."""
    named = [ROOT / "pyproject.toml", ROOT / "constraints.txt"]
    texts = [*(path.read_bytes() for path in named), repr(EXTRAS).encode()]
    state = hashlib.sha256(b"".join(texts)).hexdigest()
    stamp = wheels / "collected-for"
    if stamp.is_file() and stamp.read_text() == state:
        return
    shutil.rmtree(wheels, ignore_errors=True)
    wheels.mkdir()
    project = tomllib.loads(named[0].read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    wanted = [*project["project"]["dependencies"], *(one for name in EXTRAS for one in extras[name])]
    wanted += [*project["build-system"]["requires"], "pip"]
    pinned = ["--constraint", str(named[1]), "--build-constraint", str(named[1])]
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", str(wheels), *pinned, *wanted]
    done = subprocess.run(command, cwd=STATE, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"pip wheel ended with {done.returncode}:\n{done.stderr[-4000:]}")
    stamp.write_text(state)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    """The folder at an address on loopback, the same as last time where it is free: it is part of what Docker
    compares to take a layer again."""
    remembered = STATE / "port"
    port = int(remembered.read_text()) if remembered.is_file() else 0
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError:
            port = 0
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), partial(_Quiet, directory=str(folder))) as server:
        remembered.write_text(str(server.server_port))
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def _part(seconds: dict[str, float], name: str, say: Say, work: Callable[[], None]) -> None:
    with _timed(seconds, name, say):
        work()


@contextmanager
def _timed(seconds: dict[str, float], name: str, say: Say) -> Iterator[None]:
    start = time.monotonic()
    yield
    seconds[name] = round(time.monotonic() - start, 1)
    say(f"image: {name} {seconds[name]} s")


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the action's image here.")
    parser.add_argument("--tag", default=TAG)
    parser.add_argument("--stop", action="store_true", help="end the engine that an earlier build started")
    args = parser.parse_args()
    if args.stop:
        print("The engine is stopped." if stop() else "No engine of ours was running.")
        return 0
    try:
        with engine(keep=True) as on:
            build(on, tag=args.tag)
            size = int(on.run("image", "inspect", "--format", "{{.Size}}", args.tag).stdout)
            print(f"{args.tag}: {size / 1e9:.2f} GB")
            if on.own:
                print(f"It lies in an engine of its own: DOCKER_HOST={on.host} {on.client} run --rm {args.tag}")
                print("`make image-stop` ends that engine; the image stays.")
    except (NoEngine, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
