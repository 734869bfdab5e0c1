"""The demo of the Hub bot: a server that comes and goes with it, and hears of pushes."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from bot import demo, demo_bot
from bot.errors import DemoFailed
from bot.export_process import Progress
from bot.hubapi import connect


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/healthz", timeout=10) as reply:
            return bool(reply.status == 200)
    except urllib.error.URLError:
        return False


def test_the_server_comes_hears_and_goes(tmp_path: Path) -> None:
    told: list[str] = []
    show: Callable[[Progress], None] = lambda step: told.append(step.stage)  # noqa: E731
    with demo.local_hub(tmp_path / "hub", users=(demo_bot.OWNER, demo_bot.BOT)) as hub:
        assert not any(token in repr(hub) for token in (hub.token, *hub.users.values()))
        made = demo_bot.local_bot(
            hub, tmp_path / "bot", port=0, backends=("xnnpack",), precisions=("fp32",), max_seq_len=256
        )
        with made as bot:
            assert answers(bot.address) and bot.secret not in repr(bot) and bot.admin_token not in repr(bot)
            demo_bot.watch(hub, bot)
            owner = connect(hub.endpoint, hub.users[demo_bot.OWNER])
            owner.create_repo("demo/nothing")
            owner.upload_file(path_or_fileobj=b"{}", path_in_repo="config.json", repo_id="demo/nothing")
            job = demo_bot.follow(bot, show)  # no weights: it ends before anything is exported
        assert not answers(bot.address)
    assert (job.asked.repo_id, job.state) == ("demo/nothing", "error")
    assert "plan" in told
    log = (tmp_path / "bot" / "serve.log").read_text()
    assert bot.secret not in log and bot.admin_token not in log


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    hub = demo.LocalHub(endpoint="http://not.local", token="hf_x", users={demo_bot.OWNER: "hf_x", demo_bot.BOT: "hf_x"})
    with (
        pytest.raises(DemoFailed, match="HF_ENDPOINT"),
        demo_bot.local_bot(hub, tmp_path, port=0, backends=("xnnpack",), precisions=("fp32",), max_seq_len=256),
    ):
        pass
