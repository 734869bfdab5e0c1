"""Signing in with the Hub: OpenID Connect's authorization code flow with PKCE, as a client.

In: the provider's address and our application's id and secret. Out: where to send the browser, and, when it comes
back with a code, who it is, with a token for that person. Sources: https://huggingface.co/docs/hub/oauth and
.../spaces-oauth, OpenID Connect Core 1.0, RFC 6749, RFC 7636 (PKCE), RFC 9207, RFC 9700 (best practice). Every reply
of the provider is as hostile as any other: bounded, and believed only where it says what it has to.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import ssl
import time
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import httpx2
import jwt

from bot.errors import SignInFailed
from bot.web.security import origin_of
from bot.web.sessions import LONGEST_SECONDS

WANTED = ("openid", "profile", "write-discussions", "read-repos")
"""The least that opens a pull request in somebody's name: write-discussions; read-repos for a private repository too,
where the application has it (https://huggingface.co/docs/hub/oauth, "Currently supported scopes")."""
OPENS_PULL_REQUESTS = "write-discussions"
SECONDS_TO_SIGN_IN = 600.0
_TIMEOUT = 15.0
_REPLY_BYTES = 1 << 20
_METADATA_SECONDS = 3600.0
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"]
_SKEW = 60.0
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?")
"""As huggingface_hub's validate_repo_id takes the part before the slash."""
_ORGS = 500


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What the browser keeps, sealed, while the person is with the provider."""

    state: str
    nonce: str
    verifier: str
    redirect_uri: str
    next: str
    expires_at: float


@dataclass(frozen=True, kw_only=True)
class Person:
    """Who signed in."""

    subject: str
    name: str
    orgs: tuple[str, ...]
    token: str
    scopes: tuple[str, ...]
    expires_at: float


class Provider:
    """The Hub, or whoever takes its place."""

    def __init__(self, url: str, client_id: str, client_secret: str | None, allowed: tuple[str, ...]) -> None:
        self.url = url.rstrip("/")
        self._id = client_id
        self._secret = client_secret
        self.scopes = tuple(scope for scope in WANTED if scope in allowed or scope in ("openid", "profile"))
        self._metadata: tuple[float, dict[str, str]] = (0.0, {})

    async def begin(self, redirect_uri: str, next_path: str) -> tuple[str, Attempt]:
        """Where to send the browser, and what it has to bring back.

        Raises:
            SignInFailed: the provider does not answer, or not as one.
        """
        metadata = await self._endpoints()
        attempt = Attempt(
            state=secrets.token_urlsafe(32),
            nonce=secrets.token_urlsafe(32),
            verifier=secrets.token_urlsafe(64),
            redirect_uri=redirect_uri,
            next=next_path,
            expires_at=time.time() + SECONDS_TO_SIGN_IN,
        )
        digest = hashlib.sha256(attempt.verifier.encode()).digest()
        query = {
            "response_type": "code",
            "client_id": self._id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(self.scopes),
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": base64.urlsafe_b64encode(digest).decode().rstrip("="),
            "code_challenge_method": "S256",
        }
        joint = "&" if urlsplit(metadata["authorization_endpoint"]).query else "?"
        return metadata["authorization_endpoint"] + joint + urlencode(query), attempt

    async def finish(self, attempt: Attempt, query: dict[str, str]) -> Person:
        """Who the browser brings, from the parameters that the provider gave it.

        Raises:
            SignInFailed: the person declined, it is not the attempt that this browser began, or the provider's
                answers do not fit together.
        """
        if not secrets.compare_digest(attempt.state.encode(), query.get("state", "").encode("utf-8", "replace")):
            raise SignInFailed("The answer belongs to another attempt to sign in.")
        if attempt.expires_at < time.time():
            raise SignInFailed("Signing in took too long.")
        if "error" in query:
            declined = query["error"] == "access_denied"
            raise SignInFailed("You declined." if declined else "The Hub refused to sign you in.")
        metadata = await self._endpoints()
        if query.get("iss", metadata["issuer"]) != metadata["issuer"]:
            raise SignInFailed("The answer is of another provider.")
        granted = await self._exchange(metadata, attempt, query.get("code", ""))
        token, identity = granted.get("access_token"), granted.get("id_token")
        if not isinstance(token, str) or not isinstance(identity, str) or not 1 <= len(token) <= 16384:
            raise SignInFailed("The Hub gave no token.")
        if not token.isascii() or not token.isprintable() or " " in token:
            raise SignInFailed("The Hub gave a token that cannot be one.")
        claims = await self._identity(metadata, identity, attempt.nonce)
        shown = await self._call("GET", metadata["userinfo_endpoint"], headers={"Authorization": f"Bearer {token}"})
        if shown.get("sub") != claims["sub"]:
            raise SignInFailed("The Hub told of two different people.")
        return Person(
            subject=str(claims["sub"]),
            name=_name(shown.get("preferred_username")),
            orgs=_orgs(shown.get("orgs")),
            token=token,
            scopes=self._granted(granted.get("scope")),
            expires_at=time.time() + _seconds(granted.get("expires_in")),
        )

    async def _exchange(self, metadata: dict[str, str], attempt: Attempt, code: str) -> dict[str, Any]:
        if not 1 <= len(code) <= 4096:
            raise SignInFailed("The Hub gave no code.")
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": attempt.redirect_uri,
            "client_id": self._id,
            "code_verifier": attempt.verifier,
        }
        headers = {}
        if self._secret is not None:
            pair = f"{quote(self._id, safe='')}:{quote(self._secret, safe='')}"
            headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        return await self._call("POST", metadata["token_endpoint"], data=form, headers=headers)

    async def _identity(self, metadata: dict[str, str], token: str, nonce: str) -> dict[str, Any]:
        """The identity token's claims (OpenID Connect Core, 3.1.3.7)."""
        keys = await self._call("GET", metadata["jwks_uri"])
        try:
            header = jwt.get_unverified_header(token)
            usable = [key for key in jwt.PyJWKSet.from_dict(keys).keys if header.get("kid") in (None, key.key_id)]
            if not usable:
                raise SignInFailed("The Hub signed with a key that it does not name.")
            claims: dict[str, Any] = jwt.decode(
                token,
                usable[0].key,
                algorithms=_ALGORITHMS,
                audience=self._id,
                issuer=metadata["issuer"],
                leeway=_SKEW,
                options={"require": ["exp", "iat", "aud", "iss", "sub"]},
            )
        except (jwt.PyJWTError, ValueError, TypeError, AttributeError) as error:
            raise SignInFailed(f"The Hub's word for who you are cannot be believed: {type(error).__name__}.") from None
        if claims.get("azp", self._id) != self._id:
            raise SignInFailed("The Hub's word for who you are is for another application.")
        given = claims.get("nonce")
        if not isinstance(given, str) or not secrets.compare_digest(given.encode(), nonce.encode()):
            raise SignInFailed("The Hub's word for who you are belongs to another attempt.")
        return claims

    def _granted(self, scope: object) -> tuple[str, ...]:
        """RFC 6749, 5.1: what was granted is told where it is not what was asked."""
        return tuple(scope.split()[:64]) if isinstance(scope, str) else self.scopes

    async def _endpoints(self) -> dict[str, str]:
        """The provider's metadata, kept for a while (OpenID Connect Discovery 1.0)."""
        until, known = self._metadata
        if time.monotonic() < until:
            return known
        found = await self._call("GET", f"{self.url}/.well-known/openid-configuration")
        names = ("issuer", "authorization_endpoint", "token_endpoint", "userinfo_endpoint", "jwks_uri")
        known = {name: str(found.get(name, "")) for name in names}
        if known["issuer"].rstrip("/") != self.url:
            raise SignInFailed("The Hub's sign-in says that it is another's.")
        if any(origin_of(known[name]) != origin_of(self.url) for name in names[1:]):
            raise SignInFailed("The Hub's sign-in leads to another place.")
        self._metadata = (time.monotonic() + _METADATA_SECONDS, known)
        return known

    async def _call(
        self, method: str, url: str, *, data: dict[str, str] | None = None, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """One request, without redirects; a JSON object."""
        try:
            async with (
                httpx2.AsyncClient(timeout=_TIMEOUT, follow_redirects=False, verify=_trusted()) as client,
                client.stream(
                    method, url, data=data, headers={"Accept": "application/json", **(headers or {})}
                ) as reply,
            ):
                body = bytearray()
                async for part in reply.aiter_bytes():
                    body += part
                    if len(body) > _REPLY_BYTES:
                        raise SignInFailed("The Hub's answer is too long.")
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise SignInFailed(f"The Hub cannot be reached: {type(error).__name__}.") from None
        if reply.status_code != 200:
            raise SignInFailed(f"The Hub refused, with status {reply.status_code}.")
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise SignInFailed("The Hub's answer cannot be read.")
        return value


@cache
def _trusted() -> ssl.SSLContext:
    """Read once: reading the certificates takes longer than a request, and holds up the event loop."""
    return httpx2.create_ssl_context()


def _name(value: object) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise SignInFailed("The Hub told a name that is none of its own.")
    return value


def _orgs(value: object) -> tuple[str, ...]:
    """Names of organisations that the person let us see; others are as good as none."""
    if not isinstance(value, list):
        return ()
    names = [one.get("preferred_username") for one in value[:_ORGS] if isinstance(one, dict)]
    return tuple(name for name in names if isinstance(name, str) and _NAME.fullmatch(name))


def _seconds(value: object) -> float:
    """A token's life; where nothing is told, the Hub's usual eight hours (hf_oauth_expiration_minutes: 480)."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    return min(float(value) if known else 8 * 3600.0, LONGEST_SECONDS)  # type: ignore[arg-type]
