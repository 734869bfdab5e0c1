"""Every example workflow is complete, safe, asks for no right that it does not need, and means what it says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import yaml

from bot.action import inputs
from bot.action.work import plan
from bot.config import Config
from bot.triggers import github
from bot.triggers.request import Ignored, Overrides, Request
from exporter import __version__
from tests.examples.by_path import load

ROOT = Path(__file__).resolve().parents[2]
PTEBOT = f"ptebot/ptebot@v{__version__.split('.', maxsplit=1)[0]}"
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}")
EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)


@dataclass(frozen=True)
class Workflow:
    """One file, parsed."""

    path: Path

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def data(self) -> dict[str, Any]:
        return yaml.load(self.text, _NoBooleanKeys)  # noqa: S506 - a SafeLoader

    @property
    def events(self) -> dict[str, Any]:
        return self.data["on"]

    @property
    def job(self) -> dict[str, Any]:
        (job,) = self.data["jobs"].values()
        return job

    @property
    def steps(self) -> list[dict[str, Any]]:
        return self.job["steps"]

    @property
    def ptebot(self) -> dict[str, Any]:
        (step,) = [step for step in self.steps if step.get("uses", "").startswith("ptebot/")]
        return step

    @property
    def inputs(self) -> dict[str, Any]:
        return self.ptebot.get("with", {})

    @property
    def checkout(self) -> dict[str, Any] | None:
        return next((step for step in self.steps if step.get("uses", "").startswith("actions/checkout@")), None)

    @property
    def folder(self) -> bool:
        """Whether the model is a folder of the repository."""
        return self.inputs.get("model") == "model"


class _NoBooleanKeys(yaml.SafeLoader):
    """YAML 1.2 as GitHub reads it: ``on`` is a word."""


_NoBooleanKeys.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:bool"]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_NoBooleanKeys.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|false)$"), ["t", "f"])

WORKFLOWS = {path.stem: Workflow(path) for path in sorted((ROOT / "examples" / "workflows").glob("*.yml"))}
every = pytest.mark.parametrize("workflow", WORKFLOWS.values(), ids=list(WORKFLOWS))


def test_there_is_one_for_each_way_to_start() -> None:
    assert {event for workflow in WORKFLOWS.values() for event in workflow.events} == {
        "push",
        "release",
        "schedule",
        "workflow_dispatch",
        "repository_dispatch",
        "issue_comment",
        "pull_request",
    }


@every
def test_it_uses_inputs_and_outputs_that_the_action_has(workflow: Workflow) -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    assert set(workflow.inputs) <= set(action["inputs"])
    assert set(re.findall(r"steps\.ptebot\.outputs\.([\w-]+)", workflow.text)) <= set(action["outputs"])


def _text(value: object) -> str:
    """As the runner gives it to the action."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _filled_in(value: str, workflow: Workflow) -> str:
    """What the runner makes of the expressions that the examples have."""

    def fill(match: re.Match[str]) -> str:
        context, name = match[1].strip().split(".")
        if context == "matrix":
            return str(workflow.job["strategy"]["matrix"]["include"][0][name])
        assert context == "inputs"
        default = workflow.events["workflow_dispatch"]["inputs"][name].get("default", "")
        return str(default).lower() if isinstance(default, bool) else str(default)

    return EXPRESSION.sub(fill, value)


@every
def test_actions_are_pinned(workflow: Workflow) -> None:
    for step in workflow.steps:
        uses = step.get("uses")
        if uses is None or uses == PTEBOT:
            continue
        assert PINNED.fullmatch(uses), uses
        assert re.search(rf"{re.escape(uses)} # v\d+\.\d+\.\d+\n", workflow.text), f"{uses}: which version is that?"


@every
def test_rights_are_what_the_job_does_and_no_more(workflow: Workflow) -> None:
    assert workflow.data["permissions"] == {}, "nothing for a job that somebody adds"
    assert workflow.job["permissions"] == _needed(workflow)
    for right, level in workflow.job["permissions"].items():
        assert re.search(rf"^ +{right}: {level} # \S", workflow.text, re.MULTILINE), f"why {right}: {level}?"


def _needed(workflow: Workflow) -> dict[str, str]:
    """The rights of GITHUB_TOKEN that docs/action/security.md explains."""
    events, inputs = workflow.events, workflow.inputs
    offers = inputs["publish"] != "none"
    github, hub = inputs["publish"] == "github", inputs["publish"] == "hub"
    needed = {"contents": "write" if github and offers else "read"} if workflow.checkout or github else {}
    if github and offers:
        needed["pull-requests"] = "write"
    if hub and "push" in events:
        needed["pull-requests"] = "write"
    if hub and offers and "hub-token" not in inputs:
        needed["id-token"] = "write"
    if "issue_comment" in events:
        needed |= {"issues": "write", "pull-requests": "write"}
    if offers and events.keys() & {"push", "release"}:
        needed["checks"] = "write"
    return needed


@every
def test_nothing_from_an_event_is_part_of_a_script(workflow: Workflow) -> None:
    for step in workflow.steps:
        assert "${{" not in step.get("run", ""), "values reach a script through env"
    assert "secrets." not in workflow.text, "keyless wherever it can be shown"


@every
def test_events_reach_nothing_but_conditions_and_group_names(workflow: Workflow) -> None:
    """An event's text is somebody else's; in a condition or a group's name it is compared and not run."""
    text = workflow.text
    for place in (workflow.job.get("if", ""), *_groups(workflow)):
        text = text.replace(place, "")
    flat = re.sub(r"\s+", " ", text)
    for place in _groups(workflow):
        flat = flat.replace(re.sub(r"\s+", " ", place), "")
    assert "github.event" not in flat
    assert "github.head_ref" not in flat


def _groups(workflow: Workflow) -> list[str]:
    found = [workflow.data.get("concurrency"), workflow.job.get("concurrency")]
    return [each["group"] for each in found if each is not None]


@every
def test_it_ends_and_does_not_run_beside_itself(workflow: Workflow) -> None:
    assert 0 < workflow.job["timeout-minutes"] <= 360
    assert len(_groups(workflow)) == 1
    assert re.fullmatch(r"ubuntu-\d\d\.\d\d", workflow.job["runs-on"]) or "matrix" in workflow.job["runs-on"]


@every
def test_a_checkout_keeps_no_token_and_gets_weights_only_where_they_are(workflow: Workflow) -> None:
    checkout = workflow.checkout
    assert checkout is not None, ".ptebot.yml is in the checkout"
    assert checkout["with"]["persist-credentials"] is False
    assert ("lfs" in checkout["with"]) == workflow.folder
    assert "ref" not in checkout["with"], "an event's own commit, or the default branch"


def test_strangers_never_meet_a_right_to_write() -> None:
    for name, workflow in WORKFLOWS.items():
        assert not workflow.events.keys() & {"pull_request_target", "workflow_run"}, name
    assert "write" not in WORKFLOWS["pull-request"].job["permissions"].values()
    assert "secrets." not in WORKFLOWS["pull-request"].text


def test_the_comment_workflow_is_for_new_comments_with_a_command() -> None:
    workflow = WORKFLOWS["comment"]
    assert workflow.events == {"issue_comment": {"types": ["created"]}}
    assert workflow.job["if"] == "startsWith(github.event.comment.body, '/ptebot')"
    assert "concurrency" not in workflow.data, "every comment would enter the queue, and push commands out of it"
    assert workflow.checkout is not None and "ref" not in workflow.checkout["with"], "never a pull request's files"


@every
def test_the_recipes_explain_it(workflow: Workflow) -> None:
    recipes = (ROOT / "docs" / "action" / "recipes.md").read_text(encoding="utf-8")
    assert f"(../../examples/workflows/{workflow.path.name})" in recipes


SHA = "6dcb09b5b57875f334f61aebed695e2e4193db5e"
RUNNER = {
    "GITHUB_REPOSITORY": "acme/training",
    "GITHUB_ACTOR": "mona",
    "GITHUB_SHA": SHA,
    "GITHUB_REF": "refs/heads/main",
}
COMMON = {
    "repository": {"full_name": "acme/training", "default_branch": "main", "fork": False},
    "sender": {"login": "mona", "type": "User"},
}
PUSHED = {
    "ref": "refs/heads/main",
    "before": "1" * 40,
    "after": SHA,
    "created": False,
    "deleted": False,
    "forced": False,
    "head_commit": {"id": SHA},
}
COMMENTED = {
    "action": "created",
    "issue": {
        "number": 7,
        "locked": False,
        "pull_request": {"url": "https://api.github.com/repos/acme/training/pulls/7"},
    },
    "comment": {"id": 99, "body": "/ptebot export precision=fp32\nthanks", "user": {"login": "mona", "type": "User"}},
}
FROM_A_FORK = {
    "action": "synchronize",
    "number": 7,
    "pull_request": {
        "number": 7,
        "head": {"ref": "main", "sha": SHA, "repo": {"full_name": "stranger/training", "fork": True}},
        "base": {"ref": "main", "sha": "1" * 40, "repo": {"full_name": "acme/training"}},
    },
}
DISPATCHED = {
    "model": "acme/tiny",
    "revision": "",
    "backends": "xnnpack,portable",
    "max-seq-len": "256",
    "dry-run": "true",
}
EVENTS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "push-model": [("push", PUSHED)],
    "push-training": [("push", PUSHED)],
    "release": [
        ("release", {"action": "published", "release": {"tag_name": "v1", "draft": False, "prerelease": False}})
    ],
    "schedule": [("schedule", {"schedule": "17 4 * * 1"})],
    "manual": [("workflow_dispatch", {"inputs": DISPATCHED, "ref": "refs/heads/main"})],
    "hub-webhook": [
        ("repository_dispatch", {"action": "ptebot", "client_payload": {"model": "acme/tiny", "revision": SHA}})
    ],
    "comment": [("issue_comment", COMMENTED)],
    "pull-request": [("pull_request", FROM_A_FORK)],
    "several-models": [("workflow_dispatch", {"inputs": None}), ("schedule", {"schedule": "41 3 * * 6"})],
}
"""What GitHub gives to a job that each example starts, as far as anything reads it."""
RUNS = [(name, event, payload) for name, events in EVENTS.items() for event, payload in events]


def test_every_event_of_every_example_is_tried() -> None:
    assert {name: {event for event, _ in events} for name, events in EVENTS.items()} == {
        name: set(workflow.events) for name, workflow in WORKFLOWS.items()
    }


@pytest.mark.parametrize(("name", "event", "payload"), RUNS, ids=[f"{name}-{event}" for name, event, _ in RUNS])
def test_its_event_is_a_request_for_an_export(name: str, event: str, payload: dict[str, Any]) -> None:
    filters = WORKFLOWS[name].events[event]
    types = filters.get("types") if isinstance(filters, dict) else None
    assert types is None or payload["action"] in types, "GitHub would not start the job"
    found = github.read(event, {**COMMON, **payload}, RUNNER)
    assert isinstance(found, Request), found
    assert (found.verb, found.problem) == ("export", None)
    assert found.origin.repository == "acme/training"
    assert found.origin.forked == (name == "pull-request")
    assert found.overrides == {
        "manual": Overrides(model="acme/tiny", backends=("xnnpack", "portable"), max_seq_len=256),
        "hub-webhook": Overrides(model="acme/tiny", revision=SHA),
        "comment": Overrides(precisions=("fp32",)),
    }.get(name, Overrides())


def test_the_relay_says_what_the_workflow_waits_for() -> None:
    relay = load("hub-webhook/relay.py")
    moved = {"ref": "refs/heads/main", "oldSha": None, "newSha": SHA}
    said = relay.dispatch(
        {
            "event": {"action": "update", "scope": "repo.content"},
            "repo": {"type": "model", "name": "acme/tiny"},
            "updatedRefs": [moved],
        },
        "acme/tiny",
    )
    assert WORKFLOWS["hub-webhook"].events["repository_dispatch"]["types"] == [said["event_type"]]
    payload = {"action": said["event_type"], "client_payload": said["client_payload"]}
    found = github.read("repository_dispatch", {**COMMON, **payload}, RUNNER)
    assert isinstance(found, Request)
    assert found.overrides == Overrides(model="acme/tiny", revision=SHA)


@pytest.mark.parametrize("body", ["thanks, /ptebot export", " /ptebot export", "/ptebotexport", ""])
def test_other_comments_ask_for_nothing(body: str) -> None:
    payload = {**COMMON, **COMMENTED, "comment": {**COMMENTED["comment"], "body": body}}  # type: ignore[dict-item]
    assert isinstance(github.read("issue_comment", payload, RUNNER), Ignored)


@pytest.mark.parametrize(("name", "event", "payload"), RUNS, ids=[f"{name}-{event}" for name, event, _ in RUNS])
def test_its_event_and_its_inputs_together_are_one_model_to_export(
    name: str, event: str, payload: dict[str, Any], tmp_path: Path
) -> None:
    workflow = WORKFLOWS[name]
    (tmp_path / "model").mkdir()
    env = {f"INPUT_{key.upper()}": _filled_in(_text(value), workflow) for key, value in workflow.inputs.items()}
    given = inputs.read({**env, "GITHUB_WORKSPACE": str(tmp_path)})
    request = github.read(event, {**COMMON, **payload}, RUNNER)
    assert isinstance(request, Request)
    works = plan(request, given, Config(), lambda _: ("model/model.safetensors", "training/train.py"))
    assert isinstance(works, tuple), works
    assert [work.model for work in works] == ["model" if workflow.folder else "acme/tiny"]
    assert (works[0].folder is not None) == workflow.folder


def test_a_push_that_touches_nothing_of_the_model_asks_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    given = inputs.read({"INPUT_MODEL": "model", "INPUT_PUBLISH": "github", "GITHUB_WORKSPACE": str(tmp_path)})
    request = github.read("push", {**COMMON, **PUSHED}, RUNNER)
    assert isinstance(request, Request)
    assert isinstance(plan(request, given, Config(), lambda _: ("README.md",)), Ignored)
    assert isinstance(plan(request, given, Config(), lambda _: (".ptebot.yml",)), tuple)
