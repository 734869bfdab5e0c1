"""The whole way with nothing stood in for: ``ptebot serve``, a real export, and a person with a browser."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from playwright.sync_api import Browser, expect

from bot.localhub.testing import running_hub
from tests.bot.hubs import CARD, repository
from tests.bot.test_serve import PATIENCE, Server, environment
from tests.bot.web.signing_in import ADMIN
from tests.browser.chromium import opened
from tests.browser.test_pages import complaints
from tests.exporter.models import tiny_model

LONG = PATIENCE * 1000


def test_paste_a_model_watch_and_get_the_pull_request(browser: Browser, tmp_path: Path, screenshots: Path) -> None:
    model = tiny_model("llama", tmp_path / "model")
    files = {file.name: file.read_bytes() for file in model.iterdir()} | {"README.md": CARD}
    with running_hub() as hub:
        repo = repository(hub, tmp_path, files)
        env = environment(
            hub, repo.bot_token, PTEBOT_ADMIN_TOKEN=ADMIN, PTEBOT_SANDBOX="none", PTEBOT_SWEEP_INTERVAL="0"
        )
        server = Server(env, tmp_path)
        try:
            with opened(browser, http_credentials={"username": "acme", "password": str(repo.owner.token)}) as one:
                page = one.page
                page.goto(f"{server.address}/new")
                page.get_by_role("link", name="Sign in").first.click()
                page.get_by_label("Administrator’s token").fill(ADMIN)
                page.get_by_role("button", name="Sign in").click()
                page.get_by_label("Model", exact=True).fill(repo.repo_id)
                page.get_by_label("xnnpack").check()
                page.get_by_role("button", name="Export").click()
                page.wait_for_url("**/jobs/*")
                page.evaluate("window.kept = true")
                expect(page.locator("#state")).to_contain_text("Running", timeout=LONG)
                expect(page.locator("#stages")).to_contain_text("lower xnnpack fp32", timeout=LONG)
                page.screenshot(path=screenshots / "serve running.png", full_page=True)
                expect(page.locator("#state")).to_contain_text("Passed", timeout=LONG)
                pull = page.get_by_role("link", name="Pull request #1")
                expect(pull).to_be_visible()
                expect(page.get_by_role("table", name="Files by backend")).to_contain_text("ran")
                expect(page.get_by_role("img", name="Parity of xnnpack fp32")).to_be_visible()
                assert page.evaluate("window.kept === true")
                one.fits()
                one.usable()
                page.screenshot(path=screenshots / "serve passed.png", full_page=True)
                assert complaints(one) == []

                address = pull.get_attribute("href") or ""
                page.goto(f"{hub.endpoint}/login")
                page.goto(address)
                page.get_by_role("button", name="Merge").click()
                expect(page.locator(".pill.merged").first).to_be_visible()
                assert repo.pulls() == [(1, "merged")] and "executorch/manifest.json" in repo.files()

                page.goto(f"{server.address}/")
                expect(page.locator("#list")).to_contain_text("Pull request #1")
                expect(page.locator("#workers")).to_contain_text("works")
                os.kill(server.process.pid, signal.SIGTERM)  # with a page that watches
                assert server.process.wait(30) == 0
        finally:
            if server.process.poll() is None:
                os.killpg(server.process.pid, signal.SIGKILL)
                server.process.wait()
