"""What an OAuth token may do, by its scopes: a caller and an address in, yes or no out. Pure.

The meanings are the Hub's (https://huggingface.co/docs/hub/oauth, "Currently supported scopes" and "Accessing
organization resources"): repositories of organisations only where the person chose them, pull requests on public
repositories with ``write-discussions``, on private ones with ``read-repos`` too.
"""

from __future__ import annotations

from bot.localhub.accounts import Caller, Level

SCOPES = {
    "openid": "know that it is you",
    "profile": "see your name and your organisations",
    "email": "see your e-mail address",
    "read-repos": "read your private repositories",
    "write-repos": "read and write your repositories",
    "manage-repos": "read, write, create and delete your repositories",
    "write-discussions": "open discussions and pull requests, and write comments, as you",
    "webhooks": "manage your webhooks",
}
PRIVATE = frozenset({"read-repos", "write-repos", "manage-repos"})
_WRITES = frozenset({"write-repos", "manage-repos"})
CHANGES = _WRITES | {"write-discussions", "webhooks"}
"""A token with one of them is more than a reading one."""


def held_to(asking: Caller, level: Level, owner_id: str, *, private: bool) -> Level:
    """What is left of a person's right to a repository when a token of these scopes is used."""
    if asking.scopes is None:
        return level
    reached = owner_id == asking.user.id or owner_id in asking.orgs
    if private and not (reached and asking.scopes & PRIVATE):
        return Level.NONE
    if reached and "manage-repos" in asking.scopes:
        return level
    return min(level, Level.WRITE if reached and "write-repos" in asking.scopes else Level.READ)


def missing_scope(asking: Caller, path: str, *, in_repo: bool) -> str | None:
    """The scope that a change at this address takes and that the token has not."""
    scopes = asking.scopes
    if scopes is None:
        return None
    if "/api/settings/webhooks" in path:
        wanted = {"webhooks"}
    elif "/discussions" in path:
        wanted = {"write-discussions"}
    elif in_repo:
        wanted = {"write-discussions", *_WRITES}  # a commit: to a pull request with the first, else with the others
    else:
        wanted = {"manage-repos"}
    return None if scopes & wanted else min(wanted)
