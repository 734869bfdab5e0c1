"""GitHub's events for tests: the published examples, fetched once, and those that they lack, built by hand."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from filelock import FileLock

from tests.localgithub import debian

PACKAGE = "@octokit/webhooks-examples@7.6.1"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ptebot" / "tests"
SHA, BEFORE = "a" * 40, "b" * 40
ENV = {
    "GITHUB_REPOSITORY": "acme/tiny",
    "GITHUB_ACTOR": "octocat",
    "GITHUB_SHA": "c" * 40,
    "GITHUB_REF": "refs/heads/main",
}


def examples() -> list[dict[str, Any]]:
    """What @octokit/webhooks-examples has for api.github.com: ``name`` and ``examples``, a payload each."""
    kept = CACHE / "octokit-webhooks-examples-7.6.1.json"
    CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{kept}.lock"):
        if not kept.exists():
            _fetch(kept)
    found: list[dict[str, Any]] = json.loads(kept.read_text(encoding="utf-8"))
    return found


def _fetch(kept: Path) -> None:
    debian.command("npm", "npm", "nodejs")
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        packed = subprocess.run(
            ["npm", "pack", "--silent", PACKAGE], cwd=scratch, check=True, capture_output=True, text=True, timeout=300
        )
        with tarfile.open(Path(scratch, packed.stdout.split()[-1])) as archive:
            member = archive.extractfile("package/api.github.com/index.json")
            assert member is not None
            whole = Path(scratch, "index.json")
            whole.write_bytes(member.read())
        whole.replace(kept)


def repository(full_name: str = "acme/tiny") -> dict[str, Any]:
    owner, _, name = full_name.partition("/")
    return {"id": 1, "name": name, "full_name": full_name, "owner": {"login": owner}, "default_branch": "main"}


def user(login: str = "octocat", kind: str = "User") -> dict[str, Any]:
    return {"login": login, "id": 5, "type": kind}


def push(branch: str = "main", **fields: Any) -> dict[str, Any]:
    """An ordinary update of a branch, as a webhook delivers it."""
    commit = {
        "id": SHA,
        "tree_id": "d" * 40,
        "distinct": True,
        "message": "Train on\n\nfixes #1",
        "timestamp": "2026-11-20T10:00:00Z",
        "author": {"name": "Octo", "email": "octo@example.com", "username": "octocat"},
        "committer": {"name": "Octo", "email": "octo@example.com", "username": "octocat"},
        "added": ["models/tiny/model.safetensors"],
        "modified": ["README.md"],
        "removed": ["old.txt"],
    }
    return {
        "ref": f"refs/heads/{branch}",
        "before": BEFORE,
        "after": SHA,
        "repository": repository(),
        "pusher": {"name": "octocat", "email": "octo@example.com"},
        "sender": user(),
        "created": False,
        "deleted": False,
        "forced": False,
        "base_ref": None,
        "compare": "https://github.com/acme/tiny/compare/bbb...aaa",
        "commits": [commit],
        "head_commit": commit,
        **fields,
    }


def comment(body: str = "/ptebot export", *, pull_request: bool = False, **fields: Any) -> dict[str, Any]:
    """A new comment on an issue, or on a pull request."""
    issue: dict[str, Any] = {"number": 7, "title": "A model", "locked": False, "state": "open", "user": user()}
    if pull_request:
        issue["pull_request"] = {"url": "https://api.github.com/repos/acme/tiny/pulls/7"}
    return {
        "action": "created",
        "issue": issue,
        "comment": {"id": 99, "body": body, "user": user("mona"), "author_association": "NONE"},
        "repository": repository(),
        "sender": user("mona"),
        **fields,
    }


def pull_request(action: str = "opened", *, head: str | None = "acme/tiny", branch: str = "topic") -> dict[str, Any]:
    """A pull request to acme/tiny; ``head`` None: the fork that it came from is gone."""
    return {
        "action": action,
        "number": 7,
        "pull_request": {
            "number": 7,
            "head": {"ref": branch, "sha": SHA, "repo": repository(head) if head else None},
            "base": {"ref": "main", "sha": BEFORE, "repo": repository()},
        },
        "repository": repository(),
        "sender": user(),
    }


def hub_webhook(scope: str = "repo.content", action: str = "update", **fields: Any) -> dict[str, Any]:
    """What the Hub posts when a model's main branch moves."""
    return {
        "event": {"action": action, "scope": scope},
        "repo": {"type": "model", "name": "acme/tiny-hub", "id": "1", "private": False, "headSha": BEFORE},
        "webhook": {"id": "2", "version": 3},
        "updatedRefs": [{"ref": "refs/heads/main", "oldSha": BEFORE, "newSha": SHA}],
        **fields,
    }


def dispatch(kind: str = "ptebot-export", payload: Any = None) -> dict[str, Any]:
    return {
        "action": kind,
        "branch": "main",
        "client_payload": payload,
        "repository": repository(),
        "sender": user(),
    }
