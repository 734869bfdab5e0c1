"""One step from its event to everyone who is told, on a local Hub and a local GitHub; exports are real."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from bot.action import step
from bot.cli import Terminated
from bot.localhub.testing import RunningHub
from tests.bot.action.steps import Bench
from tests.bot.issuer import running_issuer
from tests.localgithub.testing import RunningGitHub

SMALL = {"backends": "portable", "precision": "fp32", "max_seq_len": "32"}
_NUMBERS = itertools.count(1)


@pytest.fixture
def bench(tmp_path: Path, github: RunningGitHub, hub: RunningHub, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A repository of octo's without a model, and an empty workspace."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    github.clear()
    github.create_user("octo")
    repo = github.create_repo("octo", f"work-{next(_NUMBERS)}")
    return Bench(tmp_path, github, repo, hub)


def _hub_model(bench: Bench, model: Path) -> tuple[str, HfApi]:
    owner = HfApi(endpoint=bench.hub.endpoint, token=bench.hub.create_user("acme"))
    repo_id = f"acme/tiny-{next(_NUMBERS)}"
    owner.create_repo(repo_id)
    owner.upload_folder(repo_id=repo_id, folder_path=model)
    return repo_id, owner


# -- nothing to do, or nothing that can be done ------------------------------------------------------------------------


def test_an_event_that_asks_for_nothing_ends_well(bench: Bench) -> None:
    result = bench.run("push", bench.push_event(ref="refs/heads/ptebot/tiny"), model="acme/tiny")
    assert result.code == 0
    assert result.status == "ignored"
    assert "own" in result.summary
    assert bench.github.api_requests("POST") == [], "a push of ours leaves no trace"


@pytest.mark.parametrize(
    ("name", "event", "inputs", "code", "words"),
    [
        ("push", None, {"backends": "vulcan"}, 80, "portable, xnnpack, openvino"),
        ("push", None, {"model": "../up"}, 80, "model"),
        ("push", None, {}, 80, "No model is named"),
        ("push", None, {"model": "acme/tiny", "publish": "github"}, 80, "publish: github"),
        ("push", None, {"model": "acme/none", "publish": "none"}, 31, "acme/none"),
        ("push", None, {"model": "acme/tiny", "config": "missing.yml"}, 82, "missing.yml"),
        ("push", "[]", {"model": "acme/tiny"}, 81, "no JSON object"),
        ("push", "{", {"model": "acme/tiny"}, 81, "not JSON"),
        ("push", {"ref": 5}, {"model": "acme/tiny"}, 81, "ref"),
    ],
)
def test_what_is_wrong_is_told_everywhere(
    bench: Bench, name: str, event: object, inputs: dict[str, str], code: int, words: str
) -> None:
    result = bench.run(name, bench.push_event() if event is None else event, **inputs)
    assert result.code == code
    assert result.status == "error"
    assert result.document["error"]["exit_code"] == code
    assert words in result.document["error"]["what"] + result.document["error"]["remedy"]
    assert "::error " in result.log
    assert "What to do" in result.summary
    assert list(bench.workspace.iterdir()) == []


def test_without_a_token_for_the_hub_it_says_which_before_any_work(bench: Bench, model: Path) -> None:
    repo_id, _ = _hub_model(bench, model)
    result = bench.run("push", bench.push_event(), model=repo_id, **SMALL)
    assert result.code == 32
    assert "hub-token" in result.document["error"]["remedy"] or "id-token" in result.document["error"]["remedy"]
    assert "Fetch the model" not in result.log


def test_an_output_folder_in_use_is_refused_before_any_work(bench: Bench) -> None:
    (bench.workspace / "ptebot-out").mkdir(parents=True)
    (bench.workspace / "ptebot-out" / "mine").write_text("mine")
    result = bench.run("push", bench.push_event(), model="acme/tiny", publish="none")
    assert result.code == 23
    assert "`output`" in result.document["error"]["remedy"]
    assert str(bench.workspace) not in result.summary, "a path of the container means nothing to a reader"


def test_a_defect_is_told_as_one_with_its_place_in_the_log(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("::set-output name=x::y")

    monkeypatch.setattr(step, "plan", broken)
    result = bench.run("push", bench.push_event(), model="acme/tiny")
    assert result.code == 1
    assert result.document["error"]["class"] == "RuntimeError"
    assert "in broken" in result.log
    assert not any(line.lstrip().startswith("::set-output") for line in result.log.splitlines())


def test_a_cancelled_step_tells_its_state(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def cancelled(*_: object) -> None:
        raise Terminated

    monkeypatch.setattr(step, "perform", cancelled)
    result = bench.run("push", bench.push_event(), model="acme/tiny", hub_token="hf_x")
    assert result.code == 143
    assert result.status == "error"
    assert "SIGTERM" in result.summary
    head = bench.repo.head()
    runs = [one for one in bench.repo.repo.check_runs.values() if one.head_sha == head]
    assert [one.conclusion for one in runs] == ["cancelled"]


# -- comments ----------------------------------------------------------------------------------------------------------


def test_a_stranger_gets_nothing_run(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "perform", lambda *_: pytest.fail("nothing may run"))
    bench.github.create_user("mallory")
    event = bench.comment_event("/ptebot export", login="mallory")
    result = bench.run("issue_comment", event, model="acme/tiny")
    assert result.code == 0
    assert result.status == "ignored"
    assert len(bench.repo.comments(event["issue"]["number"])) == 1, "strangers get no words"


def test_help_is_answered_in_one_reply(bench: Bench) -> None:
    event = bench.comment_event("/ptebot exprot")
    result = bench.run("issue_comment", event, model="acme/tiny")
    assert result.status == "ignored"
    replies = bench.repo.comments(event["issue"]["number"])[1:]
    assert len(replies) == 1
    assert "/ptebot export" in replies[0].body
    assert "exprot" in replies[0].body
    bench.run("issue_comment", event, model="acme/tiny")
    assert len(bench.repo.comments(event["issue"]["number"])) == 2, "the same event again doubles nothing"


def test_owners_can_switch_comments_off(bench: Bench) -> None:
    bench.workspace.mkdir()
    (bench.workspace / ".ptebot.yml").write_text("comments: false\n")
    result = bench.run("issue_comment", bench.comment_event("/ptebot help"), model="acme/tiny")
    assert result.status == "ignored"
    assert bench.github.api_requests("POST") == []


def test_a_commenter_hears_of_a_configuration_that_is_wrong(bench: Bench) -> None:
    bench.workspace.mkdir()
    (bench.workspace / ".ptebot.yml").write_text("modle: acme/tiny\n")
    event = bench.comment_event("/ptebot export")
    result = bench.run("issue_comment", event)
    assert result.code == 82
    replies = bench.repo.comments(event["issue"]["number"])[1:]
    assert len(replies) == 1
    assert "`modle`" in replies[0].body.replace("&#96;", "`")
    bench.github.create_user("mallory")
    event = bench.comment_event("/ptebot export", login="mallory")
    assert bench.run("issue_comment", event).code == 82
    assert len(bench.repo.comments(event["issue"]["number"])) == 1


# -- exports -----------------------------------------------------------------------------------------------------------


def test_a_push_becomes_a_pull_request_on_the_hub_and_again_changes_nothing(bench: Bench, model: Path) -> None:
    repo_id, owner = _hub_model(bench, model)
    token = bench.hub.create_user("ptebot-user")
    first = bench.run("push", bench.push_event(), model=repo_id, hub_token=token, bench="true", **SMALL)
    assert (first.code, first.status, first.outputs["pr-operation"]) == (0, "passed", "created")
    [speed] = first.document["speeds"]["cells"]
    assert speed["decode"] > 0
    assert "decode" in first.summary
    assert [one.num for one in owner.get_repo_discussions(repo_id)] == [1]
    assert first.outputs["pr-url"].endswith("/discussions/1")
    folder = bench.workspace / "ptebot-out" / repo_id.rsplit("/", 1)[-1]
    assert first.outputs["report"] == (folder / "report.json").relative_to(bench.workspace).as_posix()
    published = owner.hf_hub_download(repo_id, "executorch/manifest.json", revision="refs/pr/1")
    manifest = bench.workspace / first.outputs["manifest"]
    assert manifest.read_bytes() == Path(published).read_bytes()
    cell = first.document["cells"][0]
    assert (bench.workspace / cell["file"]).stat().st_size == cell["size_bytes"]
    assert token not in first.log.replace(f"::add-mask::{token}", "")
    assert first.outputs["pr-url"] in first.summary
    runs = [(one.status, one.conclusion) for one in bench.repo.repo.check_runs.values()]
    assert runs == [("completed", "success")]

    second = bench.run("push", bench.push_event(), model=repo_id, hub_token=token, output="other", **SMALL)
    assert (second.code, second.status, second.outputs["pr-operation"]) == (0, "unchanged", "unchanged")
    assert second.outputs["report"] == ""
    assert json.loads((bench.workspace / second.outputs["manifest"]).read_text()) == json.loads(manifest.read_text())
    assert len(bench.repo.repo.check_runs) == 1, "one check for a commit"


def test_a_job_that_the_repository_trusts_needs_no_token(bench: Bench, model: Path) -> None:
    repo_id, owner = _hub_model(bench, model)
    with running_issuer() as issuer:
        bench.env = dict(issuer.env)
        refused = bench.run("push", bench.push_event(), model=repo_id, **SMALL)
        assert (refused.code, refused.status) == (83, "error")
        assert "Fetch the model" not in refused.log, "told before any work"
        bench.hub.trust(repo_id, issuer.url, repository="acme/training")
        first = bench.run("push", bench.push_event(), model=repo_id, **SMALL)
        assert (first.code, first.outputs["pr-operation"]) == (0, "created")
        assert [one.num for one in owner.get_repo_discussions(repo_id)] == [1]
        again = bench.run("push", bench.push_event(), model=repo_id, output="other", **SMALL)
        assert again.status == "unchanged", "our own pull request is known without a stored token too"
        shown = "\n".join(line for line in first.log.splitlines() if not line.startswith("::add-mask::"))
        assert "hf_jwt_" not in shown + first.summary + "".join(first.outputs.values())


def test_a_comment_becomes_a_pull_request_on_github_with_one_reply(bench: Bench, model: Path) -> None:
    files = {f"models/tiny/{path.name}": path.read_bytes() for path in model.iterdir()}
    bench.repo.commit({**files, ".ptebot.yml": b"model: models/tiny\nprecision: fp32\nmax-seq-len: 32\n"})
    bench.check_out()
    event = bench.comment_event("/ptebot export backends=portable\nplease, when you have time")
    result = bench.run("issue_comment", event, publish="github")
    assert (result.code, result.status, result.outputs["pr-operation"]) == (0, "passed", "created")
    [pull] = bench.repo.pulls("open")
    head = bench.repo.head("ptebot/models--tiny")
    name = "models/tiny/executorch/portable/tiny_portable_fp32.pte"
    written = (bench.workspace / result.document["cells"][0]["file"]).read_bytes()
    assert bench.repo.read(name, head) == written
    assert bench.repo.files(head)[name].startswith(b"version https://git-lfs.github.com/spec/v1\n")
    number = event["issue"]["number"]
    replies = bench.repo.comments(number)[1:]
    assert len(replies) == 1
    assert f"/pull/{pull.number}" in replies[0].body
    assert "portable" in replies[0].body
    reactions = bench.repo.reactions("comment", event["comment"]["id"])
    assert [content for _, content in reactions] == ["rocket"]

    status = bench.comment_event("/ptebot status", number=number)
    told = bench.run("issue_comment", status, publish="github", output="other")
    assert told.status == "ignored"
    answer = bench.repo.comments(number)[-1].body
    assert f"/pull/{pull.number}" in answer
    assert "They are of the model as it is now" in answer


def test_a_fork_gets_a_dry_run_without_secrets(bench: Bench, model: Path) -> None:
    bench.workspace.mkdir()
    for path in model.iterdir():
        (bench.workspace / path.name).write_bytes(path.read_bytes())
    sha = bench.repo.head()
    event = {
        "action": "opened",
        "number": 7,
        "pull_request": {
            "number": 7,
            "head": {"sha": sha, "ref": "patch", "repo": {"full_name": "mallory/work"}},
            "base": {"sha": sha, "ref": "main", "repo": {"full_name": bench.repo.full_name}},
        },
        "repository": {"full_name": bench.repo.full_name, "default_branch": "main"},
        "sender": {"login": "mallory"},
    }
    token = bench.github.fork_token(bench.repo)
    result = bench.run("pull_request", event, model=".", publish="github", github_token=token, **SMALL)
    assert (result.code, result.status, result.outputs["pr-operation"]) == (0, "passed", "none")
    assert "comes from a fork" in result.summary
    assert bench.repo.branches() == ["main"]
    assert bench.repo.pulls() == []
    assert [one for one in bench.github.requests if one.method not in ("GET", "HEAD")] == []


def test_one_model_that_fails_does_not_keep_the_next_from_its_pull_request(bench: Bench, model: Path) -> None:
    for path in model.iterdir():
        there = bench.workspace / "models" / "good" / path.name
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes(path.read_bytes())
    bad = bench.workspace / "models" / "bad"
    bad.mkdir()
    (bad / "config.json").write_text('{"model_type": "::error::", "architectures": ["x"]}')
    (bench.workspace / ".ptebot.yml").write_text(
        "models:\n  - model: models/bad\n  - model: models/good\n"
        "backends: [portable]\nprecision: fp32\nmax-seq-len: 32\n"
    )
    result = bench.run("workflow_dispatch", bench.push_event(), publish="none")
    assert result.code != 0
    assert result.status == "error"
    assert [one["status"] for one in result.document["models"]] == ["error", "passed"]
    assert result.outputs["report"] == "ptebot-out/good/report.json"
    assert result.summary.count("## ") >= 2


def test_secrets_do_not_reach_the_exporter(bench: Bench, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a child gets is an allowlist: nothing of a job's environment passes."""
    from bot import child

    monkeypatch.setitem(os.environ, "ACTIONS_RUNTIME_TOKEN", "secret-of-the-job")
    monkeypatch.setitem(os.environ, "INPUT_HUB-TOKEN", "hf_secret")
    assert not {"secret-of-the-job", "hf_secret"} & set(child.environment(Path("/")).values())
