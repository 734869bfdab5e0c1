"""Which wall an export runs behind: the rungs from the strongest down, what this machine has of them, and the choice.

Stage 3 of the way of one request, on the parent's side of the wall. In: the weakest rung that will do and the image
for containers. Out: an executor of the strongest rung that is there, or a refusal that names what is missing. Each
rung is tried, not guessed: what is promised and not in force would be worse than nothing. To add a rung: a line in
``RUNGS`` and one in ``_RUNGS``, and the name in ``bot.sandbox.call.RungName``.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from bot.errors import InvalidSettings, SandboxTooWeak, SandboxUnavailable
from bot.sandbox import privileges
from bot.sandbox.call import Call, Executor, Exit, RungName

RUNGS: tuple[RungName, ...] = ("docker", "sibling", "bubblewrap", "landlock", "none")
"""The strongest first."""
VARIABLE, IMAGE_VARIABLE = "PTEBOT_SANDBOX", "PTEBOT_IMAGE"
"""The weakest rung that will do, and the image of the container rungs, for commands without the server's settings."""


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One rung on this machine."""

    name: RungName
    why_not: str | None
    """None: it is there."""
    to_have_it: str
    """What to add where it is not."""

    @property
    def available(self) -> bool:
        """Whether exports can run behind it here."""
        return self.why_not is None


@dataclass(frozen=True, kw_only=True)
class Local:
    """A child of this process, as ``bot.child.run_here`` runs it."""

    needed: bool
    """Whether it does not run at all without Landlock and the filter of system calls."""

    @property
    def rung(self) -> str:
        """Its name on the ladder."""
        return "landlock" if self.needed else "none"

    def run(self, call: Call, *, on_line: Callable[[bytes], None], on_log: Callable[[str], None]) -> Exit:
        """As ``Executor.run``."""
        from bot import child

        return child.run_here(call, on_line=on_line, on_log=on_log, needed=self.needed)


def probe(image: str = "") -> list[Rung]:
    """Every rung, tried; the answer is kept for as long as this process lives.

    Args:
        image: that of the container rungs; '' leaves them out.
    """
    return [_look(name, image) for name in RUNGS]


def _look(name: RungName, image: str) -> Rung:
    return Rung(
        name=name,
        why_not=_why_not(name, image, os.environ.get(privileges.VARIABLE)),
        to_have_it=_RUNGS[name].to_have_it,
    )


@functools.lru_cache(maxsize=64)
def _why_not(name: RungName, image: str, _user: str | None) -> str | None:
    return _RUNGS[name].why_not(image)


def chosen(minimum: RungName, *, image: str = "") -> Executor:
    """An executor of the strongest rung that this machine has.

    Raises:
        SandboxTooWeak: that one is weaker than ``minimum``.
    """
    missing = []
    for name in RUNGS[: RUNGS.index(minimum) + 1]:
        found = _look(name, image)
        if found.available:
            return _RUNGS[name].make(image)
        missing.append(f"{name}: {found.why_not}")
    raise SandboxTooWeak(f"{minimum} or stronger is demanded. {'; '.join(missing)}.")


def demanded(environ: Mapping[str, str] = os.environ) -> Executor | None:
    """What PTEBOT_SANDBOX asks for; None where it asks for nothing, or for no wall.

    Raises:
        InvalidSettings: it names no rung.
        SandboxTooWeak: as ``chosen``.
    """
    wanted = environ.get(VARIABLE, "").strip()
    if wanted in ("", "none"):
        return None
    if wanted not in get_args(RungName):
        raise InvalidSettings(f"{VARIABLE} is {wanted[:40]!r}; it is one of {', '.join(RUNGS)}.")
    return chosen(wanted, image=environ.get(IMAGE_VARIABLE, "").strip())  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class _Kind:
    why_not: Callable[[str], str | None]
    make: Callable[[str], Executor]
    to_have_it: str


def _container(module: str, name: str, to_have_it: str) -> _Kind:
    """A rung of containers; its client is imported when somebody asks for it."""

    def executor() -> Any:
        return getattr(importlib.import_module(module), name)

    def make(image: str) -> Executor:
        made: Executor = executor()(image)
        return made

    def why_not(image: str) -> str | None:
        if not image:
            return f"no image is named ({IMAGE_VARIABLE})"
        try:
            found: str | None = executor().available(image)
        except (ImportError, AttributeError):
            return "this ptebot is without it"
        return found

    return _Kind(
        why_not=why_not,
        make=make,
        to_have_it=f"{to_have_it}, and name the image by digest in {IMAGE_VARIABLE}.",
    )


def _bubblewrap() -> Any:
    from bot.sandbox.bubblewrap import BubblewrapExecutor

    return BubblewrapExecutor


def _landlock_why_not(_image: str) -> str | None:
    """Tried with a child that tries."""
    from bot.sandbox import landlock

    if landlock.abi() < 1:
        return landlock.why_not()
    return probed(Local(needed=True))


def probed(executor: Executor, kept: Sequence[str] = ("network", "files", "processes")) -> str | None:
    """What of ``kept`` ``bot.sandbox.probe`` could do behind a wall all the same; None: nothing."""
    lines: list[bytes] = []
    log: list[str] = []
    try:
        ended = executor.run(Call(module="bot.sandbox.probe", args=[]), on_line=lines.append, on_log=log.append)
        said = json.loads(lines[-1])
    except SandboxUnavailable as error:
        return error.what
    except (IndexError, ValueError):
        return f"a trial ended with {ended.code}: {' '.join(log)[-300:] or 'no reason'}"
    open_ = [name for name in kept if said.get(name)]
    return f"a trial found open: {', '.join(open_)}" if open_ else None


_RUNGS: dict[RungName, _Kind] = {
    "docker": _container("bot.sandbox.docker", "DockerExecutor", "Start a Docker engine that this user may use"),
    "sibling": _container(
        "bot.sandbox.sibling", "SiblingExecutor", "Run ptebot in a container that has the engine's socket"
    ),
    "bubblewrap": _Kind(
        why_not=lambda _: _bubblewrap().available(""),
        make=lambda _: _bubblewrap()(),
        to_have_it="Install bubblewrap (Debian: apt-get install bubblewrap) where user namespaces are allowed.",
    ),
    "landlock": _Kind(
        why_not=_landlock_why_not,
        make=lambda _: Local(needed=True),
        to_have_it="Run Linux 5.13 or newer with Landlock turned on (lsm=landlock,... when it boots).",
    ),
    "none": _Kind(why_not=lambda _: None, make=lambda _: Local(needed=False), to_have_it=""),
}
