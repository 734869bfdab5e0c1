"""The main path as GitHub runs it: an event in, a pull request on the local Hub out; and a cancelled job."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from bot.localhub.testing import RunningHub, running_hub
from tests.bot.action.steps import push_event
from tests.engine import DockerEngine
from tests.exporter.models import tiny_model
from tests.localgithub.testing import LocalRepo, RunningGitHub, running_github
from tests.runner import Job, Result, Running, run_action, start_action
from tests.runner.action import RUNNER_UID
from tools.engine import ROOT

SMALL = {"backends": "portable", "precision": "fp32", "max-seq-len": 32, "hub-token": "${{ secrets.HF_TOKEN }}"}
EXPORT_UID = 10001
OF_THE_JOB = ("INPUT_", "GITHUB_", "ACTIONS_", "RUNNER_", "HF_TOKEN")
"""Beginnings of variables that the exporter must not have."""
_LOOK = """
import json, os
found, uid = [], UID
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        command = open(f"/proc/{pid}/cmdline").read().split("\\0")
        lines = dict(line.split(":", 1) for line in open(f"/proc/{pid}/status").read().splitlines())
    except OSError:
        continue
    found.append({"pid": pid, "command": command, "uids": lines["Uid"].split(), "seccomp": lines["Seccomp"].strip()})
os.setgroups([]); os.setgid(uid); os.setuid(uid)  # root in a container may not read another user's environment
for one in found:
    if one["uids"][0] == str(uid):
        try:
            lines = open(f"/proc/{one['pid']}/environ").read().split("\\0")
            one["env"] = [line.split("=")[0] for line in lines if line]
        except OSError:
            pass
print(json.dumps(found))
""".replace("UID", str(EXPORT_UID), 1)
"""A look at a container's processes from inside."""


@dataclass(frozen=True, kw_only=True)
class World:
    """What there is around a step."""

    docker: DockerEngine
    hub: RunningHub
    github: RunningGitHub
    repo: LocalRepo
    model: str
    """Its id on the Hub."""
    workspace: Path
    token: str
    """The Hub's."""

    @property
    def owner(self) -> HfApi:
        return HfApi(endpoint=self.hub.endpoint, token=self.token)

    @property
    def job(self) -> Job:
        return Job(
            event_name="push",
            event=push_event(self.repo),
            github={"api_url": self.github.api_url, "server_url": self.github.server_url, "actor": "octo"},
            token=self.github.installation_token(self.repo),
            secrets={"HF_TOKEN": self.token},
        )

    @property
    def step(self) -> dict[str, Any]:
        return {
            "workspace": self.workspace,
            "job": self.job,
            "with_": {**SMALL, "model": self.model, "endpoint": self.hub.endpoint},
            # The local Hub's Xet storage is a folder of this machine, which no container sees.
            "env": {"OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_XET": "1"},
        }

    def pull_requests(self) -> list[Any]:
        return list(self.owner.get_repo_discussions(self.model, discussion_type="pull_request"))


@pytest.fixture
def world(docker_engine: DockerEngine, tmp_path: Path) -> Iterator[World]:
    """A model on the Hub, and a repository on GitHub whose training code makes it."""
    with running_hub() as hub, running_github() as github:
        github.create_user("octo")
        repo = github.create_repo("octo", "training", {"train.py": b"print()\n"})
        token = hub.create_user("acme")
        owner = HfApi(endpoint=hub.endpoint, token=token)
        owner.create_repo("acme/tiny")
        owner.upload_folder(repo_id="acme/tiny", folder_path=tiny_model("llama", tmp_path / "model"))
        workspace = tmp_path / "workspace"
        workspace.mkdir()
        (workspace / "train.py").write_text("print()\n")
        yield World(
            docker=docker_engine, hub=hub, github=github, repo=repo, model="acme/tiny", workspace=workspace, token=token
        )


def exporting(world: World, running: Running, timeout: float = 120) -> list[dict[str, Any]]:
    """The container's processes at a moment at which the exporter is one of them."""
    look = ["/opt/ptebot/bin/python", "-I", "-S", "-c", _LOOK]
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        said = world.docker.run("exec", running.name, *look, check=False).stdout
        processes: list[dict[str, Any]] = json.loads(said) if said.startswith("[") else []
        if any(_is_export(one) for one in processes):
            return processes
        assert running.process.poll() is None, "it ended before it exported:\n" + "\n".join(running.reader.raw)
        time.sleep(0.3)
    raise AssertionError("it never exported:\n" + "\n".join(running.reader.raw))


def _is_export(process: dict[str, Any]) -> bool:
    return "exporter" in process["command"] and "env" in process


def test_a_push_becomes_a_pull_request(world: World) -> None:
    with start_action(world.docker, ROOT / "action.yml", **world.step) as (running, result):
        processes = exporting(world, running)
        running.wait(300)
        ended: Result = result()
    assert (ended.exit_code, ended.conclusion, ended.errors, ended.warnings) == (0, "success", [], []), ended.masked_log
    assert (ended.outputs["status"], ended.outputs["pr-operation"]) == ("passed", "created")

    opened = world.pull_requests()
    assert len(opened) == 1
    assert ended.outputs["pr-url"] == f"{world.hub.endpoint}/{world.model}/discussions/{opened[0].num}"
    assert ended.summary is not None
    assert ended.outputs["pr-url"] in ended.summary
    files = world.owner.list_repo_files(world.model, revision=f"refs/pr/{opened[0].num}")
    assert [name for name in files if name.endswith(".pte")]

    _has_files(world, ended)
    _tells_no_secret(world, ended)
    _runs_apart([one for one in processes if _is_export(one)], world)

    again = _again(world)
    assert (again.outputs["status"], again.outputs["pr-operation"]) == ("unchanged", "unchanged"), again.masked_log
    assert len(world.pull_requests()) == 1


def _has_files(world: World, ended: Result) -> None:
    """What later steps read lies in the workspace and belongs to its owner; nothing lies anywhere else."""
    report = json.loads((world.workspace / ended.outputs["report"]).read_text(encoding="utf-8"))
    assert report["cells"][0]["backend"] == "portable"
    assert (world.workspace / ended.outputs["manifest"]).is_file()
    owner = RUNNER_UID if os.geteuid() == 0 else os.getuid()
    assert {path.stat().st_uid for path in world.workspace.rglob("*")} == {owner}
    assert sorted(path.name for path in world.workspace.iterdir()) == ["ptebot-out", "train.py"]
    assert ended.left == []


def _tells_no_secret(world: World, ended: Result) -> None:
    shown = [line for line in ended.log.splitlines() if not line.startswith("::add-mask::")]
    told = "\n".join([*shown, ended.summary or "", *ended.outputs.values()])
    kept = b"".join(path.read_bytes() for path in world.workspace.rglob("*") if path.is_file())
    for secret in (world.token, world.job.token, "runtime-"):
        assert secret not in told
        assert secret.encode() not in kept
    assert world.token not in ended.masked_log


def _runs_apart(exports: list[dict[str, Any]], world: World) -> None:
    for one in exports:
        assert set(one["uids"]) == {str(EXPORT_UID)}
        assert world.token not in " ".join(one["command"])
        assert not [
            name for name in one["env"] if name.startswith(("INPUT_", "GITHUB_", "ACTIONS_", "RUNNER_", "HF_T"))
        ]
        assert one["seccomp"] == "2", "system calls for a network are refused"


def _again(world: World) -> Result:
    """The same event delivered twice, on a fresh checkout."""
    shutil.rmtree(world.workspace / "ptebot-out")
    return run_action(world.docker, ROOT / "action.yml", **world.step)


def test_a_cancelled_job_leaves_nothing(world: World) -> None:
    with start_action(world.docker, ROOT / "action.yml", **world.step) as (running, result):
        exporting(world, running)
        running.cancel()
        ended: Result = result()
    assert ended.conclusion == "cancelled"
    assert ended.exit_code not in (0, 137), "it ended by itself, not by a kill"
    assert "cancelled" in ended.masked_log
    assert ended.outputs["status"] == "error"
    assert "cancelled" in (ended.summary or "")
    assert world.pull_requests() == []
    assert ended.left == []
    assert sorted(path.name for path in world.workspace.iterdir()) == ["train.py"]
    assert ended.container not in world.docker.run("ps", "--all", "--format", "{{.Names}}").stdout


def test_a_model_folder_becomes_a_pull_request_on_github(world: World, tmp_path: Path) -> None:
    """The folder's words are hostile: none of them may speak to the runner."""
    trap = "::error::taken%0A::set-output name=status::evil"
    files = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    files |= {"README.md": f"---\nlicense: mit\n---\n{trap}\n##[error]taken\n".encode(), "::error::taken.txt": b"x"}
    files = {f"models/tiny/{name}": content for name, content in files.items()}
    before = world.repo.head()
    world.repo.commit(files, message=f"##[error]taken\n\n{trap}\n")
    for name, content in files.items():
        path = world.workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o600)
    given = {key: SMALL[key] for key in ("backends", "precision", "max-seq-len")}
    given |= {"model": "models/tiny", "publish": "github"}
    event = {**world.job.event, "before": before, "commits": [{"message": trap, "modified": list(files)}]}
    job = Job(event_name="push", event=event, github=world.job.github, token=world.job.token)
    ended = run_action(world.docker, ROOT / "action.yml", **{**world.step, "job": job, "with_": given})
    assert (ended.exit_code, ended.conclusion, ended.errors) == (0, "success", []), ended.masked_log
    assert (ended.outputs["status"], ended.outputs["pr-operation"]) == ("passed", "created"), ended.log
    [pull] = world.repo.pulls("open")
    assert ended.outputs["pr-url"] == f"{world.github.server_url}/octo/training/pull/{pull.number}"
    assert "models/tiny/executorch/portable/tiny_portable_fp32.pte" in world.repo.files("ptebot/models--tiny")
    said = {command.name for command in ended.commands}
    assert said <= {"add-mask", "debug", "endgroup", "group", "notice", "stop-commands"}
    assert not [command for command in ended.annotations("notice") if "taken" in command.data]
    owner = RUNNER_UID if os.geteuid() == 0 else os.getuid()
    assert {path.stat().st_uid for path in world.workspace.rglob("*")} == {owner}


def test_what_a_model_says_is_shown_and_never_obeyed(world: World, tmp_path: Path) -> None:
    model = world.workspace / "model"
    shutil.copytree(tmp_path / "model", model)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    config["model_type"] = "x\r\n::set-output name=status::evil\n##[error]taken\n::add-mask::a\n::stop-commands::x"
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    given = {"model": "./model", "publish": "none", "backends": "portable", "precision": "fp32"}
    asked = {key: world.job.event[key] for key in ("ref", "repository", "sender")}
    job = Job(event_name="workflow_dispatch", event=asked, github=world.job.github, token=world.job.token)
    ended = run_action(world.docker, ROOT / "action.yml", **{**world.step, "job": job, "with_": given})
    assert ended.conclusion == "failure", ended.log
    assert "evil" in ended.log, "it was shown"
    assert (ended.errors, ended.outputs["status"]) == ([], "error")
    assert "set-output" not in {command.name for command in ended.commands}
    assert {one.data for one in ended.commands if one.name == "add-mask"}.isdisjoint({"a"})
    assert [one.data for one in ended.annotations("error") if one.data.startswith("taken")] == []
    assert world.repo.branches() == ["main"]


def test_the_prebuilt_image_needs_no_action_yml(world: World, tmp_path: Path) -> None:
    """``uses: docker://...``: there are no defaults then."""
    bare = tmp_path / "action.yml"
    bare.write_text("name: bare\nruns: {using: docker, image: Dockerfile}\n")
    given = {"model": world.model, "backends": "vulcan", "endpoint": world.hub.endpoint}
    ended = run_action(world.docker, bare, **{**world.step, "with_": given})
    assert (ended.exit_code, ended.conclusion) == (80, "failure")
    assert "portable, xnnpack, openvino" in ended.annotations("error")[0].data
    assert ended.outputs["status"] == "error"

    ours = {**world.job.event, "ref": "refs/heads/ptebot/tiny"}
    job = Job(event_name="push", event=ours, github=world.job.github)
    ended = run_action(world.docker, bare, **{**world.step, "job": job, "with_": {"model": world.model}})
    assert (ended.outputs["status"], ended.conclusion, ended.annotations("error")) == ("ignored", "success", [])
