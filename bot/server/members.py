"""Whether an account may give commands for a repository: asked of the Hub each time. Stage 1.

In: the repository, and the account as a discussion's events describe it. What a webhook says of its author is not
asked. An owner may; so may a member of the owning organization, but for those of whom the Hub says that they may not
write to its repositories: roles are told to members only
(https://huggingface.co/docs/hub/organizations-security, GET /api/organizations/{name}/members).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from huggingface_hub import HfApi

from bot.errors import CommitConflict, HubRefused, NotAuthorized, RepoNotFound
from bot.server import hub_lists

WRITERS = frozenset({"admin", "write"})
MOST_MEMBERS = 10_000
"""Of an organization that are looked through."""

log = logging.getLogger(__name__)


def may_command(api: HfApi, repo_id: str, author: Mapping[str, Any]) -> bool:
    """Whether the author of a comment may give commands in its repository.

    Args:
        author: ``author`` of the event, as the Hub's API gives it.

    Raises:
        HubUnreachable: it cannot be told now.
    """
    name, owner = author.get("name"), repo_id.split("/", maxsplit=1)[0]
    if not isinstance(name, str):
        return False
    if author.get("isOwner") is True or name.lower() == owner.lower():
        return True
    if author.get("isOrgMember") is not True:
        return False
    role = _role(api, owner, name)
    return role is None or role in WRITERS


def _role(api: HfApi, organization: str, name: str) -> str | None:
    """A member's role, where the Hub tells it to us."""
    path = f"/api/organizations/{quote(organization, safe='')}/members"
    what = f"reading the members of {organization}"
    try:
        for one in hub_lists.rows(api, path, what, most=MOST_MEMBERS, search=name):
            if one.get("user") == name:
                role = one.get("role")
                return role if isinstance(role, str) else None
    except (NotAuthorized, RepoNotFound, HubRefused, CommitConflict) as error:
        log.info("the roles of %s are not told: %s", organization, error)
    return None
