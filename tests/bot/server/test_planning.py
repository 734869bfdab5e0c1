"""What one job exports: what the event asks for, then the owners' file, then the server's settings."""

from __future__ import annotations

from typing import Any

import pytest

from bot.config import Config
from bot.fetch import Resolved
from bot.server.planning import spec_of
from bot.server.records import Asked, Asker, JobRecord
from bot.server.settings import Settings
from exporter.errors import InvalidSpec
from exporter.spec import ExportSpec

FOUND = Resolved(repo_id="acme/tiny", revision="1" * 40, tree={})


def spec(options: dict[str, Any], owners: dict[str, Any], **settings: Any) -> ExportSpec:
    job = JobRecord(
        id="0" * 32,
        asked=Asked(repo_id="acme/tiny", sha="1" * 40, options=options),
        asker=Asker(trigger="comment"),
        state="running",
        priority=0,
    )
    found = spec_of(job, FOUND, Config.model_validate(owners), Settings(**settings))
    assert isinstance(found, ExportSpec)
    return found


OWNERS = {"precision": "auto", "max-kl": 0.1, "calibration": "docs/use.txt", "cache": "int8"}


def test_layers_of_a_job() -> None:
    assert spec({}, {}).precisions == ("fp32", "8da4w")
    found = spec({}, {}, precisions=("auto",), max_size=10**8, embedding="4w")
    assert (found.precisions, found.max_size, found.embedding) == (("auto",), 10**8, "4w")
    found = spec({}, OWNERS, precisions=("auto",), max_size=10**8)
    assert (found.max_kl, found.max_size, found.calibration, found.cache) == (0.1, None, ("docs/use.txt",), "int8")
    found = spec({"precisions": ["fp32"], "cache": "fp32"}, OWNERS)
    assert (found.precisions, found.max_kl, found.cache) == (("fp32",), None, "fp32")


def test_auto_takes_the_budget_of_a_lower_layer() -> None:
    assert spec({"precisions": ["auto"]}, {"max-kl": 0.2}).max_kl == 0.2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"precisions": ["auto"]}, "precision auto needs a budget.*the request asked for it without one"),
        ({"max_kl": 0.1}, "max-kl of the request: it is a budget of precision auto"),
    ],
)
def test_what_does_not_go_together_is_a_typed_failure(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidSpec, match=said):
        spec(options, {})
