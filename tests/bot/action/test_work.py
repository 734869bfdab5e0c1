"""Who goes first: what a comment, the inputs, the configuration and ptebot say of one model, as one spec."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bot.action.inputs import Inputs
from bot.action.work import Work, plan
from bot.config import Config
from bot.errors import InvalidInput
from bot.triggers.request import Ignored, Origin, Overrides, Request
from exporter.spec import ExportSpec, ModelRef

ORIGIN = Origin(event="issue_comment", repository="acme/code", actor="acme")


def works(config: dict[str, Any], asked: Overrides = Overrides(), **given: Any) -> tuple[Work, ...]:  # noqa: B008
    found = plan(
        Request(verb="export", origin=ORIGIN, overrides=asked),
        Inputs(workspace=Path("/nowhere"), **given),
        Config.model_validate({"model": "acme/tiny", **config}),
        lambda _: None,
    )
    assert not isinstance(found, Ignored)
    return found


def spec(config: dict[str, Any], asked: Overrides = Overrides(), **given: Any) -> ExportSpec:  # noqa: B008
    (work,) = works(config, asked, **given)
    return work.spec(ModelRef())


def test_where_nobody_says_anything_ptebot_does() -> None:
    assert spec({}) == ExportSpec()


def test_a_comment_goes_before_inputs_and_they_before_the_configuration() -> None:
    config = {"precision": "auto", "max-kl": 0.1, "cache": "int8", "embedding": "4w", "calibration": ["use.txt"]}
    assert spec(config) == ExportSpec(
        precisions=("auto",), max_kl=0.1, cache="int8", embedding="4w", calibration=("use.txt",)
    )
    found = spec(config, Overrides(max_size=10**8, cache="fp32"), embedding="8w", calibration=("other.txt",))
    assert (found.max_kl, found.max_size, found.cache) == (None, 10**8, "fp32")
    assert (found.embedding, found.calibration) == ("8w", ("other.txt",))
    assert spec(config, precisions=("8da4w",)).max_kl is None


@pytest.mark.parametrize(
    ("config", "asked", "said"),
    [
        ({}, Overrides(precisions=("auto",)), "precision auto needs a budget.*the event asked for it without one"),
        ({}, Overrides(max_kl=0.1), "max-kl of the event: it is a budget of precision auto"),
        ({"max-size": "90MB"}, Overrides(), "max-size of the configuration: it is a budget"),
    ],
)
def test_what_does_not_go_together_is_told_before_any_work(config: dict[str, Any], asked: Overrides, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        works(config, asked)
