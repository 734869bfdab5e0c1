"""``/ptebot status``: what there is, in words, for every state that a repository can be in."""

from __future__ import annotations

import re
from dataclasses import replace

from bot.hubapi import TreeFile, connect
from bot.publish.hub import HubHost
from bot.publish.marker import Marker
from bot.publish.state import Branch, Pull, State
from bot.replies import status
from bot.replies.status import Published, render
from exporter.report import Report
from tests.bot import reports
from tests.bot.conftest import hub, module_hub, repo
from tests.bot.hubs import Repository

__all__ = ["hub", "module_hub", "repo"]


def _state(*pulls: Pull, files: dict[str, bytes] | None = None) -> State:
    listed = {
        file.path: TreeFile(path=file.path, size_bytes=file.size_bytes, oid=file.git_oid, sha256=None)
        for file in reports.source(reports.MODEL_FILES if files is None else files)
    }
    return State(repo_id="acme/tiny", head="2" * 40, source=listed, pulls=list(pulls))


def _pull(num: int, state: str = "open", **fields: bool) -> Pull:
    known = {"closed_by_us": False, "conflicts": False, **fields}
    return Pull(
        num=num,
        status=state,
        url=f"https://hub.example/acme/tiny/discussions/{num}",
        title="Add ExecuTorch files",
        marker=Marker(source="a" * 64, identity="b" * 64, revision=None),
        comment_id="1",
        **known,
    )


def _branch(manifest: Report | None) -> Branch:
    return Branch(commit="3" * 40, manifest=manifest, files={}, card=None)


def _render(state: State, main: Report | None = None, branch: Branch | None = None, model: str = "acme/tiny") -> str:
    return render(Published(model=model, state=state, main=_branch(main), branch=branch))


def test_nothing_yet() -> None:
    assert _render(_state()) == "### acme/tiny\n\nOn the main branch: no ExecuTorch files yet.\n"


def test_an_open_pull_request() -> None:
    shown = _render(_state(_pull(3)), branch=_branch(reports.report()))
    assert "Open: [pull request 3](https://hub.example/acme/tiny/discussions/3), with " in shown
    assert "They are of the model as it is now." in shown
    assert "Made from revision `111111111111` by ptebot 0.1.0, ExecuTorch 1.5.1" in shown
    assert shown.count("| `xnnpack` |") >= 1


def test_the_oldest_open_one_counts() -> None:
    shown = _render(_state(_pull(2, "closed", closed_by_us=True), _pull(3), _pull(5)), branch=_branch(None))
    assert "pull request 3" in shown and "pull request 5" not in shown and "pull request 2" not in shown
    assert "without a manifest that can be read" in shown


def test_a_model_that_moved() -> None:
    moved = {**reports.MODEL_FILES, "model.safetensors": b"other", "generation_config.json": b"{}"}
    shown = _render(_state(files=moved), main=reports.report())
    assert "**The model moved since:** `generation_config.json`, `model.safetensors`." in shown


def test_merged_and_closed() -> None:
    shown = _render(_state(_pull(4, "closed")), main=reports.report())
    assert re.search(r"On the main branch: \d files?\. They are of the model as it is now\.", shown)
    assert "Pull request 4 was closed; for the same weights none is opened again." in shown


def test_a_pull_request_in_conflict() -> None:
    assert "conflicts with the base branch" in _render(_state(_pull(3, conflicts=True)), branch=_branch(None))


def test_hostile_words_are_inert() -> None:
    evil = "@octocat fixes #1 <img src=x> | [x](javascript:1)"
    report = reports.report([reports.cell(evil, evil)])
    report = replace(
        report,
        generator=evil,
        toolchain={"executorch": evil},
        model=replace(report.model, revision=evil, files=[replace(report.model.files[0], path=evil)]),
    )
    pull = replace(_pull(3), url="https://hub.example/)](javascript:alert(1)")
    shown = _render(replace(_state(pull), base=evil), main=report, branch=_branch(report), model=evil)
    assert not re.search(r"@\w|#1\b(?!;)|<img|\]\(javascript", shown), shown
    assert all(line.count("|") == 6 for line in shown.splitlines() if line.startswith("|"))


def test_what_a_real_repository_has(repo: Repository) -> None:
    api = connect(repo.hub.endpoint, repo.bot_token)
    assert "no ExecuTorch files yet" in status.ask(HubHost(api, repo.repo_id), repo.repo_id)
    repo.push(reports.MODEL_FILES)
    repo.publish(repo.report())
    shown = status.ask(HubHost(api, repo.repo_id), repo.repo_id)
    assert "Open: [pull request 1](" in shown and "They are of the model as it is now." in shown
    repo.push({"config.json": b"{}"})
    shown = status.ask(HubHost(api, repo.repo_id), repo.repo_id)
    assert "**The model moved since:** `config.json`." in shown
