"""Which models an event is about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bot import config
from bot.config import Config
from bot.triggers import github
from bot.triggers.request import Ignored, Request
from bot.triggers.select import select
from tests.bot.triggers import events

CONFIG = """\
models:
  - model: models/tiny
  - model: acme/hub
    branches: [main, "train/**"]
    paths: ["src/**", "!**/*.md"]
"""


@pytest.fixture
def configured(tmp_path: Path) -> Config:
    return _config(CONFIG, tmp_path)


def _config(text: str, tmp_path: Path) -> Config:
    path = tmp_path / ".ptebot.yml"
    path.write_text(text)
    return config.load(path, required=True)


def _select(given: Config, name: str, payload: dict[str, Any], model: str | None = None) -> list[str] | str:
    request = github.read(name, payload, events.ENV)
    assert isinstance(request, Request)
    found = select(given, request, model=model, is_folder=lambda one: one.startswith("models/"))
    return found.reason if isinstance(found, Ignored) else [one.model for one in found]


def _push(*paths: str, branch: str = "main") -> dict[str, Any]:
    return events.push(branch, commits=[{"added": list(paths), "modified": [], "removed": []}])


@pytest.mark.parametrize(
    ("paths", "wanted"),
    [
        (["models/tiny/model.safetensors"], ["models/tiny"]),
        (["models/tiny/sub/x", "src/train.py"], ["models/tiny", "acme/hub"]),
        (["src/train.py", "src/README.md"], ["acme/hub"]),
        (["src/README.md"], "no changed file belongs to models/tiny, acme/hub"),
        (["models/tinyer/x"], "no changed file belongs to models/tiny, acme/hub"),
        (["README.md"], "no changed file belongs to models/tiny, acme/hub"),
        ([".ptebot.yml"], ["models/tiny"]),
    ],
)
def test_a_push_exports_what_it_touches(paths: list[str], wanted: Any, configured: Config) -> None:
    assert _select(configured, "push", _push(*paths)) == wanted


def test_a_push_exports_from_its_branches_only(configured: Config) -> None:
    everything = ["models/tiny/x", "src/x"]
    assert _select(configured, "push", _push(*everything, branch="train/a/b")) == ["acme/hub"]
    assert "pushes to topic export nothing" in _select(configured, "push", _push(*everything, branch="topic"))


def test_without_known_paths_every_model_of_the_branch_counts(configured: Config) -> None:
    assert _select(configured, "push", events.push(forced=True)) == ["models/tiny", "acme/hub"]


def test_a_model_of_the_hub_is_exported_by_any_path() -> None:
    assert _select(Config(), "push", _push("anything"), "acme/hub") == ["acme/hub"]
    assert "no changed file" in _select(Config(), "push", _push("anything"), "models/tiny")
    assert _select(Config(), "push", _push("anything"), ".") == ["."]


@pytest.mark.parametrize("name", ["schedule", "workflow_dispatch", "release", "issue_comment"])
def test_other_events_are_about_every_model(name: str, configured: Config) -> None:
    payload = {"action": "published", "release": {"tag_name": "v1"}} if name == "release" else {}
    payload = events.comment() if name == "issue_comment" else payload
    assert _select(configured, name, payload) == ["models/tiny", "acme/hub"]
    assert _select(configured, name, payload, "acme/new") == ["acme/new"]
    assert _select(Config(), name, payload) == []


def test_opting_out(tmp_path: Path) -> None:
    off = _config("model: acme/hub\nenabled: false\n", tmp_path)
    for name, payload in (("schedule", {}), ("issue_comment", events.comment()), ("push", events.push())):
        assert "`enabled: false`" in _select(off, name, payload)
        assert "`enabled: false`" in _select(off, name, payload, "acme/hub")
    silent = _config("model: acme/hub\ncomments: false\n", tmp_path)
    assert "`comments: false`" in _select(silent, "issue_comment", events.comment())
    assert _select(silent, "schedule", {}) == ["acme/hub"]
    one = _config("models: [{model: a/b, enabled: false}, {model: c/d}]\n", tmp_path)
    assert _select(one, "schedule", {}) == ["c/d"]
    assert "`enabled: false` for a/b" in _select(one, "issue_comment", events.comment(), "a/b")
