"""Which failures pass by themselves, which concern one backend only, and how any of them is kept. Pure."""

from __future__ import annotations

from bot.errors import (
    DatabaseUnavailable,
    DownloadDamaged,
    ExporterFailed,
    ExportTimedOut,
    HubUnreachable,
    LeaseLost,
    MemoryLimitReached,
    OutputNotTrusted,
    OutputTooLarge,
    PublishFailed,
    RemoteJobFailed,
)
from bot.hubapi import scrub
from bot.server.records import Failure
from exporter.errors import DiskFull, NotEnoughMemory, PtebotError, UnsupportedCombination

PASSING: tuple[type[PtebotError], ...] = (
    HubUnreachable,
    DownloadDamaged,
    PublishFailed,
    DiskFull,
    DatabaseUnavailable,
    RemoteJobFailed,
    LeaseLost,
)
"""Tried again after a while: the network, the Hub's limits, others who write at the same time, a disk that is full, a
machine that stood still."""
OF_ONE_BACKEND: tuple[type[PtebotError], ...] = (
    ExporterFailed,
    ExportTimedOut,
    MemoryLimitReached,
    NotEnoughMemory,
    OutputNotTrusted,
    OutputTooLarge,
    UnsupportedCombination,
)
"""What befalls one backend's export need not befall the next one's; everything else is the model's or the machine's."""
MOST_CHARACTERS = 4_000


def passes(error: BaseException) -> bool:
    """Whether the same again may go well."""
    return isinstance(error, PASSING)


def as_record(error: BaseException, *secrets: str | None) -> Failure:
    """The failure as it is kept and shown: bounded, and without anything that looks like a secret."""
    if not isinstance(error, PtebotError):
        what = f"{type(error).__name__}: {error}"
        error = PtebotError(what)
        name = "UnexpectedFailure"
    else:
        name = type(error).__name__
    what = scrub(error.what).encode("utf-8", "replace").decode()
    for secret in secrets:
        what = what.replace(secret, "***") if secret else what
    return Failure(
        name=name,
        exit_code=error.exit_code,
        title=error.title,
        what=what[:MOST_CHARACTERS],
        advice=scrub(error.advice)[:MOST_CHARACTERS],
    )


def as_error(failure: Failure) -> PtebotError:
    """The error again, of its class where that is known."""
    from exporter.errors import all_errors

    classes = {cls.__name__: cls for cls in all_errors()}
    return classes.get(failure.name, PtebotError)(failure.what, remedy=failure.advice)
