"""A browser without a screen: keeps cookies as browsers do, follows redirects over real HTTP, sends a page's forms."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from types import TracebackType
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx2

TRUSTED = httpx2.create_ssl_context()
"""Read once: each client of its own takes longer to read the certificates than a whole visit does."""


def bare_get(url: str, **options: Any) -> httpx2.Response:
    """One request, of nobody."""
    return httpx2.get(url, verify=TRUSTED, **options)


def bare_post(url: str, **options: Any) -> httpx2.Response:
    return httpx2.post(url, verify=TRUSTED, **options)


class Browser:
    """One person's. ``logins`` has a name and password for each server that asks with Basic, by its address."""

    def __init__(self, base: str, logins: dict[str, tuple[str, str]] | None = None) -> None:
        self.base = base
        self.client = httpx2.Client(timeout=20, follow_redirects=False, verify=TRUSTED)
        self.logins = logins or {}
        self.here = base
        self.seen: list[str] = []
        """Every address visited, with its query."""

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.client.close()

    def get(self, url: str, *, follow: bool = True, **options: object) -> httpx2.Response:
        return self._go("GET", urljoin(self.here, url), follow, None, **options)

    def post(self, url: str, data: dict[str, str], *, follow: bool = True, **options: object) -> httpx2.Response:
        return self._go("POST", urljoin(self.here, url), follow, data, **options)

    def submit(self, page: httpx2.Response, action: str, *, follow: bool = True, **values: str) -> httpx2.Response:
        """Send the form with this action, with its hidden fields, and the given ones."""
        fields = forms(page.text)[action]
        return self.post(action, {**fields, **values}, follow=follow)

    def cookie(self, name: str) -> str | None:
        """Of the pages' own host."""
        found = [cookie.value for cookie in self.client.cookies.jar if cookie.name == name]
        return found[0] if found else None

    def _go(
        self, method: str, url: str, follow: bool, data: dict[str, str] | None, **options: object
    ) -> httpx2.Response:
        for _ in range(10):
            self.seen.append(url)
            place = f"{urlsplit(url).scheme}://{urlsplit(url).netloc}"
            headers = dict(options.get("headers") or {"Accept": "text/html"})  # type: ignore[call-overload]
            if method == "POST":
                headers.setdefault("Origin", f"{urlsplit(self.here).scheme}://{urlsplit(self.here).netloc}")
            login = self.logins.get(place)
            reply = self.client.request(method, url, data=data, headers=headers, auth=login)
            self.here = url
            if not follow or reply.status_code not in (301, 302, 303, 307, 308):
                return reply
            url, method, data = urljoin(url, reply.headers["location"]), "GET", None
        raise AssertionError(f"redirected without end: {self.seen[-3:]}")


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, dict[str, str]] = {}
        self._fields: dict[str, str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._fields = self.found.setdefault(values.get("action", ""), {})
        elif tag == "input" and self._fields is not None and values.get("type") == "hidden":
            self._fields[values["name"]] = values.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._fields = None


def forms(html: str) -> dict[str, dict[str, str]]:
    """Hidden fields of a page's forms, by the forms' actions."""
    parser = _Forms()
    parser.feed(html)
    return parser.found


def signed_in_as(page: httpx2.Response) -> str | None:
    """The name that a page's head shows."""
    found = re.search(r'<span class="name">([^<]*)</span>', page.text)
    return found[1] if found else None
