"""Without a server: the Hub starts ``ptebot hosted`` as a Job for each event, and the pull request is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from huggingface_hub import CommitOperationAdd, HfApi

from bot import hooks, hooks_serverless, job, serverless
from bot.cli import cli
from bot.console import Console
from bot.errors import HookRefused, InvalidEvent, InvalidSettings, NotAuthorized, RepoNotFound
from bot.hubapi import connect
from bot.localhub.testing import RunningHub
from bot.serverless import Nothing
from exporter.report import Report
from tests.bot import reports
from tests.bot.localhub.openapi import SPEC, Description
from tests.exporter.models import tiny_model
from tests.localjobs.running import hub_with_jobs
from tests.localjobs.server import LocalJobs

IMAGE = "ghcr.io/ptebot/ptebot@sha256:" + "b" * 64
SMALL = {"PTEBOT_BACKENDS": "portable", "PTEBOT_PRECISIONS": "fp32", "PTEBOT_MAX_SEQ_LEN": "32"}


@pytest.fixture(scope="module")
def place() -> Iterator[tuple[RunningHub, LocalJobs]]:
    with hub_with_jobs() as found:
        found[1].environment = {
            "OMP_NUM_THREADS": "1",
            "HF_ENDPOINT": found[0].endpoint,
            "PTEBOT_STATE": str(found[1].folder / "state"),
        }
        yield found


@pytest.fixture
def hub(place: tuple[RunningHub, LocalJobs]) -> RunningHub:
    place[0].traffic.clear()
    return place[0]


@pytest.fixture
def jobs(place: tuple[RunningHub, LocalJobs]) -> LocalJobs:
    return place[1]


@pytest.fixture
def bot(hub: RunningHub) -> HfApi:
    """The bot's account, without webhooks."""
    api = connect(hub.endpoint, hub.create_user("hosted-bot"))
    for one in api.list_webhooks():
        api.delete_webhook(one.id)
    return api


@pytest.fixture
def acme(hub: RunningHub) -> HfApi:
    return connect(hub.endpoint, hub.create_user("acme"))


def payload(repo_id: str, sha: str, **repo: Any) -> str:
    named = {"type": "model", "name": repo_id, "id": "a" * 24, "headSha": sha, "owner": {"id": "b" * 24}, **repo}
    return json.dumps(
        {
            "event": {"action": "update", "scope": "repo.content"},
            "repo": named,
            "webhook": {"id": "c" * 24, "version": 3},
            "updatedRefs": [{"ref": "refs/heads/main", "oldSha": None, "newSha": sha}],
        }
    )


def push(api: HfApi, name: str, files: dict[str, bytes]) -> tuple[str, str]:
    repo_id = str(api.create_repo(name, exist_ok=True).repo_id)
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    return repo_id, str(api.create_commit(repo_id, operations, commit_message="a model").oid)


def hosted(env: dict[str, str], tmp_path: Path) -> job.Outcome | Nothing:
    return serverless.run(env, root=tmp_path, show=lambda _: None, log=lambda _: None)


def test_from_a_push_to_the_pull_request(
    hub: RunningHub, jobs: LocalJobs, bot: HfApi, acme: HfApi, tmp_path: Path
) -> None:
    """Installed as an organisation does it; the Job is a real process, and makes a real export."""
    acme.create_repo("acme/hosted")
    env = {**SMALL, "PTEBOT_EXPORT_TIMEOUT": "600"}
    done = hooks_serverless.install(
        bot, ["acme/hosted"], image=IMAGE, flavor="cpu-basic", token=str(bot.token), env=env
    )
    assert done.operation == "created" and done.hook.url is None and done.hook.job_image == IMAGE
    (template,) = jobs.jobs.values()
    template.over.wait(60)
    assert template.stage == "COMPLETED" and serverless.TEMPLATE in template.log.read_text()
    assert template.spec.get("secrets", {}) == {}
    model = tiny_model("llama", tmp_path / "model", num_hidden_layers=1)
    files = {path.name: path.read_bytes() for path in model.iterdir()}
    push(acme, "acme/hosted", {**files, "README.md": b"---\nlicense: mit\n---\n# Tiny\n"})
    hub.hub.deliveries._queue.put("0" * 24)  # the queue is in order: once this is through, so is the push
    started = [one for one in _wait_for_jobs(jobs, 2) if one is not template]
    assert started[0].over.wait(600)
    said = started[0].log.read_text()
    assert started[0].stage == "COMPLETED", said
    (pull,) = [one for one in acme.get_repo_discussions("acme/hosted") if one.is_pull_request]
    assert pull.author == "hosted-bot"
    names = acme.list_repo_files("acme/hosted", revision=f"refs/pr/{pull.num}")
    assert any(name.endswith(".pte") for name in names)
    assert str(bot.token) not in said
    # Our own pull request moves no main branch, and merged it holds the files that it would be asked for.
    acme.merge_pull_request("acme/hosted", pull.num)
    for one in _wait_for_jobs(jobs, 4):
        assert one.over.wait(120)
    assert all(one.stage == "COMPLETED" for one in jobs.jobs.values())
    assert len([one for one in acme.get_repo_discussions("acme/hosted") if one.is_pull_request]) == 1
    if SPEC.is_file():
        verdict = Description().check(hub.traffic)
        assert not verdict.errors, "\n".join(verdict.errors[:20])


def _wait_for_jobs(jobs: LocalJobs, count: int) -> list[Any]:
    done = threading.Event()
    for _ in range(3000):
        if len(jobs.jobs) >= count:
            return list(jobs.jobs.values())
        done.wait(0.02)
    raise AssertionError(f"{len(jobs.jobs)} jobs, not {count}")


def test_two_at_once_make_one_pull_request(
    hub: RunningHub, bot: HfApi, acme: HfApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two Jobs on two machines, with a lock for each, both of which have their export when the first one publishes."""
    repo_id, sha = push(acme, "acme/twice", {**reports.MODEL_FILES, "README.md": b"# Twice\n"})
    together = threading.Barrier(2)

    def export(spec: Any, model: Path, out: Path, **options: Any) -> Report:
        made = reports.report(repo_id=repo_id, revision=sha)
        made = type(made)(**{**made.__dict__, "spec": spec})
        reports.write(made, out)
        together.wait(60)
        return made

    monkeypatch.setattr("bot.export_process.run_export", export)
    monkeypatch.setattr("bot.export_process.check_spec", lambda *_, **__: None)
    env = {"WEBHOOK_PAYLOAD": payload(repo_id, sha), "HF_TOKEN": str(bot.token), "HF_ENDPOINT": hub.endpoint}
    ended: list[Any] = []

    def one(folder: Path) -> None:
        try:
            ended.append(hosted(env, folder))
        except BaseException as error:
            ended.append(error)

    threads = [threading.Thread(target=one, args=(tmp_path / name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    operations = sorted(found.published.operation for found in ended)
    assert operations in (["created", "unchanged"], ["created", "created"]), operations
    open_ones = [pull for pull in acme.get_repo_discussions(repo_id) if pull.is_pull_request and pull.status == "open"]
    assert len(open_ones) == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no WEBHOOK_PAYLOAD"),
        (" \n", "no WEBHOOK_PAYLOAD"),
        (payload("acme/x", "1" * 40, type="dataset"), "no model"),
        (payload("acme/x", "1" * 40).replace("refs/heads/main", "refs/pr/1"), "main branch did not move"),
        (payload("acme/x", "1" * 40).replace("repo.content", "repo.config"), "changes no file"),
    ],
)
def test_what_asks_for_nothing(text: str, reason: str) -> None:
    found = serverless.asked({"WEBHOOK_PAYLOAD": text})
    assert isinstance(found, Nothing) and reason in found.reason


@pytest.mark.parametrize("text", ["{", "\x00", "[" * 100_000, '"x' + "y" * (1 << 20)])
def test_what_is_no_payload(text: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        serverless.asked({"WEBHOOK_PAYLOAD": text})
    assert len(str(caught.value)) < 1000


def test_what_the_repository_says_goes_before_the_payload(
    hub: RunningHub, bot: HfApi, acme: HfApi, tmp_path: Path
) -> None:
    repo_id, old = push(acme, "acme/moved", dict(reports.MODEL_FILES))
    env = {"HF_TOKEN": str(bot.token), "HF_ENDPOINT": hub.endpoint}
    _, new = push(acme, repo_id, {".ptebot.yml": b"enabled: false\n"})
    moved = hosted({**env, "WEBHOOK_PAYLOAD": payload(repo_id, old)}, tmp_path)
    assert isinstance(moved, Nothing) and new[:12] in moved.reason
    off = hosted({**env, "WEBHOOK_PAYLOAD": payload(repo_id, new)}, tmp_path)
    assert isinstance(off, Nothing) and "enabled: false" in off.reason
    with pytest.raises(NotAuthorized, match="HF_TOKEN"):
        hosted({"HF_ENDPOINT": hub.endpoint, "WEBHOOK_PAYLOAD": payload(repo_id, new)}, tmp_path)
    with pytest.raises(RepoNotFound):
        hosted({**env, "WEBHOOK_PAYLOAD": payload("acme/none", new)}, tmp_path)
    with pytest.raises(InvalidSettings):
        hosted({**env, "PTEBOT_BACKENDS": "nonsense", "WEBHOOK_PAYLOAD": payload(repo_id, new)}, tmp_path)


def test_the_command_says_why_there_is_nothing_to_do(tmp_path: Path) -> None:
    env = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "PTEBOT_", "WEBHOOK_"))}
    done = subprocess.run(
        [sys.executable, "-m", "bot.cli", "hosted", "--json"], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"operation": "none", "reason": serverless.TEMPLATE}


# Installing.


def install(hub: RunningHub, bot: HfApi, *args: str) -> Result:
    env = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": str(bot.token)}
    return CliRunner().invoke(cli, ["hook", "install", *args], obj=Console(), env=env)


def test_installed_twice_it_is_one_webhook_with_a_new_template(
    hub: RunningHub, jobs: LocalJobs, bot: HfApi, acme: HfApi
) -> None:
    args = ("--serverless", "--image", IMAGE, "--env", "PTEBOT_BACKENDS=portable")
    assert "Webhook made" in install(hub, bot, "acme", *args).output
    again = install(hub, bot, "hosted-bot", *args)
    assert again.exit_code == 0 and "Webhook changed" in again.output and str(bot.token) not in again.output
    (hook,) = hooks.listed(bot)
    assert hook.watched == ("user:acme", "user:hosted-bot") and hook.domains == ("repo",)
    assert hooks_serverless.ours(hook)
    sent = [one.request_json for one in hub.traffic if one.method == "POST" and "settings/webhooks" in one.path]
    assert [body["secrets"] for body in sent] == [{"HF_TOKEN": str(bot.token)}] * 2
    made = [one.request_json for one in hub.traffic if one.method == "POST" and one.path.startswith("/api/jobs/")]
    assert [body["environment"] for body in made] == [{"PTEBOT_BACKENDS": "portable"}] * 2
    assert not any("secrets" in body for body in made)
    assert hook.job_image == IMAGE and hook.url is None


@pytest.mark.parametrize(
    "args",
    [
        ("--image", "ghcr.io/ptebot/ptebot:latest"),
        ("--image", IMAGE + "0"),
        ("--image", "-v@sha256:" + "a" * 64),
        ("--image", IMAGE, "--flavor", "cpu upgrade"),
        ("--image", IMAGE, "--env", "HF_TOKEN=hf_x"),
        ("--image", IMAGE, "--env", "PTEBOT_ADMIN_TOKEN=x"),
        ("--image", IMAGE, "--env", "PTEBOT_BACKENDS=a\nb"),
        ("--image", IMAGE, "--env", "PATH=/tmp"),
    ],
)
def test_what_cannot_be_installed(hub: RunningHub, bot: HfApi, acme: HfApi, args: tuple[str, ...]) -> None:
    found = install(hub, bot, "acme", "--serverless", *args)
    assert isinstance(found.exception, HookRefused)
    assert not [one for one in hub.traffic if one.method == "POST" and "/api/jobs/" in one.path]
    assert hooks.listed(bot) == []


def test_wrong_usage(hub: RunningHub, bot: HfApi) -> None:
    assert install(hub, bot, "acme", "--serverless").exit_code == 2
    assert install(hub, bot, "acme", "--serverless", "--image", IMAGE, "--url", "https://x").exit_code == 2
    assert install(hub, bot, "acme", "--image", IMAGE, "--url", "https://x").exit_code == 2


def test_a_webhook_that_is_refused_leaves_no_job(hub: RunningHub, jobs: LocalJobs, bot: HfApi, acme: HfApi) -> None:
    jobs.hold.clear()
    before = set(jobs.jobs)
    hub.fail("/api/settings/webhooks", 400, method="POST")
    try:
        found = install(hub, bot, "acme", "--serverless", "--image", IMAGE)
    finally:
        hub.clear_faults()
        jobs.hold.set()
    assert isinstance(found.exception, HookRefused)
    (made,) = set(jobs.jobs) - before
    assert jobs.jobs[made].stage == "CANCELED" and hooks.listed(bot) == []
