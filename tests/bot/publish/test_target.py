"""What a job knows of publishing: when a token is asked for, and what is refused before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot import fetch
from bot.errors import NotAuthorized
from bot.publish.target import HubTarget
from tests.bot import reports
from tests.bot.hubs import Repository


def test_a_token_that_lives_for_minutes_is_asked_for_when_it_comes_to_publishing(
    repo: Repository, tmp_path: Path
) -> None:
    asked: list[str] = []

    def mint() -> str:
        asked.append("once")
        return repo.bot_token

    target = HubTarget(repo_id=repo.repo_id, endpoint=repo.hub.endpoint, token=mint, read_token=repo.bot_token)
    report = repo.report()
    out = reports.write(report, tmp_path / "out")
    now = fetch.resolve(repo.repo_id, None, endpoint=repo.hub.endpoint, token=repo.bot_token)
    target.check(dry_run=False)
    assert target.ask(now.tree, report.spec, report.toolchain) is None
    options = {"command": "ptebot", "progress": lambda _: None}
    assert target.publish(report, out, dry_run=True, **options).operation == "created"  # type: ignore[arg-type]
    assert asked == []
    assert target.publish(report, out, dry_run=False, **options).operation == "created"  # type: ignore[arg-type]
    assert asked == ["once"]
    assert target.ask(now.tree, report.spec, report.toolchain) is not None


def test_no_token_is_told_before_any_work(repo: Repository) -> None:
    target = HubTarget(repo_id=repo.repo_id, endpoint=repo.hub.endpoint, token=None)
    target.check(dry_run=True)
    with pytest.raises(NotAuthorized):
        target.check(dry_run=False)


def test_one_that_only_reads_is_told_before_the_export(repo: Repository) -> None:
    reader = HubTarget(repo_id=repo.repo_id, endpoint=repo.hub.endpoint, token=repo.hub.create_user("r", role="read"))
    with pytest.raises(NotAuthorized, match="only read"):
        reader.ready()
    HubTarget(repo_id=repo.repo_id, endpoint=repo.hub.endpoint, token=repo.bot_token).ready()
    HubTarget(repo_id=repo.repo_id, endpoint=repo.hub.endpoint, token=lambda: pytest.fail("asked")).ready()


def test_no_token_is_shown(repo: Repository) -> None:
    target = HubTarget(repo_id="acme/tiny", endpoint="https://hub.example", token="hf_secret", read_token="hf_other")
    assert "hf_" not in repr(target) and target.place == "acme/tiny on https://hub.example"
