"""A real Chromium, Debian's, driven by Playwright; and axe-core, which finds what not everybody can use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests import npm
from tests.localgithub import debian

AXE_VERSION = "4.12.1"
PHONE, DESKTOP = (360, 800), (1280, 800)
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
# What does not fit: wider than the window, or a text that its own box cuts off.
_TOO_WIDE = """() => {
  const style = (one) => getComputedStyle(one);
  const shown = (one) => one.offsetParent !== null && style(one).visibility === "visible";
  const scrolls = (one) => one !== null &&
    (/auto|scroll/.test(style(one).overflowX + style(one).overflowY) || scrolls(one.parentElement));
  const all = [...document.querySelectorAll("body *")].filter((one) =>
    shown(one) && !one.closest(".unseen, .skip, thead") && !scrolls(one));
  const cut = all.filter((one) => !one.closest("svg") && /hidden|clip/.test(style(one).overflowX) &&
    one.scrollWidth > one.clientWidth + 1);
  const out = all.filter((one) => one.getBoundingClientRect().right > innerWidth + 1);
  const beside = [...document.querySelectorAll("svg text")].filter((one) => {
    const mine = one.getBoundingClientRect(), drawing = one.ownerSVGElement.getBoundingClientRect();
    return mine.left < drawing.left - 1 || mine.right > drawing.right + 1; });
  const wide = document.scrollingElement.scrollWidth - innerWidth;
  return {wide, found: [...cut, ...out, ...beside].slice(0, 5).map((one) => one.outerHTML.slice(0, 200))};
}"""


@dataclass
class Watched:
    """One page of a browser, with everything that it complained of."""

    page: Page
    said: list[str] = field(default_factory=list)

    def fits(self) -> None:
        """Nothing is wider than the window, and no text is cut off."""
        self.page.wait_for_load_state()  # with its sheet
        measured = self.page.evaluate(_TOO_WIDE)
        assert measured["wide"] <= 0 and not measured["found"], (self.page.url, measured)

    def usable(self) -> None:
        """axe-core finds nothing wrong."""
        self.page.wait_for_load_state()
        self.page.evaluate(axe().read_text(encoding="utf-8"))
        options = {"runOnly": {"type": "tag", "values": RULES}, "resultTypes": ["violations"]}
        found = self.page.evaluate("(options) => axe.run(document, options)", options)
        wrong = [(one["id"], [node["html"][:300] for node in one["nodes"][:3]]) for one in found["violations"]]
        assert not wrong, (self.page.url, wrong)
        assert len(found["passes"]) > 10


def axe() -> Path:
    """axe.min.js, fetched once."""
    return npm.file_of("axe-core", AXE_VERSION, "axe.min.js")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium without a screen."""
    debian.command("chromium", "chromium")
    with sync_playwright() as playwright:
        # As root there is no sandbox of Chromium's; the pages are our own.
        arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=arguments)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, size: tuple[int, int] = DESKTOP, **options: Any) -> Iterator[Watched]:
    """A new page for a new person; what is said on its console, and every dialog, is kept."""
    context: BrowserContext = browser.new_context(viewport={"width": size[0], "height": size[1]}, **options)
    context.set_default_timeout(20_000)
    page = context.new_page()
    watched = Watched(page)
    page.on("console", lambda message: watched.said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: watched.said.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (watched.said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    try:
        yield watched
    finally:
        context.close()
