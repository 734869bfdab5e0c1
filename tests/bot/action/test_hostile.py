"""A whole step against models, exporters, people and services that mean no good; no export is real here."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bot import child, githubapi
from bot.action import status, step
from bot.action.commands import Log
from bot.action.perform import Done, Scene
from bot.action.summary import Story
from bot.action.work import Work
from bot.action.workflow_words import in_a_workflow
from bot.cli import Terminated
from bot.errors import NotAuthorized
from bot.export_process import OnProgress
from bot.localhub.testing import RunningHub
from bot.replies.conversation import Conversation
from exporter.errors import all_errors
from tests.bot import reports
from tests.bot.action import runner_syntax
from tests.bot.action.hostile import ALL, answering, exporter, live, seen_at
from tests.bot.action.steps import Bench, Result
from tests.bot.triggers import events
from tests.localgithub.testing import RunningGitHub

ROOT = Path(__file__).parents[3]
ONE = {"backends": "portable", "precision": "fp32", "max_seq_len": "32"}
OURS = {"add-mask", "stop-commands", "group", "endgroup", "error", "warning", "notice"}
_NUMBERS = itertools.count(1)


@pytest.fixture
def bench(tmp_path: Path, github: RunningGitHub, hub: RunningHub, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A repository of octo's with a model in the folder ``m``, checked out."""
    monkeypatch.setattr(githubapi, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(githubapi, "WRITE_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(githubapi, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(child, "run_module", exporter())
    github.clear()
    github.create_user("octo")
    files = {f"m/{name}": data for name, data in reports.MODEL_FILES.items()}
    bench = Bench(tmp_path, github, github.create_repo("octo", f"hostile-{next(_NUMBERS)}", files), hub)
    bench.check_out()
    return bench


def _by_hand(bench: Bench, **inputs: str) -> Result:
    return bench.run("workflow_dispatch", bench.push_event(), **{"model": "m", "publish": "github", **ONE, **inputs})


def _said(result: Result) -> str:
    """All that people and later steps see."""
    shown = [line for line in result.log.splitlines() if not line.startswith("::add-mask::")]
    return "\n".join([*shown, result.summary, *result.outputs.values()])


# -- text that wants to be more than text ------------------------------------------------------------------------------


@pytest.mark.parametrize("failed", [False, True])
def test_nothing_that_an_exporter_says_is_live(bench: Bench, monkeypatch: pytest.MonkeyPatch, failed: bool) -> None:
    cells = [reports.failed("portable", "fp32")] if failed else None
    monkeypatch.setattr(child, "run_module", exporter(cells=cells))
    bench.env = {"RUNNER_DEBUG": "1"}
    event = bench.comment_event("/ptebot export")
    number = event["issue"]["number"]
    result = bench.run("issue_comment", event, model="m", publish="github", **ONE)
    assert result.code == (3 if failed else 0)
    assert {one.name for one in runner_syntax.commands(result.log)} <= OURS
    assert not runner_syntax.legacy_in_display(result.log)
    assert live(result.summary) == []
    assert live(bench.repo.comments(number)[-1].body) == []
    assert set(result.outputs) == {"status", "pr-operation", "pr-url", "report", "manifest", "result"}
    bench.run("push", bench.push_event(before=None), model="m", publish="none", output="other", **ONE)
    for check in bench.repo.repo.check_runs.values():
        assert live(str((check.output or {}).get("summary"))) == []
    if failed:
        return
    [pull] = bench.repo.pulls()
    head = bench.repo.head("ptebot/m")
    assert live(pull.body or "") == []
    assert pull.title == "m: Add ExecuTorch files: portable (fp32)"
    assert live(bench.repo.read("m/README.md", head).decode()) == []
    bench.run("issue_comment", bench.comment_event("/ptebot status", number=number), model="m", publish="github")
    assert live(bench.repo.comments(number)[-1].body) == []


def test_an_exporter_reports_on_what_it_was_asked_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of backends and precisions stand in titles and commits, where nothing can be escaped."""
    changes: list[Any] = [
        lambda one: replace(one, cells=[replace(one.cells[0], precision="fixes #1 @octo")]),
        lambda one: replace(one, cells=[*one.cells, *one.cells]),
        lambda one: replace(one, model=replace(one.model, repo_id="acme/other")),
        lambda one: replace(one, spec=replace(one.spec, max_seq_len=64)),
    ]
    for number, change in enumerate(changes):
        monkeypatch.setattr(child, "run_module", exporter(change))
        result = _by_hand(bench, output=f"out{number}")
        assert (result.code, result.document["error"]["class"]) == (51, "OutputNotTrusted")
    assert bench.repo.pulls() == []


@pytest.mark.parametrize("name", ["my model", "::error::x", "a#b @octo", "modèle", "`x`", "..x"])
def test_a_folder_may_be_called_anything(bench: Bench, name: str) -> None:
    (bench.workspace / "m").rename(bench.workspace / name)
    result = _by_hand(bench, model=f"./{name}", publish="none")
    assert (result.code, result.status) == (0, "passed")
    assert (bench.workspace / result.outputs["report"]).is_file()
    assert {one.name for one in runner_syntax.commands(result.log)} <= OURS
    assert live(result.summary) == []


def test_what_services_say_is_only_told(bench: Bench) -> None:
    words = re.sub(r"[^ -~]", " ", ALL)[:900]
    with answering(403, json.dumps({"message": words, "error": words}).encode(), X_Error_Message=words[:300]) as evil:
        on_the_hub = _by_hand(bench, model="acme/tiny", publish="hub", hub_token="hf_abcdefghij", endpoint=evil)
        bench.env = {"GITHUB_API_URL": evil}
        on_github = _by_hand(bench)
    assert (on_the_hub.code, on_github.code) == (32, 72)
    for result in (on_the_hub, on_github):
        assert {one.name for one in runner_syntax.commands(result.log)} <= OURS
        assert live(result.summary) == []


@pytest.mark.parametrize("body", [b"[]", b"{}", b'"x"', b"<html>", b'{"id": "x", "full_name": 5, "sha": 7}'])
def test_replies_of_another_shape_end_a_step_in_order(bench: Bench, body: bytes) -> None:
    with answering(200, body) as strange:
        hub = _by_hand(bench, model="acme/tiny", publish="hub", hub_token="hf_abcdefghij", endpoint=strange)
        bench.env = {"GITHUB_API_URL": strange}
        github = _by_hand(bench)
        push = bench.run("push", bench.push_event(), model="m", publish="none", output="other", **ONE)
        comment = bench.run("issue_comment", bench.comment_event("/ptebot export"), model="m", publish="github", **ONE)
    assert hub.code in (31, 35, 36)
    assert github.code == 74
    assert (push.code, push.status) == (0, "passed"), "a check that cannot be shown costs no export"
    assert comment.status in ("ignored", "error"), "who cannot be asked for gives no command"
    for result in (hub, github, push, comment):
        assert "Traceback" not in result.log
        assert "defect" not in result.log
        assert result.summary


def test_an_address_that_leads_elsewhere_gets_no_token(bench: Bench) -> None:
    with (
        answering(404, b"{}") as thief,
        answering(302, b"", Location=f"{thief}/x".replace("127.0.0.1", "localhost")) as away,
    ):
        bench.env = {"GITHUB_API_URL": away}
        hub = _by_hand(bench, model="acme/tiny", publish="hub", hub_token="hf_abcdefghij", endpoint=away)
        github = _by_hand(bench)
        comment = bench.run("issue_comment", bench.comment_event("/ptebot export"), model="m", publish="github", **ONE)
    assert (hub.code, github.code, comment.code) == (31, 74, 74)
    assert seen_at(thief) == [None] * len(seen_at(thief))


# -- people and places -------------------------------------------------------------------------------------------------


def test_a_copied_marker_makes_no_comment_ours(bench: Bench, github: RunningGitHub) -> None:
    event = bench.comment_event("/ptebot export")
    number = event["issue"]["number"]
    github.create_user("mallory")
    copied = f"<!-- ptebot:reply comment={event['comment']['id']} -->\nmine"
    bench.repo.add_comment(number, "mallory", copied)
    for output in ("one", "two"):
        assert bench.run("issue_comment", event, model="m", publish="github", output=output, **ONE).code == 0
    bodies = [one.body for one in bench.repo.comments(number)]
    assert len(bodies) == 3, "the same event twice, one reply"
    assert bodies[1] == copied
    assert len(bench.repo.pulls()) == 1


def test_a_link_out_of_the_model_is_refused_before_anything_is_read(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "run_module", lambda *_, **__: pytest.fail("nothing may run"))
    outside = bench.scratch / "outside"
    outside.write_text("a secret of the machine")
    outside.chmod(0)
    for name in ("tokenizer.model", "config.json"):
        (bench.workspace / "m" / name).unlink(missing_ok=True)
        (bench.workspace / "m" / name).symlink_to(outside)
        result = _by_hand(bench, publish="none")
        assert result.code == 26
        assert f"m: {name}" in result.document["error"]["what"] or "m: config.json" in result.document["error"]["what"]
        assert str(bench.workspace) not in _said(result)


def test_a_card_that_cannot_be_edited_is_told_before_the_export(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "run_module", lambda *_, **__: pytest.fail("nothing may run"))
    for card in (b"# T\n<!-- ptebot:begin -->\n", b"# T\n```\nnever closed\n", b"\xff", b"---\n: : [\n---\n"):
        bench.repo.commit({"m/README.md": card})
        result = _by_hand(bench)
        assert (result.code, result.document["error"]["class"]) == (34, "CardInvalid")
        assert "README.md" in result.document["error"]["what"]


def test_every_published_example_of_an_event_ends_in_order(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def perform(work: Work, scene: Scene, show: OnProgress) -> Done:
        done.append(scene.request.origin.event)
        return Done(work=work, story=Story(ended=status.judge(None, "all"), subject=work.model))

    monkeypatch.setattr(step, "perform", perform)
    for group in events.examples():
        for example in group["examples"]:
            result = bench.run(group["name"], example, model="acme/tiny", hub_token="hf_x")
            assert result.code == 0, f"{group['name']}: {result.log}"
            assert result.status in ("ignored", "unchanged")
            assert result.summary and {one.name for one in runner_syntax.commands(result.log)} <= OURS
    assert set(done) == {"pull_request", "push", "release", "workflow_dispatch"}


# -- secrets and words -------------------------------------------------------------------------------------------------


def test_a_password_in_an_address_is_not_shown(bench: Bench) -> None:
    for address in ("https://bob:pass0word@hub.example", "https://hub.example/?key=pass0word", "ftp://x:pass0word@y"):
        result = _by_hand(bench, endpoint=address)
        assert result.code == 80
        assert "endpoint" in result.document["error"]["what"]
        assert "pass0word" not in _said(result)


def test_a_secret_in_a_defects_words_is_hidden_everywhere(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "no-usual-shape-1234"
    encoded = base64.b64encode(f"x-access-token:{secret}".encode()).decode()

    def plan(*_: object) -> None:
        raise RuntimeError(f"header {secret} {encoded}")

    monkeypatch.setattr(step, "plan", plan)
    run = step.run

    def masked(env: dict[str, str], log: Log) -> int:
        log.mask(secret)
        return run(env, log)

    monkeypatch.setattr(step, "run", masked)
    event = bench.comment_event("/ptebot export")
    result = bench.run("issue_comment", event, model="m", publish="github", **ONE)
    reply = bench.repo.comments(event["issue"]["number"])[-1].body
    assert "RuntimeError" in reply
    for said in (_said(result), reply):
        assert secret not in said
        assert encoded not in said


def test_the_end_is_told_when_the_job_is_cancelled_in_the_middle_of_the_answer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*_: object, **__: object) -> None:
        raise Terminated

    monkeypatch.setattr(Conversation, "finish", slow)
    result = bench.run("push", bench.push_event(before=None), model="m", publish="none", **ONE)
    assert result.code == 143
    assert "SIGTERM" in result.summary
    assert result.outputs["result"]


def test_a_defect_in_one_way_of_telling_keeps_no_other_from_being_gone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Conversation, "finish", broken)
    monkeypatch.setattr("bot.action.summary.write", broken)
    result = bench.run("push", bench.push_event(before=None), model="m", publish="none", **ONE)
    assert result.code == 1
    assert result.status == "passed"
    assert "in broken" in result.log


def test_no_advice_speaks_of_a_command_line() -> None:
    for cls in all_errors():
        if not 3 <= cls.exit_code <= 39 and not 50 <= cls.exit_code <= 51 and not 54 <= cls.exit_code <= 85:
            continue  # of commands that the Action does not run
        error = cls("/github/workspace/m: what happened")
        if cls.__module__ == "bot.localhub.errors" or error.advice.startswith("Read the log above"):
            continue
        in_a_workflow(error, Path("/github/workspace"))
        assert error.what == "m: what happened"
        words = re.findall(r"(?<!\w)--[a-z]\S*|HF_\w+|\bcommand\b(?! line)|directory on another disk", error.advice)
        assert words == [], f"{cls.__name__}: {error.advice}"


@pytest.mark.parametrize(
    ("remedy", "words"),
    [
        ("Then give that account's token (HF_TOKEN).", "Then give `hub-token` that account's token."),
        ("Give a token that may read it (HF_TOKEN).", "Give a token that may read it as `hub-token`."),
        ("Close it, and run the same command again.", "Close it, and run the job again."),
        ("Run the command again.", "Run the job again."),
        ("Choose a larger --max-seq-len.", "Choose a larger `max-seq-len`."),
        ("Fetch the weights: git lfs pull.", "Give `lfs: true` to actions/checkout."),
        ("Give `lfs: true` to actions/checkout, or run `git lfs pull`.", "Give `lfs: true` to actions/checkout."),
    ],
)
def test_advice_that_a_failure_brings_is_put_into_a_workflows_words(remedy: str, words: str) -> None:
    error = NotAuthorized("No.", remedy=remedy)
    in_a_workflow(error, Path("/github/workspace"))
    assert error.advice == words


# -- the real process --------------------------------------------------------------------------------------------------


def test_the_real_process_prints_no_foreign_command_and_no_secret(bench: Bench) -> None:
    """As the runner starts it: its own environment, files for each way to talk back, secrets all over the place."""
    secrets = {
        "ACTIONS_RUNTIME_TOKEN": "eyJrunner.token.abcdef",
        "GITHUB_TOKEN": "ghs_environment00000000",
        "HF_TOKEN": "hf_environment000000000",
        "INPUT_GITHUB-TOKEN": "ghs_input00000000000000",
        "INPUT_HUB-TOKEN": "hf_input000000000000000",
        "MY_OWN_SECRET": "of-the-job-itself-12345",
    }
    login = bench.scratch / "home" / ".cache" / "huggingface" / "token"
    login.parent.mkdir(parents=True)
    login.write_text("hf_stored0000000000000")
    (bench.workspace / ".git").mkdir()
    (bench.workspace / ".git" / "config").write_text("extraheader = AUTHORIZATION: basic c2VjcmV0LW9mLWdpdA\n")
    files = {name: bench.scratch / name for name in ("OUTPUT", "STEP_SUMMARY", "ENV", "PATH", "STATE")}
    for file in files.values():
        file.write_text("")
    (bench.scratch / "event.json").write_text(json.dumps(bench.push_event(before=None)))
    echo = json.dumps({"error": "\n::error::x " + " ".join(secrets.values()) + ALL[:500]}).encode()
    with answering(403, echo) as evil:
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(bench.scratch / "home"),
            "OMP_NUM_THREADS": "1",
            "GITHUB_ACTIONS": "true",
            "GITHUB_EVENT_NAME": "push",
            "GITHUB_EVENT_PATH": str(bench.scratch / "event.json"),
            "GITHUB_WORKSPACE": str(bench.workspace),
            "GITHUB_REPOSITORY": bench.repo.full_name,
            "GITHUB_API_URL": evil,
            "INPUT_MODEL": "acme/tiny",
            "INPUT_ENDPOINT": evil,
            "RUNNER_DEBUG": "1",
            **{f"GITHUB_{name}": str(file) for name, file in files.items()},
            **secrets,
        }
        done = subprocess.run(
            [sys.executable, ROOT / "entrypoint.py"],
            env=env, cwd=bench.workspace, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    assert done.returncode == 32, done.stdout + done.stderr
    assert {one.name for one in runner_syntax.commands(done.stdout)} <= OURS
    assert runner_syntax.commands(done.stderr) == []
    shown = [line for line in done.stdout.splitlines() if not line.startswith("::add-mask::")]
    told = "\n".join([*shown, done.stderr, files["OUTPUT"].read_text(), files["STEP_SUMMARY"].read_text()])
    known = {name: value for name, value in secrets.items() if name != "MY_OWN_SECRET"}
    for value in [*known.values(), "hf_stored", "c2VjcmV0LW9mLWdpdA"]:
        assert value not in told
    assert live(files["STEP_SUMMARY"].read_text()) == []
    assert [files[name].read_text() for name in ("ENV", "PATH", "STATE")] == ["", "", ""]
