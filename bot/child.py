"""Runs one Python module as a child process that has no secrets; lines out, logs kept, always reaped.

Stage 3 of the way of one request: this is the parent's half of the wall between bot and exporter. In:
a module's name and its arguments, the paths among them marked as read or written. Out: bounded lines of its
standard output, its exit code and the end of its log. The child sees an environment made from an allowlist
(no token, no proxy, no user's HOME), runs in a scratch directory (so that no file of the current directory can
pass for a Python module), and is stopped together with its process group whatever happens here. Started by root,
it runs as another user that may write nothing but its own folders (``bot.sandbox``); ``bot.leash`` takes the
network from it on every Linux.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from bot import leash
from bot.errors import OutputNotTrusted, SandboxUnavailable
from bot.sandbox import privileges, seccomp
from bot.sandbox.call import UNBOUND, Argument, Call, Conditions, Exit, Writes
from bot.sandbox.places import Room
from bot.watch import Watch

MAX_LINE_BYTES = 64 * 1024
"""A longer line of output is dropped: no message of ours comes near it."""
LOG_LINES = 400
LOG_LINE_CHARACTERS = 4096
GRACE_SECONDS = 3.0
"""How long an interrupted child may take to remove what it staged before it is killed."""

PASSED_ON = ("PATH", "LANG", "LC_ALL", "TMPDIR", "OMP_NUM_THREADS")
"""The only variables that a child inherits. To pass on another, make sure that it can hold no secret."""
FIXED = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONHASHSEED": "0", "PYTHONUNBUFFERED": "1"}


def environment(home: Path) -> dict[str, str]:
    """The child's whole environment."""
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {"LANG": "C.UTF-8", **passed, **FIXED, "HOME": str(home)}


@dataclass(kw_only=True)
class _Start:
    """How a child is started."""

    args: list[str]
    env: dict[str, str]
    options: dict[str, Any]
    user: privileges.User | None = None


@contextmanager
def _prepared(args: Sequence[Argument]) -> Iterator[_Start]:
    """What a child is started with; its folders go behind the block, and what it wrote comes in its place.

    Raises: as ``run_module``.
    """
    planned = privileges.plan()
    if planned.user is None:
        seccomp.close_to_own_user()
        words = [arg if isinstance(arg, str) else str(arg.path.absolute()) for arg in args]
        with tempfile.TemporaryDirectory(prefix="ptebot-home-") as home:
            yield _Start(args=words, env=environment(Path(home)), options={"cwd": home})
        return
    with ExitStack() as stack:
        by_default = planned.name == privileges.DEFAULT
        user = stack.enter_context(privileges.held(planned.user, of_its_own=by_default))
        room = Room(user)
        stack.callback(room.close)
        stack.callback(privileges.end_all, user)  # before its folders go, whatever happens
        words = []
        written: list[tuple[Path, Path]] = []
        for arg in args:
            if isinstance(arg, Writes):
                written.append((room.writing(arg.path), arg.path))
                words.append(str(written[-1][0]))
            else:
                words.append(arg if isinstance(arg, str) else str(room.reading(arg.path)))
        # Python's own getpass looks here before it asks for an account, which this number need not have.
        names = {"USER": privileges.DEFAULT, "LOGNAME": privileges.DEFAULT}
        env = environment(room.home) | names | {"TMPDIR": str(room.home)}
        options = {"cwd": room.home, "user": user.uid, "group": user.gid, "extra_groups": [], "umask": 0o022}
        yield _Start(args=words, env=env, options=options, user=user)
        privileges.end_all(user)
        for there, here in written:
            room.take(there, here)


def run_module(
    module: str,
    args: Sequence[Argument],
    *,
    on_line: Callable[[bytes], None],
    on_log: Callable[[str], None] = lambda line: None,
    conditions: Conditions = UNBOUND,
) -> Exit:
    """Run ``python -m module args`` to its end, or to the moment when it passes a limit of the conditions.

    ``on_line`` gets each line of standard output without its newline, at most ``MAX_LINE_BYTES`` long.
    An exception here (KeyboardInterrupt included) stops the child and its process group first.

    Raises:
        SandboxUnavailable: the child was to run as another user, and cannot.
        OutputNotTrusted: it left processes that cannot be ended, or wrote what is no plain file.
        InvalidModelDirectory, DiskFull, OutputNotWritable: its files cannot be put where it, or we, can use them.
    """
    call = Call(module=module, args=args, limits=conditions.limits, name=conditions.name, stop=conditions.stop)
    if conditions.executor is not None:
        return conditions.executor.run(call, on_line=on_line, on_log=on_log)
    return run_here(call, on_line=on_line, on_log=on_log)


def run_here(call: Call, *, on_line: Callable[[bytes], None], on_log: Callable[[str], None]) -> Exit:
    """Run it as a child of this process; as ``run_module``."""
    tail: deque[str] = deque(maxlen=LOG_LINES)

    def keep(line: bytes) -> None:
        text = line.decode("utf-8", "replace")[:LOG_LINE_CHARACTERS]
        tail.append(text)
        on_log(text)

    module = call.module
    with _prepared(call.args) as start:
        own_user = [leash.OWN_USER] if start.user else []
        child = _started([sys.executable, "-P", "-m", "bot.leash", *own_user, module, *start.args], start)
        assert child.stdout and child.stderr  # noqa: S101 - for the type checker: both were asked for
        reader = threading.Thread(target=_each_line, args=(child.stderr, keep), name=f"{module} log", daemon=True)
        reader.start()
        ender = threading.Thread(target=_end_family, args=(child, start), name=f"{module} end", daemon=True)
        ender.start()
        watch = _watched(child, start, call.limits.memory_bytes)
        try:
            _each_line(child.stdout, on_line)
            code = child.wait()
        finally:
            if watch:
                watch.stop()
            _stop(child)
            ender.join()  # or it would end the next child of the same user
        reader.join(timeout=GRACE_SECONDS)
    peak, exceeded = (watch.peak_bytes, watch.exceeded) if watch else (None, False)
    return Exit(code=code, log_tail="\n".join(tail), peak_bytes=peak, too_much_memory=exceeded)


def _started(command: list[str], start: _Start) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=start.env,
            start_new_session=True,
            **start.options,
        )
    except PermissionError as error:
        raise SandboxUnavailable(f"A process of another user cannot be started: {error.strerror}.") from None


def _end_family(child: subprocess.Popen[bytes], start: _Start) -> None:
    """When the child has ended, end what it started, which could hold its output open for as long as it likes."""
    child.wait()
    _signal_group(child, signal.SIGKILL)
    if start.user is not None:
        with suppress(OutputNotTrusted):  # asked again before anything is taken from it
            privileges.end_all(start.user)


def _watched(child: subprocess.Popen[bytes], start: _Start, limit_bytes: int | None) -> Watch | None:
    if limit_bytes is None:
        return None
    uid = start.user.uid if start.user else None
    return Watch(child.pid, limit_bytes, lambda: _signal_group(child, signal.SIGKILL), uid=uid)


def _each_line(stream: IO[bytes], use: Callable[[bytes], None]) -> None:
    """Give every line to ``use``; one longer than ``MAX_LINE_BYTES`` is dropped whole."""
    dropping = False
    while part := stream.readline(MAX_LINE_BYTES):
        whole = part.endswith(b"\n")
        if not dropping and (whole or len(part) < MAX_LINE_BYTES):
            use(part.rstrip(b"\r\n"))
        dropping = not whole


def _stop(child: subprocess.Popen[bytes]) -> None:
    """End the child's whole group: interrupted first, so that it can remove its staging, then killed."""
    try:
        if child.poll() is None:
            _signal_group(child, signal.SIGINT)
            child.wait(timeout=GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:
        _signal_group(child, signal.SIGKILL)
        child.wait()
        if child.stdin:
            child.stdin.close()


def _signal_group(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)
