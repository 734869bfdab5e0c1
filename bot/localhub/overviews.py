"""What an account's page tells over the API: who is an organisation and who is in it, and who is a person.

The one for organisations is not in the Hub's OpenAPI document, though huggingface_hub asks it.
"""

from __future__ import annotations

from starlette.responses import Response

from bot.localhub.context import Call, reply
from bot.localhub.errors import HubError


def organisation(call: Call) -> Response:
    """GET /api/organizations/{name}/overview."""
    found = call.hub.accounts.by_name(call.param("name"))
    if found is None or not found.is_org:
        raise HubError(404, "This organization does not exist")
    return reply({"name": found.name, "fullname": found.fullname, "avatarUrl": "/static/avatar.svg"})


def user(call: Call) -> Response:
    """GET /api/users/{name}/overview."""
    found = call.hub.accounts.by_name(call.param("name"))
    if found is None or found.is_org:
        raise HubError(404, "This user does not exist")
    row = call.hub.database.row("SELECT created FROM users WHERE id = ?", found.id)
    return reply(
        {
            "_id": found.id,
            "user": found.name,
            "fullname": found.fullname,
            "avatarUrl": "/static/avatar.svg",
            "type": "user",
            "isPro": False,
            "createdAt": row["created"] if row else None,
            "orgs": [],
        }
    )


def members(call: Call) -> Response:
    """GET /api/organizations/{name}/members?search=: people by name; their roles are told to members only."""
    accounts = call.hub.accounts
    found = accounts.by_name(call.param("name"))
    if found is None or not found.is_org:
        raise HubError(404, "This organization does not exist")
    inside = call.user is not None and accounts.namespace_role(call.user, found.id) is not None
    return reply(
        [
            {
                "_id": one.id,
                "user": one.name,
                "fullname": one.fullname,
                "avatarUrl": "/static/avatar.svg",
                "type": "user",
                "isPro": False,
            }
            | ({"role": role} if inside else {})
            for one, role in accounts.members(found)
            if call.query("search").lower() in one.name.lower()
        ]
    )
