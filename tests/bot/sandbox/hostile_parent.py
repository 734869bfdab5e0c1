"""A ptebot of its own that runs hostile exporters behind a wall: ``python -m ... SPEC.json SECRET``; JSON comes back.

It has a secret in its environment and on its command line, a data directory that everybody may read, doors that
everybody may knock at, and it must be alive at the end.
"""

from __future__ import annotations

import importlib
import json
import os
import secrets
import signal
import socket
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("hostile_exporter.py")
LINES = 200
WAIT_SECONDS = 1.0


def _become(uid: int) -> None:
    """Another user from the beginning on, or this process would be closed to it as no real one is."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    os.execv(sys.executable, [sys.executable, "-m", "tests.bot.sandbox.hostile_parent", *sys.argv[1:]])  # noqa: S606


class Doors:
    """What a child could knock at."""

    def __init__(self, stack: ExitStack, work: Path, name: str) -> None:
        self._open: dict[str, socket.socket] = {}
        kinds: dict[str, tuple[int, int, Any]] = {
            "tcp": (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
            "udp": (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
            "unix": (socket.AF_UNIX, socket.SOCK_STREAM, str(work / "door")),
            "datagram": (socket.AF_UNIX, socket.SOCK_DGRAM, str(work / "letters")),
            "abstract": (socket.AF_UNIX, socket.SOCK_STREAM, "\0" + name),
        }
        for kind, (family, how, address) in kinds.items():
            door = stack.enter_context(socket.socket(family, how))
            door.bind(address)
            door.setblocking(False)
            if how == socket.SOCK_STREAM:
                door.listen()
            if isinstance(address, str) and address[0] == "/":
                os.chmod(address, 0o777)  # noqa: PTH101, S103
            self._open[kind] = door

    def facts(self) -> dict[str, Any]:
        found: dict[str, Any] = {kind: door.getsockname() for kind, door in self._open.items()}
        return {**found, "tcp": found["tcp"][1], "udp": found["udp"][1]}

    def knocked(self) -> list[str]:
        heard = []
        for kind, door in self._open.items():
            try:
                door.recv(1) if door.type == socket.SOCK_DGRAM else door.accept()[0].close()
                heard.append(kind)
            except BlockingIOError:
                pass
        return heard


def _run(executor: Any, act: str, asked: dict[str, Any], facts: Path, place: Path, name: str) -> dict[str, Any]:
    import psutil

    from bot import export_process
    from bot.sandbox.call import Call, Limits, Reads, Writes
    from exporter.errors import PtebotError

    place.mkdir()
    out = place / "out"
    stop, lines = threading.Event(), [0]
    kept: list[str] = []
    found: dict[str, Any] = {}

    def use(line: bytes) -> None:
        lines[0] += 1
        if len(kept) < LINES:
            kept.append(line.decode("utf-8", "replace")[:2000])
        if asked.get("stop"):
            stop.set()

    call = Call(
        module="cProfile",
        args=["-o", "/dev/null", Reads(SCRIPT), act, Reads(facts), Writes(out)],
        limits=Limits(**asked.get("limits", {})),
        stop=stop,
    )
    started = time.monotonic()
    try:
        ended = executor.run(call, on_line=use, on_log=lambda line: None)
        found["exit"] = {**asdict(ended), "log_tail": ended.log_tail[-3000:]}
        if asked.get("load"):
            export_process.load_output(out)
    except PtebotError as error:
        found["error"] = f"{type(error).__name__}: {error.what}"
    found |= {"seconds": time.monotonic() - started, "lines": kept, "count": lines[0]}
    until = time.monotonic() + WAIT_SECONDS
    while (left := _left(name, psutil)) and time.monotonic() < until:
        time.sleep(0.02)
    found["left"] = left
    found["out"] = sorted(path.name for path in place.rglob("*"))
    found["link"] = out.is_symlink()
    return found


def _left(name: str, psutil: Any) -> list[int]:
    left = []
    for process in psutil.process_iter():
        try:
            if process.name() == name and process.status() != psutil.STATUS_ZOMBIE:
                left.append(process.pid)
        except psutil.Error:
            continue
    return left


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text())
    if spec["uid"] and os.geteuid() == 0:
        _become(spec["uid"])
    module, _, name = spec["executor"].partition(":")
    executor = getattr(importlib.import_module(module), name)(*spec["args"], **spec["options"])
    work = Path(spec["work"])
    data = work / "data"
    (data / "home/.ssh").mkdir(parents=True)
    (data / "jobs.db").write_text(spec["secret"])
    (data / "home/.ssh/id_ed25519").write_text(spec["secret"])
    name = "hx" + secrets.token_hex(5)
    outside = [Path("/dev/shm", name), Path("/tmp", name)]  # noqa: S108
    for path in outside:
        path.write_text(spec["secret"])
        path.chmod(0o666)
    os.mkfifo(work / "fifo")
    signals: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: signals.append(number))
    listening = os.open(work / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    with ExitStack() as stack:
        for path in outside:
            stack.callback(path.unlink, missing_ok=True)
        doors = Doors(stack, work, name)
        facts = {"pid": os.getpid(), "secret": spec["secret"], "data": str(data), "name": name}
        facts |= {"fifo": str(work / "fifo"), "temporary": str(outside[1]), "report": spec["report"], **spec["facts"]}
        facts |= {**doors.facts(), "abstract": name}
        told = work / "facts.json"
        told.write_text(json.dumps(facts))
        before = _state(data)
        found: dict[str, Any] = {}
        for number, (act, asked) in enumerate(spec["acts"].items()):
            found[act] = _run(executor, act, asked, told, work / f"place{number}", name)
        heard = doors.knocked() + (["fifo"] if os.read(listening, 1) else []) + (["signal"] if signals else [])
        print(json.dumps({"acts": found, "heard": heard, "untouched": before == _state(data), "rung": executor.rung}))


def _state(data: Path) -> list[tuple[str, int, int, float, str]]:
    def told(path: Path) -> tuple[str, int, int, float, str]:
        status = path.stat()
        return (str(path), status.st_mode, status.st_size, status.st_mtime, str(os.listxattr(path)))

    return sorted(map(told, data.rglob("*")))


if __name__ == "__main__":
    main()
