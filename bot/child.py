"""Runs one Python module as a child process that has no secrets; lines out, logs kept, always reaped.

Stage 3 of the way of one request: this is the parent's half of the wall between bot and exporter. In:
a module's name and its arguments, the paths among them marked as read or written. Out: bounded lines of its
standard output, its exit code and the end of its log. The child sees an environment made from an allowlist
(no token, no proxy, no user's HOME), runs in a scratch directory (so that no file of the current directory can
pass for a Python module), and is stopped together with all that it started whatever happens here. Started by root,
it runs as another user that may write nothing but its own folders (``bot.sandbox``); ``bot.leash`` takes the
network, and where the kernel has Landlock all other files, from it on every Linux.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bot import leash, lines
from bot.errors import OutputNotTrusted, SandboxUnavailable
from bot.sandbox import privileges, seccomp
from bot.sandbox.call import UNBOUND, Argument, Call, Conditions, Executor, Exit, Limits, Writes
from bot.sandbox.places import Room
from bot.sandbox.shared import SharedRoom, opened
from bot.sandbox.turns import turn
from bot.watch import Watch

MAX_LINE_BYTES = lines.MAX_LINE_BYTES
"""With the other bounds, for all that run children."""
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
class Start:
    """How a child is started, and what it may reach."""

    args: list[str]
    env: dict[str, str]
    options: dict[str, Any]
    """More arguments of ``subprocess.Popen``."""
    home: Path
    reads: list[str] = field(default_factory=list)
    outs: list[str] = field(default_factory=list)
    user: privileges.User | None = None
    locks: tuple[int, ...] = ()
    """Descriptors that the guard inside keeps open for as long as anything runs."""
    keep: bool = True
    """Whether what it wrote is put in its place when the block ends."""

    def wall(self, limits: Limits, *, needed: bool, own_user: bool | None = None) -> leash.Wall:
        """What ``bot.leash`` holds it to."""
        return leash.Wall(
            own_user=bool(self.user) if own_user is None else own_user,
            needed=needed,
            processes=limits.processes,
            # A page more, so that a look at its files tells that it was too much.
            file_bytes=None if limits.output_bytes is None else limits.output_bytes + 4096,
            cpus=None if limits.cpus is None else max(1, math.ceil(limits.cpus)),
            reads=tuple(self.reads),
            home=str(self.home),
            outs=tuple(self.outs),
            locks=self.locks,
        )


@contextmanager
def prepared(args: Sequence[Argument], name: str | None = None) -> Iterator[Start]:
    """What a child is started with; its folders go behind the block, and what it wrote comes in its place.

    Raises: as ``run_module``.
    """
    planned = privileges.plan()
    with ExitStack() as stack:
        locks = stack.enter_context(turn(name))
        room: Room | SharedRoom
        user = None
        options: dict[str, Any] = {}
        if planned.user is None:
            seccomp.close_to_own_user()
            room = SharedRoom()
            stack.callback(room.close)
        else:
            by_default = planned.name == privileges.DEFAULT
            user = stack.enter_context(privileges.held(planned.user, of_its_own=by_default))
            room = Room(user)
            stack.callback(room.close)
            stack.callback(privileges.end_all, user)  # before its folders go, whatever happens
            options = {"user": user.uid, "group": user.gid, "extra_groups": [], "umask": 0o022}
        # Python's own getpass looks here before it asks for an account, which cannot be looked up in there.
        names = {"USER": privileges.DEFAULT, "LOGNAME": privileges.DEFAULT, "TMPDIR": str(room.home)}
        start = Start(
            args=[],
            env=environment(room.home) | names,
            options={"cwd": room.home, "pass_fds": locks, **options},
            home=room.home,
            user=user,
            locks=locks,
        )
        written: list[tuple[Path, Path]] = []
        for arg in args:
            if isinstance(arg, Writes):
                written.append((room.writing(arg.path), arg.path))
                start.outs.append(str(written[-1][0].parent))
                start.args.append(str(written[-1][0]))
            elif isinstance(arg, str):
                start.args.append(arg)
            else:
                start.args.append(str(room.reading(arg.path, arg.texts)))
                start.reads += opened(Path(start.args[-1]))
        yield start
        if user is not None:
            privileges.end_all(user)
        for there, here in written if start.keep else ():
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
    An exception here (KeyboardInterrupt included) stops the child and all that it started first.

    Raises:
        SandboxTooWeak: PTEBOT_SANDBOX demands a stronger wall than can be had here.
        InvalidSettings: it names none.
        SandboxUnavailable: the child was to run as another user, and cannot.
        OutputNotTrusted: it left processes that cannot be ended, or wrote what is no plain file.
        InvalidModelDirectory, DiskFull, OutputNotWritable: its files cannot be put where it, or we, can use them.
    """
    call = Call(
        module=module,
        args=args,
        limits=conditions.limits,
        name=conditions.name,
        stop=conditions.stop,
        owner=conditions.owner,
    )
    executor = conditions.executor or _demanded()
    if executor is not None:
        return executor.run(call, on_line=on_line, on_log=on_log)
    return run_here(call, on_line=on_line, on_log=on_log)


def _demanded() -> Executor | None:
    """What PTEBOT_SANDBOX asks for; None: nothing, and what is there is used."""
    if not os.environ.get("PTEBOT_SANDBOX", "").strip():
        return None
    from bot.sandbox import ladder

    return ladder.demanded()


def run_here(
    call: Call, *, on_line: Callable[[bytes], None], on_log: Callable[[str], None], needed: bool = False
) -> Exit:
    """Run it as a child of this process, behind what this kernel has (``bot.leash``); as ``run_module``.

    Args:
        needed: whether the module shall not run at all where files and network cannot be kept from it.
    """
    with prepared(call.args, call.name) as start:
        command = leash.command(call.module, start.args, start.wall(call.limits, needed=needed))
        return supervised(command, start, call, on_line=on_line, on_log=on_log)


def supervised(
    command: list[str],
    start: Start,
    call: Call,
    *,
    on_line: Callable[[bytes], None],
    on_log: Callable[[str], None],
    gently: bool = True,
) -> Exit:
    """Run a command whose process ends, with all that it started, when its standard input closes.

    Args:
        gently: whether it passes an interrupt on to the module and waits for it.
    """
    tail: deque[str] = deque(maxlen=LOG_LINES)

    def keep(line: bytes) -> None:
        text = line.decode("utf-8", "replace")[:LOG_LINE_CHARACTERS]
        tail.append(text)
        on_log(text)

    child = _started(command, start)
    assert child.stdout and child.stderr  # noqa: S101 - for the type checker: both were asked for
    over = threading.Event()
    reader = threading.Thread(
        target=lines.each, args=(child.stderr, keep, over), name=f"{call.module} log", daemon=True
    )
    reader.start()
    ender = threading.Thread(target=_end_family, args=(child, start, over), name=f"{call.module} end", daemon=True)
    ender.start()
    watch = Watch(
        child.pid,
        call.limits,
        lambda: _end(child),
        uid=start.user.uid if start.user else None,
        stop_event=call.stop,
        folders=[start.home, *map(Path, start.outs)],
    )
    try:
        lines.each(child.stdout, on_line, over)
        code = child.wait()
    finally:
        watch.stop()
        _stop(child, gently=gently)
        ender.join()  # or it would end the next child of the same user
    reader.join(timeout=GRACE_SECONDS)
    watch.look_at_files()
    start.keep = watch.reason is None
    return Exit(
        code=code,
        log_tail="\n".join(tail),
        peak_bytes=watch.peak_bytes,
        too_much_memory=watch.reason == "memory",
        too_long=watch.reason == "time",
        too_much_output=watch.reason == "output",
        too_many_processes=watch.reason == "processes",
        stopped=watch.reason == "stop",
    )


def _started(command: list[str], start: Start) -> subprocess.Popen[bytes]:
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


def _end_family(child: subprocess.Popen[bytes], start: Start, over: threading.Event) -> None:
    """When the child has ended, end what it started, which could hold its output open for as long as it likes."""
    child.wait()
    _signal_group(child, signal.SIGKILL)
    if start.user is not None:
        with suppress(OutputNotTrusted):  # asked again before anything is taken from it
            privileges.end_all(start.user)
    over.set()


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the child, which ends all that it started first; or, where it does not, its group."""
    with suppress(OSError, ValueError):
        if child.stdin:
            child.stdin.close()
    try:
        child.wait(timeout=GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        _signal_group(child, signal.SIGKILL)


def _stop(child: subprocess.Popen[bytes], *, gently: bool) -> None:
    """End the child and all that it started: interrupted first, so that it can remove its staging, then killed."""
    try:
        if gently and child.poll() is None:
            _signal_group(child, signal.SIGINT)
            child.wait(timeout=GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:
        _end(child)
        _signal_group(child, signal.SIGKILL)
        child.wait()


def _signal_group(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)
