"""Runs in real containers, for tests: any script as the module, and processes of ptebot that can be killed."""

from __future__ import annotations

import json
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bot.sandbox.call import Argument, Call, Exit, Limits, Reads
from bot.sandbox.containers import FOLDER_LABEL, LABEL, PREFIX

if TYPE_CHECKING:  # in a container there is nothing of it
    from tests.engine import DockerEngine

ROOT = Path(__file__).resolve().parents[3]
SECRET = "hf_parentsOwnSecret"
WAITS = "import os, time\nwhile not os.path.exists('/in/go'): time.sleep(0.02)\n"
"""Code that goes on when the test makes the file (``let_go``)."""

TOKEN = (
    "import os, sys, time\nprint('begun', os.urandom(8).hex(), flush=True)\n" + WAITS + "print('over', flush=True)\n"
)
"""A script that says which run it is, waits for the test, and ends."""


@dataclass
class Ran:
    """What came of a run."""

    exit: Exit
    lines: list[str]
    log: list[str] = field(default_factory=list)


def script(place: Path, code: str, *args: Argument, **options: Any) -> Call:
    """A call that runs ``code`` as a script with ``args`` (a profiler of the standard library is the module).

    Options are those of ``Call`` and of ``Limits``.
    """
    place.mkdir(exist_ok=True)
    path = place / "script.py"
    path.write_text(code, encoding="utf-8")
    limits: dict[str, Any] = {"seconds": 60.0}  # where something is broken, the test shall end
    limits |= {name: options.pop(name) for name in list(options) if name in Limits.__dataclass_fields__}
    given: list[Argument] = ["-o", "/dev/null", Reads(path), *args]
    return Call(module="cProfile", args=given, limits=Limits(**limits), **options)


def run(executor: Any, call: Call, on_line: Any = None) -> Ran:
    lines: list[str] = []
    log: list[str] = []

    def use(line: bytes) -> None:
        lines.append(line.decode("utf-8", "replace"))
        if on_line is not None:
            on_line(lines[-1])

    ended = executor.run(call, on_line=use, on_log=log.append)
    return Ran(ended, lines, log)


def containers(docker: DockerEngine) -> list[str]:
    """Names of all that ptebot has on the engine."""
    return docker.run("ps", "--all", "--filter", f"label={LABEL}", "--format", "{{.Names}}").stdout.split()


def about(docker: DockerEngine, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker.run("inspect", PREFIX + name).stdout)[0]
    return found


def folder(docker: DockerEngine, name: str) -> Path:
    return Path(about(docker, name)["Config"]["Labels"][FOLDER_LABEL])


def let_go(docker: DockerEngine, name: str) -> None:
    (folder(docker, name) / "in" / "go").touch()


_PARENT = """
import sys
from pathlib import Path
from bot.sandbox.call import Writes
from bot.sandbox.docker import DockerExecutor
from tests.bot.sandbox.docker_runs import script
image, host, name, code, place = sys.argv[1:]
executor = DockerExecutor(image, base_url=host)
call = script(Path(place), code, Writes(Path(place, "made")), name=name)
executor.run(call, on_line=lambda line: print(line.decode(), flush=True), on_log=lambda line: None)
"""


class Parent:
    """A process of ptebot that runs code under a name, and can be killed in the middle."""

    def __init__(self, docker: DockerEngine, name: str, code: str, place: Path) -> None:
        command = [sys.executable, "-c", _PARENT, docker.image, docker.host, name, code, str(place)]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "HF_TOKEN": SECRET}
        self.process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
        self._watchdog = threading.Timer(60, self.process.kill)  # a test that waits for a line must not wait for good
        self._watchdog.start()

    def line(self) -> str:
        assert self.process.stdout
        said = self.process.stdout.readline()
        assert said, "it ended before it said anything"
        return said.strip()

    def kill(self) -> None:
        """With signal 9: it can clean nothing up."""
        self._watchdog.cancel()
        self.process.kill()
        self.process.wait()


class Door:
    """Another socket of the engine's, which other users may use and which can be shut in the middle of a request."""

    def __init__(self, docker: DockerEngine) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="ptebot-door-", dir="/var/tmp")
        Path(self._folder.name).chmod(0o755)
        path = Path(self._folder.name, "docker.sock")
        self.host = f"unix://{path}"
        self._engine = docker.host.removeprefix("unix://")
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        path.chmod(0o666)
        self._listening.listen()
        self._open = [self._listening]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> Door:
        return self

    def __exit__(self, *_: object) -> None:
        self.shut()
        self._folder.cleanup()

    def shut(self) -> None:
        """As if the engine had died."""
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                asker, _ = self._listening.accept()
                engine = socket.socket(socket.AF_UNIX)
                engine.connect(self._engine)
                self._open += [asker, engine]
                threading.Thread(target=_carry, args=(asker, engine), daemon=True).start()


def _carry(one: socket.socket, other: socket.socket) -> None:
    with one, other, selectors.DefaultSelector() as either, suppress(OSError):
        for source, sink in ((one, other), (other, one)):
            either.register(source, selectors.EVENT_READ, sink)
        while True:
            for key, _ in either.select():
                data = key.fileobj.recv(65536)  # type: ignore[union-attr]
                if not data:
                    return
                key.data.sendall(data)
