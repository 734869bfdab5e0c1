"""Fences around libraries that read hostile input: whatever they raise leaves as a typed failure.

Used by every module of stage 3 (checkpoint) of the way of one request.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import transformers

from exporter.errors import NotEnoughMemory, PtebotError

_LOG = logging.getLogger(__name__)
_LONGEST = 300


def shown(text: object, longest: int = _LONGEST) -> str:
    """Text from a model repository, fit for a message: one line, printable characters only, cut to ``longest``."""
    line = " ".join(str(text).split())
    line = "".join(character if character.isprintable() else "?" for character in line)
    return line if len(line) <= longest else line[: longest - 3] + "..."


@contextmanager
def guarded(failure: type[PtebotError], what: str) -> Iterator[None]:
    """Turn anything that the block raises into ``failure``, saying ``what`` went wrong and the reason in one line.

    Typed failures pass. So do an interrupt and an exit; a Rust panic (a BaseException of its own in pyo3) does
    not. Running out of memory becomes NotEnoughMemory.
    """
    try:
        yield
    except (PtebotError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except MemoryError:
        raise NotEnoughMemory(f"{what}: out of memory.") from None
    except BaseException as error:
        _LOG.debug("%s", what, exc_info=True)
        reason = shown(error).rstrip(".") or type(error).__name__
        if "can't allocate memory" in reason:
            raise NotEnoughMemory(f"{what}: {reason}.") from None
        raise failure(f"{what}: {reason}.") from None


@contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings and transformers' own logs and progress bars off the screen inside the block."""
    logs = transformers.logging
    verbosity, bars = logs.get_verbosity(), logs.is_progress_bar_enabled()
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logs.set_verbosity(verbosity)
        if bars:
            logs.enable_progress_bar()
