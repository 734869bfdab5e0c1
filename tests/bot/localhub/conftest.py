"""A running Hub for each test module, whose traffic is checked against the Hub's OpenAPI at the end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import httpx2
import pytest
from huggingface_hub import HfApi
from huggingface_hub.utils import disable_progress_bars

from bot.localhub.context import MIB, Limits
from bot.localhub.testing import RunningHub, running_hub
from tests.bot.localhub.openapi import SPEC, Description

disable_progress_bars()
LIMITS = Limits(multipart_from=MIB, part_size=MIB // 2, commit_body=24 * MIB)


@cache
def description() -> Description | None:
    return Description() if SPEC.is_file() else None


@pytest.fixture(scope="module")
def hub() -> Iterator[RunningHub]:
    with running_hub(limits=LIMITS) as running:
        yield running
        spec = description()
        if spec is not None:
            verdict = spec.check(running.traffic)
            assert not verdict.errors, "\n".join(verdict.errors[:20])


@pytest.fixture(autouse=True)
def no_faults_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "hub" in request.fixturenames:
        request.getfixturevalue("hub").clear_faults()


@pytest.fixture(scope="module")
def as_user(hub: RunningHub) -> Callable[..., HfApi]:
    """``as_user("alice", orgs={...}, role="write")``: the real client, signed in as that user."""

    def make(name: str, **options: object) -> HfApi:
        return HfApi(endpoint=hub.endpoint, token=hub.create_user(name, **options))  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="module")
def alice(as_user: Callable[..., HfApi]) -> HfApi:
    """The owner of most repositories here."""
    return as_user("alice")


@pytest.fixture(scope="module")
def bot(as_user: Callable[..., HfApi]) -> HfApi:
    """Somebody else with a write token of their own."""
    return as_user("bot")


@pytest.fixture
def repo(alice: HfApi) -> str:
    """A fresh public repository of alice's."""
    return alice.create_repo(f"alice/r{os.urandom(5).hex()}").repo_id


class Http:
    """Plain HTTP to the Hub, for what the client library would never send."""

    def __init__(self, endpoint: str) -> None:
        self._client = httpx2.Client(base_url=endpoint, timeout=30, trust_env=False)

    def request(
        self, method: str, path: str, *, token: str | bool | None = None, headers: dict[str, str] | None = None,
        **options: Any,
    ) -> httpx2.Response:  # fmt: skip
        sent = dict(headers or {})
        if token:
            sent["Authorization"] = f"Bearer {token}"
        return self._client.request(method, path, headers=sent, **options)

    def get(self, path: str, **options: Any) -> httpx2.Response:
        return self.request("GET", path, **options)

    def head(self, path: str, **options: Any) -> httpx2.Response:
        return self.request("HEAD", path, **options)

    def post(self, path: str, **options: Any) -> httpx2.Response:
        return self.request("POST", path, **options)


@pytest.fixture(scope="module")
def http(hub: RunningHub) -> Http:
    return Http(hub.endpoint)
