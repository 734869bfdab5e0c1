"""action.yml and the pages about it are what the code's tables say, and action.yml is one that GitHub takes."""

from __future__ import annotations

import re

import yaml

from bot import docs
from bot.action import pages
from bot.action.inputs import INPUTS, read
from bot.action.outputs import OUTPUTS


def test_action_yml_is_the_tables() -> None:
    action = yaml.safe_load((docs.ROOT / "action.yml").read_text(encoding="utf-8"))
    assert action["runs"] == {"using": "docker", "image": "Dockerfile"}
    assert (docs.ROOT / "Dockerfile").exists()
    assert list(action["inputs"]) == [one.name for one in INPUTS]
    assert list(action["outputs"]) == [one.name for one in OUTPUTS]
    for one in INPUTS:
        declared = action["inputs"][one.name]
        assert declared["default"] == one.default and isinstance(declared["default"], str)
        assert declared["description"].startswith(one.description) and one.allowed in declared["description"]
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", one.name)
    assert len(action["description"]) <= 125, "the Marketplace takes no more"
    assert action["branding"]["color"] in ["white", "yellow", "blue", "green", "orange", "red", "purple", "gray-dark"]


def test_the_declared_defaults_are_those_of_the_code(tmp_path: object) -> None:
    action = yaml.safe_load(pages.action_yml())
    env = {f"INPUT_{name.upper()}": one["default"] for name, one in action["inputs"].items()}
    assert read({**env, "GITHUB_WORKSPACE": str(tmp_path)}) == read({"GITHUB_WORKSPACE": str(tmp_path)})


def test_every_input_and_output_is_explained() -> None:
    page = (docs.ROOT / "docs/action/inputs-and-outputs.md").read_text(encoding="utf-8")
    readme = (docs.ROOT / "README.md").read_text(encoding="utf-8")
    for one in (*INPUTS, *OUTPUTS):
        assert f"| `{one.name}` |" in page
        assert f"`{one.name}`" in readme
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    for row in rows:
        assert len(re.split(r"(?<!\\)\|", row)) in (4, 6), row
