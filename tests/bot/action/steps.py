"""One step of a job, run in this process: a workspace, an event, inputs, a local Hub and a local GitHub."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bot.action import step
from bot.action.commands import Log
from bot.action.inputs import INPUTS
from bot.localhub.testing import RunningHub
from tests.localgithub.testing import LocalRepo, RunningGitHub

OUTPUT_END = "\n"


@dataclass
class Result:
    """What a step left behind."""

    code: int
    log: str
    summary: str
    outputs: dict[str, str]

    @property
    def status(self) -> str:
        return self.outputs["status"]

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.outputs["result"])
        return found


def push_event(repo: LocalRepo) -> dict[str, Any]:
    """An ordinary update of the main branch, as a runner's file tells it: commits without their paths."""
    head = repo.head() or "0" * 40
    return {
        "ref": "refs/heads/main",
        "before": head,
        "after": head,
        "created": False,
        "deleted": False,
        "forced": False,
        "commits": [],
        "repository": {"full_name": repo.full_name, "default_branch": "main"},
        "sender": {"login": "octo"},
    }


@dataclass
class Bench:
    """Where steps run."""

    scratch: Path
    github: RunningGitHub
    repo: LocalRepo
    hub: RunningHub
    env: dict[str, str] = field(default_factory=dict)

    @property
    def workspace(self) -> Path:
        return self.scratch / "workspace"

    def check_out(self, rev: str | None = None) -> None:
        """The repository's files, LFS pointers filled in, as actions/checkout with ``lfs: true`` leaves them."""
        for path in self.repo.files(rev):
            there = self.workspace / path
            there.parent.mkdir(parents=True, exist_ok=True)
            there.write_bytes(self.repo.read(path, rev))

    def push_event(self, **fields: Any) -> dict[str, Any]:
        return {**push_event(self.repo), **fields}

    def comment_event(self, body: str, *, login: str = "octo", number: int | None = None) -> dict[str, Any]:
        """Somebody writes a comment on an issue; the event that tells of it."""
        number = number if number is not None else self.repo.open_issue(login)
        comment = self.repo.add_comment(number, login, body)
        return {
            "action": "created",
            "issue": {"number": number, "locked": False},
            "comment": {"id": comment, "body": body, "user": {"login": login, "type": "User"}},
            "repository": {"full_name": self.repo.full_name, "default_branch": "main"},
            "sender": {"login": login},
        }

    def run(self, name: str, event: object, **inputs: str) -> Result:
        """One step. Inputs are named with underscores; what is not given has its default."""
        self.workspace.mkdir(exist_ok=True)
        files = {key: self.scratch / key for key in ("event", "outputs", "summary")}
        files["event"].write_text(event if isinstance(event, str) else json.dumps(event))
        for key in ("outputs", "summary"):
            files[key].write_text("")
        given = {one.name: one.default for one in INPUTS}
        given |= {"github-token": self.github.installation_token(self.repo), "endpoint": self.hub.endpoint}
        given |= {key.replace("_", "-"): value for key, value in inputs.items()}
        env = {
            "GITHUB_ACTIONS": "true",
            "GITHUB_EVENT_NAME": name,
            "GITHUB_EVENT_PATH": str(files["event"]),
            "GITHUB_WORKSPACE": str(self.workspace),
            "GITHUB_OUTPUT": str(files["outputs"]),
            "GITHUB_STEP_SUMMARY": str(files["summary"]),
            "GITHUB_REPOSITORY": self.repo.full_name,
            "GITHUB_SHA": self.repo.head() or "",
            "GITHUB_REF": "refs/heads/main",
            "GITHUB_ACTOR": "octo",
            "GITHUB_API_URL": self.github.api_url,
            "GITHUB_SERVER_URL": self.github.server_url,
            "GITHUB_RUN_ID": "4711",
            **{f"INPUT_{key.upper()}": value for key, value in given.items()},
            **self.env,
        }
        stream = io.StringIO()
        code = step.run(env, Log(stream, on_github=True))
        return Result(code, stream.getvalue(), files["summary"].read_text(), _outputs(files["outputs"].read_text()))


def _outputs(text: str) -> dict[str, str]:
    """GITHUB_OUTPUT as the runner reads it: ``name<<END``, lines, ``END``."""
    found, lines = {}, iter(text.splitlines())
    for line in lines:
        name, _, end = line.partition("<<")
        value = []
        for each in lines:
            if each == end:
                break
            value.append(each)
        found[name] = "\n".join(value)
    return found
