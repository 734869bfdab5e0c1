"""What runs the exporter, and under which limits: the types between whoever asks for an export and the sandboxes.

Stage 3 of the way of one request. An executor runs one module over marked paths (``Reads``,
``Writes``) and gives back how it ended; it may be a child of this process, a container, or a job on
another machine. Everything behind it is hostile: what it printed and what it wrote are checked by the caller.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from exporter.spec import ModelRef

RungName = Literal["docker", "sibling", "bubblewrap", "landlock", "none"]
"""The walls that an export can run behind, the strongest first (``bot.sandbox.ladder``)."""


@dataclass(frozen=True)
class Reads:
    """An argument: a file or a model directory that the module reads."""

    path: Path
    of: ModelRef | None = None
    """The repository and commit on the Hub that hold the same model, where there is one: a machine that has them at
    hand need not be sent the directory."""
    texts: tuple[str, ...] = ()
    """Of a model directory, the owner's calibration texts: files that may lie below its top."""


@dataclass(frozen=True)
class Writes:
    """An argument: what the module makes, in a directory that exists."""

    path: Path


Argument = str | Reads | Writes


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a run may use; None: what the machine has."""

    memory_bytes: int | None = None
    cpus: float | None = None
    processes: int = 4096
    """Threads count too."""
    seconds: float | None = None
    """Wall time; after that it is ended."""
    output_bytes: int | None = None
    """Everything below what it writes, and its scratch folder, each."""


@dataclass(frozen=True, kw_only=True)
class Exit:
    """How a run ended."""

    code: int
    """The exit status; negative: the signal that killed it."""
    log_tail: str
    """The last lines of its standard error."""
    peak_bytes: int | None = None
    """The most memory that it was seen to hold; only where it was given a limit."""
    too_much_memory: bool = False
    """Whether it was ended for that."""
    too_long: bool = False
    """Whether it was ended because its time was over."""
    too_much_output: bool = False
    """Whether it was ended for what it wrote."""
    too_many_processes: bool = False
    """Whether it was ended for what it started."""
    stopped: bool = False
    """Whether it was ended because ``Call.stop`` was set."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """One run of one module."""

    module: str
    args: Sequence[Argument]
    limits: Limits = field(default_factory=Limits)
    name: str | None = None
    """Names the run for good, in ``[a-z0-9-]{1,50}``: a second call of the same name takes over what a killed process
    of ours left running, or ends it before it starts anew. Two living processes never use one name at once."""
    stop: threading.Event | None = None
    """Set from another thread, it ends the run within seconds."""
    owner: str | None = None
    """Whose run it is, in ``[a-z0-9-]{1,50}``: of one owner there is one run at a time, and what a killed process left
    under another name is ended first."""


class Executor(Protocol):
    """Something that can run one module over directories."""

    @property
    def rung(self) -> str:
        """Its name on the ladder (``bot.sandbox.ladder.RUNGS``)."""

    def run(self, call: Call, *, on_line: Callable[[bytes], None], on_log: Callable[[str], None]) -> Exit:
        """Run it to its end; as ``bot.child.run_module``.

        Raises:
            SandboxUnavailable: it cannot be started behind this wall.
            OutputNotTrusted: it wrote what is no plain file.
            InvalidModelDirectory, DiskFull, OutputNotWritable: its files cannot be put where it, or we, can use them.
        """


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """How exports of one job run."""

    executor: Executor | None = None
    """None: what PTEBOT_SANDBOX demands, or else a child of this process, behind what its kernel has."""
    limits: Limits = field(default_factory=Limits)
    name: str | None = None
    stop: threading.Event | None = None
    owner: str | None = None


UNBOUND = Conditions()
"""On this machine, with all that it has."""


def within(memory_bytes: int | None) -> Conditions:
    """On this machine, with a limit on memory alone."""
    return Conditions(limits=Limits(memory_bytes=memory_bytes))
