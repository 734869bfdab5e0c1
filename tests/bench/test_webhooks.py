"""The bench of webhooks: a few thousand hostile requests, and that its judge would see what must not be."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bench import webhooks
from bench.hostile_webhooks import BAD, Cases, attack
from bot.server.inbox import Inbox
from bot.server.store import Store, open_engine
from bot.web import webhook
from tests.bot.web.receiving import SECRET, receiving, settings_for
from tests.localgithub import debian

SEED, COUNT = 20261123, 2_000


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(open_engine(f"sqlite:///{tmp_path / 'ptebot.db'}"))
    made.create()
    return made


def test_hostile_requests_change_nothing_and_break_nothing(store: Store) -> None:
    with receiving(settings_for(), store) as running:
        outcome = asyncio.run(attack(running.port, SECRET, seed=SEED, count=COUNT))
    assert webhooks.judge(outcome, store) == []
    assert sum(outcome.statuses.values()) == COUNT
    assert {202, 400, 401, 403, 404, 405, 413} <= outcome.statuses.keys()
    assert len(outcome.expected) > COUNT / 20


def test_the_judge_sees_an_open_door(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook.hmac, "compare_digest", lambda *_: True)
    with receiving(settings_for(), store) as running:
        outcome = asyncio.run(attack(running.port, SECRET, seed=SEED, count=200))
    found = webhooks.judge(outcome, store)
    assert any("202" in line for line in found) and any(BAD in line for line in found)


def test_the_judge_sees_failures_and_losses(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async def forgets(_self: Inbox, _delivery: object) -> bool:
        return True

    monkeypatch.setattr(Inbox, "put", forgets)
    with receiving(settings_for(), store) as running:
        outcome = asyncio.run(attack(running.port, SECRET, seed=SEED, count=200))
    assert any("was lost" in line for line in webhooks.judge(outcome, store))
    monkeypatch.setattr(webhook.hub, "parse", lambda _: 1 / 0)
    with receiving(settings_for(), store) as running:
        outcome = asyncio.run(attack(running.port, SECRET, seed=SEED, count=50))
    assert any(": 500: " in line for line in webhooks.judge(outcome, store))


def test_cases_are_the_same_for_a_seed() -> None:
    one, two, other = Cases(1, SECRET), Cases(1, SECRET), Cases(2, SECRET)
    first = [one.next().raw for _ in range(100)]
    assert first == [two.next().raw for _ in range(100)]
    assert first != [other.next().raw for _ in range(100)]


def test_load_is_measured(tmp_path: Path) -> None:
    debian.command("wrk", "wrk")
    figures = webhooks.load(f"sqlite:///{tmp_path / 'load.db'}", seconds=1, connections=20)
    assert figures.requests > 20 and figures.failed == 0
    assert 0 < figures.p50 <= figures.p99
    assert figures.kept > 0
