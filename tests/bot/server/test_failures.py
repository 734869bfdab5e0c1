"""Failures as they are kept: typed, bounded, without secrets, and the same again when they are read."""

from __future__ import annotations

import pytest

from bot.errors import ExportTimedOut, HubUnreachable, LeaseLost, NotAuthorized, PublishFailed
from bot.server import failures
from exporter.errors import DiskFull, PickledWeightsOnly, PtebotError


@pytest.mark.parametrize("error", [HubUnreachable("x"), PublishFailed("x"), DiskFull("x"), LeaseLost("x")])
def test_what_passes_by_itself(error: PtebotError) -> None:
    assert failures.passes(error)


@pytest.mark.parametrize("error", [NotAuthorized("x"), PickledWeightsOnly("x"), ExportTimedOut("x"), ValueError("x")])
def test_what_does_not(error: BaseException) -> None:
    assert not failures.passes(error)


def test_a_typed_failure_comes_back_as_it_was() -> None:
    kept = failures.as_record(ExportTimedOut("ended after 60 s", remedy="wait"))
    again = failures.as_error(kept)
    assert type(again) is ExportTimedOut and (again.what, again.advice) == ("ended after 60 s", "wait")


def test_secrets_and_floods_are_not_kept() -> None:
    error = NotAuthorized(f"hf_abcdefghijklmnop and s3cret at https://u:pw@hub/x?sig=1 {'y' * 10_000}")
    kept = failures.as_record(error, "s3cret", None)
    assert not {word for word in ("hf_abc", "s3cret", "u:pw", "sig=1") if word in kept.what}
    assert len(kept.what) <= failures.MOST_CHARACTERS


def test_a_defect_is_told_as_one() -> None:
    kept = failures.as_record(KeyError("x"))
    assert (kept.name, kept.exit_code, kept.title) == ("UnexpectedFailure", 1, PtebotError.title)
    assert "KeyError" in kept.what and isinstance(failures.as_error(kept), PtebotError)
