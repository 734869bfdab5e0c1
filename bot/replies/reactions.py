"""Reactions to the comment with a command: eyes while it is worked on, then how it ended. Stage 6.

GitHub keeps one reaction of a kind for each account, so that adding one twice adds it once.
"""

from __future__ import annotations

from typing import Literal

from bot.errors import GitHubNotFound
from bot.githubapi import Client, asking
from bot.replies.shapes import id_of

Content = Literal["eyes", "rocket", "confused"]
NEEDS = "issues: write"


def add(client: Client, repository: str, comment: int, content: Content) -> int:
    """React to a comment; the reaction's id."""
    with asking("reacting to the comment", client, needs=NEEDS):
        made = client.call("POST", _path(repository, comment), body={"content": content})
    return id_of(made)


def remove(client: Client, repository: str, comment: int, reaction: int) -> None:
    """Take a reaction back; no failure where it is gone already."""
    try:
        with asking("taking a reaction back", client, needs=NEEDS):
            client.call("DELETE", f"{_path(repository, comment)}/{reaction}")
    except GitHubNotFound:
        pass


def _path(repository: str, comment: int) -> str:
    return f"/repos/{repository}/issues/comments/{comment}/reactions"
