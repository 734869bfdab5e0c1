"""Trusted publishers: a CI job's identity token in, a token for one repository and one hour out.

Shapes and rules: https://huggingface.co/docs/hub/trusted-publishers and RFC 8693. The identity token is checked as the
Hub does it: signature by the keys that its issuer publishes, audience this Hub, claims equal to the letter. The token
that comes out is signed by this Hub and kept nowhere. It stands for a user of the system's, ``[OIDC]``, that no
account can be named like, may write to its one repository, and is nobody anywhere else.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jwt
from starlette.responses import Response

from bot.localhub.accounts import Caller, User
from bot.localhub.database import new_id, now

if TYPE_CHECKING:
    from bot.localhub.context import Call, Hub

GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"  # noqa: S105 - a kind, not a secret
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105
PREFIX = "hf_jwt_"
USER = "[OIDC]"
_ALGORITHMS = ["RS256", "ES256"]
_SECONDS_FOR_KEYS = 5


@dataclass(frozen=True, kw_only=True)
class Publisher:
    """Whom a repository trusts: every claim has to be in the identity token as it stands here.

    ``branch`` and ``workflow`` are no claims of GitHub's: the Hub takes them out of ``ref`` and ``workflow_ref``.
    """

    repo_id: str
    """The repository's id in the database."""
    issuer: str
    claims: dict[str, str]


def exchange(call: Call) -> Response:
    """POST /oauth/token {grant_type, subject_token_type, subject_token, resource}."""
    from bot.localhub.context import reply

    body = call.json()
    wanted = {"grant_type": GRANT, "subject_token_type": ID_TOKEN}
    resource, subject = body.get("resource"), body.get("subject_token")
    if any(body.get(name) != value for name, value in wanted.items()) or not isinstance(subject, str):
        return _refusal("invalid_request", "Only an identity token can be exchanged here")
    if not isinstance(resource, str) or resource.count("/") != 1:
        return _refusal("invalid_request", "resource must be namespace/name of a model")
    repo = call.hub.repos.find(*resource.split("/"))
    trusted = [one for one in call.hub.publishers if repo is not None and one.repo_id == repo.id]
    found = next((claims for one in trusted if (claims := _claims(call, one, subject)) is not None), None)
    if repo is None or found is None:
        return _refusal("invalid_grant", "No trusted publisher matches this token")  # which check it was is not told
    token = _issue(call.hub, repo.id, found)
    answer = {"access_token": token, "token_type": "bearer", "expires_in": call.hub.token_seconds}
    return reply({**answer, "issued_token_type": ACCESS_TOKEN}, headers={"Cache-Control": "no-store"})


def caller(hub: Hub, token: str) -> Caller | None:
    """Who a token of ``exchange`` stands for; None where it is none, or is over."""
    try:
        claims = jwt.decode(
            token.removeprefix(PREFIX), hub.signing_key, algorithms=["HS256"], options={"require": ["exp", "repo"]}
        )
    except jwt.PyJWTError:
        return None
    return Caller(
        _user(hub), str(claims.get("sub", "")), "write", str(claims["created"]), only_repo=str(claims["repo"])
    )


def _claims(call: Call, publisher: Publisher, subject: str) -> dict[str, Any] | None:
    """The identity token's claims, when this publisher is the one that it speaks of."""
    try:
        stated = jwt.decode(subject, options={"verify_signature": False}).get("iss")
        if stated != publisher.issuer:
            return None  # before anybody is asked for keys: an issuer nobody trusts is not to be called
        keys = jwt.PyJWKClient(f"{publisher.issuer}/.well-known/jwks", timeout=_SECONDS_FOR_KEYS)
        claims: dict[str, Any] = jwt.decode(
            subject,
            keys.get_signing_key_from_jwt(subject).key,
            algorithms=_ALGORITHMS,
            audience=call.endpoint,
            issuer=publisher.issuer,
            options={"require": ["exp", "iat", "aud", "iss", "sub"]},
        )
    except jwt.PyJWTError:
        return None
    named = {"workflow": _workflow(claims), "branch": _branch(claims)}
    fits = all({**claims, **named}.get(name) == value for name, value in publisher.claims.items())
    return claims if fits else None


def _workflow(claims: dict[str, Any]) -> str:
    return str(claims.get("workflow_ref", "")).partition("@")[0].rpartition("/")[2]


def _branch(claims: dict[str, Any]) -> str:
    ref = str(claims.get("ref", ""))
    return ref.removeprefix("refs/heads/") if ref.startswith("refs/heads/") else ""


def _issue(hub: Hub, repo_id: str, claims: dict[str, Any]) -> str:
    content = {"repo": repo_id, "sub": claims["sub"], "iss": claims["iss"], "created": now(), "jti": new_id()}
    until = int(time.time()) + hub.token_seconds
    return PREFIX + jwt.encode({**content, "exp": until}, hub.signing_key, algorithm="HS256")


def _user(hub: Hub) -> User:
    found = hub.accounts.by_name(USER)
    if found is None:
        # Past Accounts.create, which takes no such name, so that nobody can have it.
        row = (new_id(), USER, "Trusted publisher", "user", 0, now())
        hub.database.run("INSERT OR IGNORE INTO users VALUES (?, ?, ?, ?, ?, ?)", *row)
        found = hub.accounts.by_name(USER)
    if found is None:
        raise LookupError(USER)
    return found


def _refusal(error: str, description: str) -> Response:
    from bot.localhub.context import reply

    return reply({"error": error, "error_description": description}, 400, {"X-Error-Message": description})
