"""The job around a step: what it is about, and the variables that the runner makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.runner import files


@dataclass(kw_only=True)
class Job:
    """What the job around the step is; what is not said is made up."""

    event_name: str
    event: Mapping[str, Any]
    github: Mapping[str, str] = field(default_factory=dict)
    """Parts of the github context: repository, sha, ref, actor, api_url, server_url ..."""
    token: str = "ghs_" + "0" * 36
    """``github.token``."""
    secrets: Mapping[str, str] = field(default_factory=dict)
    id_token: tuple[str, str] | None = None
    """Address and token, where the job has ``id-token: write``."""
    debug: bool = False

    def context(self) -> dict[str, Any]:
        repository = self.event.get("repository") or {}
        full_name = repository.get("full_name") or "acme/tiny"
        number = (self.event.get("pull_request") or {}).get("number")
        ref = self.event.get("ref") if self.event_name == "push" else None
        ref = ref or (f"refs/pull/{number}/merge" if number else "refs/heads/main")
        sender = self.event.get("sender") or {}
        found = {
            "api_url": "https://api.github.com",
            "server_url": "https://github.com",
            "graphql_url": "https://api.github.com/graphql",
            "repository": full_name,
            "repository_id": str(repository.get("id") or 1),
            "repository_owner_id": str((repository.get("owner") or {}).get("id") or 2),
            "actor": sender.get("login") or "monalisa",
            "actor_id": str(sender.get("id") or 3),
            "sha": self.event.get("after") or "f" * 40,
            "ref": ref,
            "base_ref": ((self.event.get("pull_request") or {}).get("base") or {}).get("ref") or "",
            "head_ref": ((self.event.get("pull_request") or {}).get("head") or {}).get("ref") or "",
            **self.github,
        }
        found["repository_owner"] = found["repository"].partition("/")[0]
        found["ref_name"] = (
            found["ref"].removeprefix("refs/heads/").removeprefix("refs/tags/").removeprefix("refs/pull/")
        )
        return {**found, "token": self.token, "event_name": self.event_name, "event": self.event}

    def variables(self, github: Mapping[str, Any], suffix: str) -> dict[str, str]:
        """The runner's own variables, which nothing overrides."""
        of_context = (
            *("api_url", "graphql_url", "server_url", "actor", "actor_id", "event_name", "sha"),
            *("ref", "ref_name", "base_ref", "head_ref"),
            *("repository", "repository_id", "repository_owner", "repository_owner_id"),
        )
        found = {f"GITHUB_{name.upper()}": str(github[name]) for name in of_context}
        found |= {name: f"/github/file_commands/{kind}_{suffix}" for name, kind in files.NAMES.items()}
        found |= {
            "HOME": "/github/home",
            "GITHUB_ACTION": "__acme_ptebot",
            "GITHUB_ACTION_REF": "v0",
            "GITHUB_ACTION_REPOSITORY": "ptebot/ptebot",
            "GITHUB_EVENT_PATH": "/github/workflow/event.json",
            "GITHUB_JOB": "export",
            "GITHUB_REF_PROTECTED": "false",
            "GITHUB_REF_TYPE": "tag" if github["ref"].startswith("refs/tags/") else "branch",
            "GITHUB_RETENTION_DAYS": "90",
            "GITHUB_RUN_ATTEMPT": "1",
            "GITHUB_RUN_ID": "1234567890",
            "GITHUB_RUN_NUMBER": "7",
            "GITHUB_TRIGGERING_ACTOR": str(github["actor"]),
            "GITHUB_WORKFLOW": "Export",
            "GITHUB_WORKFLOW_REF": f"{github['repository']}/.github/workflows/export.yml@{github['ref']}",
            "GITHUB_WORKFLOW_SHA": str(github["sha"]),
            "GITHUB_WORKSPACE": "/github/workspace",
            "RUNNER_ARCH": "X64",
            "RUNNER_ENVIRONMENT": "github-hosted",
            "RUNNER_NAME": "runner",
            "RUNNER_OS": "Linux",
            "RUNNER_TEMP": "/github/runner_temp",
            "RUNNER_TOOL_CACHE": "/opt/hostedtoolcache",
            "RUNNER_WORKSPACE": "/home/runner/work/tiny",
            "ACTIONS_RUNTIME_URL": "https://pipelines.actions.githubusercontent.com/x/",
            "ACTIONS_RUNTIME_TOKEN": "runtime-" + "1" * 32,
            "ACTIONS_RESULTS_URL": "https://results-receiver.actions.githubusercontent.com/",
        }
        if self.debug:
            found["RUNNER_DEBUG"] = "1"
        if self.id_token:
            found |= dict(
                zip(("ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"), self.id_token, strict=True)
            )
        return found
