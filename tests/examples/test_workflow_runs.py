"""Examples as they run: their inputs, their event, and a token with their ``permissions:`` and nothing else.

On a local GitHub with private repositories, where every read and write needs its right, and a local Hub that trusts the
workflow and nobody else: no token is stored anywhere. The exports are real ones of a tiny model; what is not shown here
is the container around the step.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from bot import githubapi
from bot.localhub.testing import RunningHub
from tests.bot.action.steps import Bench, Result
from tests.bot.issuer import Issuer, running_issuer
from tests.examples.test_workflows import EVENTS, WORKFLOWS, _filled_in, _text
from tests.localgithub.testing import RunningGitHub

SMALL = b"backends: portable\nprecision: fp32\nmax-seq-len: 32\n"
RIGHTS = ("contents", "issues", "pull-requests", "checks", "statuses")
_NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def owner(hub: RunningHub, model: Path) -> HfApi:
    """The owner of acme/tiny on the Hub."""
    owner = HfApi(endpoint=hub.endpoint, token=hub.create_user("acme"))
    owner.create_repo("acme/tiny")
    owner.upload_folder(repo_id="acme/tiny", folder_path=model)
    return owner


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with running_issuer() as one:
        yield one


@pytest.fixture
def bench(
    tmp_path: Path, github: RunningGitHub, hub: RunningHub, model: Path, monkeypatch: pytest.MonkeyPatch
) -> Bench:
    """A private repository with the model in a folder, and its checkout."""
    for name in ("PAUSE_SECONDS", "WRITE_PAUSE_SECONDS"):
        monkeypatch.setattr(githubapi, name, None)
    github.clear()
    github.create_user("octo")
    repo = github.create_repo("octo", f"work-{next(_NUMBERS)}", private=True)
    files = {f"model/{path.name}": path.read_bytes() for path in model.iterdir()}
    repo.commit({**files, ".ptebot.yml": SMALL})
    bench = Bench(tmp_path, github, repo, hub)
    bench.check_out()
    return bench


def _run(
    bench: Bench, name: str, event: str, payload: dict[str, Any], issuer: Issuer | None = None, **more: str
) -> Result:
    """One example with what its job is given on GitHub."""
    workflow = WORKFLOWS[name]
    rights = {right.replace("-", "_"): level for right, level in workflow.job["permissions"].items() if right in RIGHTS}
    given = {key.replace("-", "_"): _filled_in(_text(value), workflow) for key, value in workflow.inputs.items()}
    token = bench.github.installation_token(bench.repo, rights)
    if "id-token" in workflow.job["permissions"]:
        assert issuer is not None
        workflow_ref = f"{bench.repo.full_name}/.github/workflows/{workflow.path.name}@refs/heads/main"
        issuer.claims |= {"repository": bench.repo.full_name, "workflow_ref": workflow_ref}
        bench.env = {name: value for name, value in issuer.env.items() if name.startswith("ACTIONS_")}
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


def test_training_code_and_the_week_after(bench: Bench, hub: RunningHub, owner: HfApi, issuer: Issuer) -> None:
    hub.trust("acme/tiny", issuer.url, repository=bench.repo.full_name)
    result = _run(bench, "push-training", "push", {}, issuer)
    assert (result.code, result.status, result.outputs["pr-operation"]) == (0, "passed", "created")
    assert [one.num for one in owner.get_repo_discussions("acme/tiny")] == [1]
    assert [run.conclusion for run in bench.repo.repo.check_runs.values()] == ["success"]
    _nothing_was_refused(bench, result)
    for name, event in (("schedule", "schedule"), ("hub-webhook", "repository_dispatch"), ("comment", "issue_comment")):
        payload = {
            "schedule": {"schedule": "17 4 * * 1"},
            "repository_dispatch": {"action": "ptebot", "client_payload": {"model": "acme/tiny"}},
            "issue_comment": bench.comment_event("/ptebot export"),
        }[event]
        again = _run(bench, name, event, payload, issuer, output=f"out-{name}")
        assert (again.code, again.status) == (0, "unchanged"), name
        _nothing_was_refused(bench, again)
    assert [one.num for one in owner.get_repo_discussions("acme/tiny")] == [1]


def test_a_workflow_that_the_hub_does_not_trust_is_told_what_to_enter(
    bench: Bench, owner: HfApi, issuer: Issuer
) -> None:
    assert owner.repo_exists("acme/tiny")
    result = _run(bench, "schedule", "schedule", {"schedule": "17 4 * * 1"}, issuer)
    assert result.document["error"]["class"] == "KeylessRefused"
    assert bench.repo.full_name in result.document["error"]["remedy"]
