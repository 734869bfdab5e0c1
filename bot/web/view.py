"""How a page comes to be: a template and values in, an HTML reply out, with everything from elsewhere cleaned.

Every text that a template prints loses its control, escape and bidi characters (``bot.console.clean``) and is then
escaped; addresses become links only where they lead to the configured Hub.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from bot.console import clean
from bot.server.settings import Settings
from bot.web import words
from exporter import __version__

HERE = Path(__file__).parent
LONGEST = 20_000
"""Characters of one text that are shown."""


class View:
    """The templates, for one set of settings."""

    def __init__(self, settings: Settings) -> None:
        self.endpoint = settings.endpoint.rstrip("/")
        self._environment = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=_inert,
        )
        self._environment.filters.update(
            ago=words.ago,
            clock=words.clock,
            duration=words.duration,
            iso=words.iso,
            moment=words.moment,
            percent=words.percent,
            asker=words.asker,
            options=words.options,
            taken=words.seconds,
            path=quote,
            part=lambda text: quote(text, safe=""),
            hub_link=self.hub_link,
            short=short,
        )
        self._environment.globals.update(
            states=words.STATES,
            operations=words.OPERATIONS,
            hub=self.endpoint,
            hub_name=urlsplit(self.endpoint).netloc,
            version=__version__,
            can_sign_in=settings.admin_token is not None or bool(settings.oauth_client_id),
            new_tab=bool(settings.space_host),
            repo_link=lambda repo_id: f"{self.endpoint}/{quote(repo_id)}",
            commit_link=lambda repo_id, sha: f"{self.endpoint}/{quote(repo_id)}/commit/{quote(sha)}",
        )

    def hub_link(self, address: str | None) -> str:
        """The address, where it leads to the configured Hub; else ''."""
        if not address or not address.startswith(f"{self.endpoint}/") or not address.isprintable() or " " in address:
            return ""
        return address

    def render(self, request: Request, template: str, status: int = 200, /, **values: Any) -> Response:
        """A page; ``values`` has at least the ``visitor``."""
        html = self._environment.get_template(template).render(here=_here(request), **values)
        return HTMLResponse(html, status, {"Cache-Control": "no-store"})

    def show(self, request: Request, template: str, values: dict[str, Any], status: int) -> Response:
        """As ``bot.web.auth`` wants its pages shown."""
        return self.render(request, template, status, **values)


def tidy(text: str) -> str:
    """One text from elsewhere without anything that acts on its reader; a long one is cut."""
    text = text.replace("\t", "    ").replace("\r\n", "\n").replace("\N{NO-BREAK SPACE}", " ")
    if len(text) > LONGEST:
        text = text[:LONGEST] + "…"
    return text if text.isprintable() else clean(text)


def short(text: str | None, limit: int = 160) -> str:
    """One line of a text, for a list."""
    line = " ".join((text or "")[: limit * 4].split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def _inert(value: Any) -> Any:
    return tidy(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _here(request: Request) -> str:
    """The page's own path and query, to come back to after signing in."""
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")
