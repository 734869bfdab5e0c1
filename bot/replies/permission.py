"""Whether an account may give commands: asked of GitHub each time. Stage 1.

What an event says of its author (``author_association``) is not asked: it is MEMBER for people who may only read,
and old by the time that it is read.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from bot.errors import CommitConflict, GitHubNotFound, GitHubRefused
from bot.githubapi import Client, asking, same_account

ROLES = frozenset({"admin", "maintain", "write"})
PERMISSIONS = frozenset({"admin", "write"})
"""What a role comes down to, also one of an organization's own; ``maintain`` counts as write there."""


def may_write(client: Client, repository: str, login: str) -> bool:
    """Whether ``login`` may write to the repository now.

    Raises:
        GitHubNotAuthorized, GitHubUnreachable, GitHubRateLimited, GitHubRefused: it cannot be told; nothing may run.
    """
    if not login:
        return False
    path = f"/repos/{repository}/collaborators/{quote(login, safe='')}/permission"
    try:
        with asking(f"asking what {login} may do in {repository}", client, needs="metadata: read"):
            answer = client.call("GET", path)
    except GitHubNotFound:
        return False  # no such account, or the repository is hidden from this token
    except CommitConflict as error:
        raise GitHubRefused(str(error)) from None
    return _may(answer, login)


def _may(answer: Any, login: str) -> bool:
    if not isinstance(answer, dict) or not isinstance(answer.get("user"), dict):
        return False
    named = answer["user"].get("login")
    if not isinstance(named, str) or not same_account(named, login):
        return False
    return _is(answer.get("permission"), PERMISSIONS) or _is(answer.get("role_name"), ROLES)


def _is(value: Any, among: frozenset[str]) -> bool:
    return isinstance(value, str) and value in among
