"""What GitHub answers, and addresses that others gave, as values of the wanted shape. Pure; stage 6."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from bot.errors import GitHubRefused


def id_of(answer: Any) -> int:
    """The ``id`` of what was made or listed; raises GitHubRefused where there is none."""
    found = answer.get("id") if isinstance(answer, dict) else None
    if not isinstance(found, int) or isinstance(found, bool):
        raise GitHubRefused("A reply of GitHub's has no id.", remedy="Check GITHUB_API_URL, and a proxy on the way.")
    return found


def rows(answer: Any) -> list[dict[str, Any]]:
    """The objects of a list; raises GitHubRefused where it is none."""
    if not isinstance(answer, list):
        raise GitHubRefused("A reply of GitHub's is no list.", remedy="Check GITHUB_API_URL, and a proxy on the way.")
    return [one for one in answer if isinstance(one, dict)]


def web_address(url: str | None) -> str | None:
    """An address that may stand in a link or go to GitHub; None for any other."""
    if url is None or len(url) > 500 or not re.fullmatch(r"https?://[A-Za-z0-9._~:/?&=%+,@-]+", url):
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return url if parts.hostname and not parts.username and not parts.password else None
