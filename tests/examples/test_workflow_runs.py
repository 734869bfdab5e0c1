"""Examples as they run: their inputs, their event, and a token with their ``permissions:`` and nothing else.

On a local GitHub with private repositories, where every read and write needs its right, and a local Hub. The exports
are real ones of a tiny model; what is not shown here is the container around the step and the exchange of tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from bot.localhub.testing import RunningHub, running_hub
from tests.bot.action.steps import Bench, Result
from tests.examples.test_workflows import EVENTS, WORKFLOWS, _filled_in, _text
from tests.exporter.models import tiny_model
from tests.localgithub.testing import RunningGitHub, running_github

SMALL = b"backends: portable\nprecision: fp32\nmax-seq-len: 32\n"
RIGHTS = ("contents", "issues", "pull-requests", "checks", "statuses")
_NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def github() -> Iterator[RunningGitHub]:
    with running_github() as found:
        yield found


@pytest.fixture(scope="module")
def hub() -> Iterator[RunningHub]:
    with running_hub() as found:
        yield found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model("llama", tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def published(hub: RunningHub, model: Path) -> tuple[str, HfApi, str]:
    """acme/tiny on the Hub, its owner's client, and the token of somebody who may open pull requests."""
    owner = HfApi(endpoint=hub.endpoint, token=hub.create_user("acme"))
    owner.create_repo("acme/tiny")
    owner.upload_folder(repo_id="acme/tiny", folder_path=model)
    return "acme/tiny", owner, hub.create_user("ptebot-user")


@pytest.fixture
def bench(tmp_path: Path, github: RunningGitHub, hub: RunningHub, model: Path) -> Bench:
    """A private repository with the model in a folder, and its checkout."""
    github.clear()
    github.create_user("octo")
    repo = github.create_repo("octo", f"work-{next(_NUMBERS)}", private=True)
    files = {f"model/{path.name}": path.read_bytes() for path in model.iterdir()}
    repo.commit({**files, ".ptebot.yml": SMALL})
    bench = Bench(tmp_path, github, repo, hub)
    bench.check_out()
    return bench


def _run(bench: Bench, name: str, event: str, payload: dict[str, Any], **more: str) -> Result:
    """One example with what its job is given on GitHub."""
    workflow = WORKFLOWS[name]
    rights = {right.replace("-", "_"): level for right, level in workflow.job["permissions"].items() if right in RIGHTS}
    given = {key.replace("-", "_"): _filled_in(_text(value), workflow) for key, value in workflow.inputs.items()}
    token = bench.github.installation_token(bench.repo, rights)
    whole = {**bench.push_event(), **payload}
    return bench.run(event, whole, **{**given, "github_token": token, **more})


def _nothing_was_refused(bench: Bench, result: Result) -> None:
    assert "could not" not in result.log
    # Who a job's token speaks for is asked, and always refused: that is how such a token is told.
    asked = [one for one in bench.github.requests if one.path != "/user"]
    assert [(one.method, one.path) for one in asked if one.status in (401, 403)] == []


def test_a_pushed_folder_becomes_a_pull_request_here(bench: Bench) -> None:
    before = bench.repo.log()[-1]
    result = _run(bench, "push-model", "push", {"before": before, "after": bench.repo.head()})
    assert (result.code, result.status, result.outputs["pr-operation"]) == (0, "passed", "created")
    [pull] = bench.repo.pulls("open")
    assert result.outputs["pr-url"].endswith(f"/pull/{pull.number}")
    assert "model/executorch/manifest.json" in bench.repo.files("ptebot/model")
    assert [run.conclusion for run in bench.repo.repo.check_runs.values()] == ["success"]
    _nothing_was_refused(bench, result)


def test_a_release_has_its_files_on_a_release_of_their_own(bench: Bench) -> None:
    bench.env = {"GITHUB_REF": "refs/tags/v1"}
    [(event, payload)] = EVENTS["release"]
    result = _run(bench, "release", event, payload)
    assert (result.code, result.status, result.outputs["pr-operation"]) == (0, "passed", "created")
    [release] = bench.repo.repo.releases.values()
    assert release.tag == "ptebot-model"
    assert not any(name.endswith(".pte") for name in bench.repo.files("ptebot/model"))
    _nothing_was_refused(bench, result)


def test_training_code_and_the_week_after(bench: Bench, published: tuple[str, HfApi, str]) -> None:
    repo_id, owner, token = published
    result = _run(bench, "push-training", "push", {}, hub_token=token)
    assert (result.code, result.status, result.outputs["pr-operation"]) == (0, "passed", "created")
    assert [one.num for one in owner.get_repo_discussions(repo_id)] == [1]
    assert [run.conclusion for run in bench.repo.repo.check_runs.values()] == ["success"]
    _nothing_was_refused(bench, result)
    for name, event in (("schedule", "schedule"), ("hub-webhook", "repository_dispatch"), ("comment", "issue_comment")):
        payload = {
            "schedule": {"schedule": "17 4 * * 1"},
            "repository_dispatch": {"action": "ptebot", "client_payload": {"model": repo_id}},
            "issue_comment": bench.comment_event("/ptebot export"),
        }[event]
        again = _run(bench, name, event, payload, hub_token=token, output=f"out-{name}")
        assert (again.code, again.status) == (0, "unchanged"), name
        _nothing_was_refused(bench, again)
    assert [one.num for one in owner.get_repo_discussions(repo_id)] == [1]
