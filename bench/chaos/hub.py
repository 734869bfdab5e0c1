"""The Hub of the chaos run: repositories, pushes, the webhook and its replays, and what is there in the end.

Everything goes over the local Hub's HTTP API, as an organisation would do it and see it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.utils import get_session

from bot.hubapi import connect
from bot.localhub.testing import RunningHub
from tests.bot import reports

OWNER, BOT = "acme", "ptebot-user"
CARD = b"---\nlicense: mit\n---\n# A model\n"


@dataclass
class Push:
    """One commit on a main branch."""

    repo_id: str
    number: int
    sha: str
    weights: bytes


@dataclass
class Organisation:
    """An owner with models, and the bot's account beside it."""

    hub: RunningHub
    owner: HfApi
    bot_token: str
    hook: str = ""
    pushes: list[Push] = field(default_factory=list)

    @staticmethod
    def on(hub: RunningHub) -> Organisation:
        owner = connect(hub.endpoint, hub.create_user(OWNER))
        return Organisation(hub, owner, hub.create_user(BOT))

    def create(self, name: str) -> str:
        repo_id = f"{OWNER}/{name}"
        self.owner.create_repo(repo_id)
        self._commit(repo_id, {**reports.MODEL_FILES, "README.md": CARD})
        return repo_id

    def push(self, repo_id: str) -> Push:
        """New weights; the Hub tells its webhooks."""
        number = sum(one.repo_id == repo_id for one in self.pushes) + 1
        weights = b"\x08\0\0\0\0\0\0\0{}      " + f"{repo_id} {number}".encode()
        push = Push(repo_id, number, self._commit(repo_id, {"model.safetensors": weights}), weights)
        self.pushes.append(push)
        return push

    def install(self, url: str, secret: str) -> None:
        """The bot's webhook for all of the owner's repositories."""
        body = {"url": url, "secret": secret, "watched": [{"type": "user", "name": OWNER}], "domains": ["repo"]}
        self.hook = self._call("POST", "/api/settings/webhooks", body)["webhook"]["id"]

    def deliver_again(self, push: Push) -> None:
        """What its owner does on the Hub's page after the server was away: enable the webhook, replay the delivery."""
        self._call("POST", f"/api/settings/webhooks/{self.hook}/enable", {})
        for one in self._call("GET", f"/api/settings/webhooks/{self.hook}/log"):
            if push.sha in str(one["payload"]):
                self._call("POST", f"/api/settings/webhooks/{self.hook}/replay/{one['id']}", {})
                return
        # suspended when it was pushed, so the Hub has no delivery of it: the same push is told by hand
        self.hub.hub.deliveries.enqueue(self.hook, self._payload(push))

    def pulls(self, repo_id: str) -> list[tuple[int, str]]:
        """Number and status of all pull requests, closed ones too."""
        found = self.owner.get_repo_discussions(repo_id, discussion_type="pull_request", discussion_status="all")
        return sorted((one.num, str(one.status)) for one in found)

    def offered(self, repo_id: str, num: int, path: str, scratch: Path) -> bytes:
        """A file on a pull request's branch."""
        folder = scratch / repo_id
        name = self.owner.hf_hub_download(repo_id, path, revision=f"refs/pr/{num}", local_dir=folder)
        return Path(name).read_bytes()

    def _payload(self, push: Push) -> dict[str, Any]:
        info = self.owner.model_info(push.repo_id)
        return {
            "event": {"action": "update", "scope": "repo.content"},
            "repo": {"type": "model", "name": push.repo_id, "id": "0" * 24, "private": False, "headSha": info.sha},
            "updatedRefs": [{"ref": "refs/heads/main", "oldSha": None, "newSha": push.sha}],
            "webhook": {"id": self.hook, "version": 3},
        }

    def _commit(self, repo_id: str, files: dict[str, bytes]) -> str:
        operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=files[name]) for name in files]
        return str(self.owner.create_commit(repo_id, operations, commit_message="New weights").oid)

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        headers = {"Authorization": f"Bearer {self.bot_token}"}
        reply = get_session().request(method, self.hub.endpoint + path, json=body, headers=headers)
        reply.raise_for_status()
        return reply.json()


def expected(push: Push, backend: str, precision: str) -> bytes:
    """What ``bench.chaos.exporter`` writes for these weights."""
    return f"{backend} {precision} of {hashlib.sha256(push.weights).hexdigest()}".encode()
