"""Applications that sign people in with this Hub, and what the provider (``bot.localhub.oauth``) remembers of them."""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import asdict, dataclass, field
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric import rsa

from bot.localhub.database import Database, new_id
from bot.localhub.errors import bad_request
from bot.localhub.scopes import SCOPES

TOKEN_SECONDS = 8 * 3600


@dataclass(frozen=True, kw_only=True)
class App:
    """A registered application."""

    client_id: str
    name: str
    redirect_uris: tuple[str, ...]
    scopes: tuple[str, ...]
    secret_hash: str | None
    """None: a public application, which has no secret and must use PKCE."""


@dataclass(frozen=True, kw_only=True)
class Grant:
    """What a code stands for."""

    client_id: str
    user_id: str
    redirect_uri: str
    scopes: tuple[str, ...]
    orgs: tuple[str, ...]
    nonce: str
    challenge: str
    expires: float
    id: str


@dataclass
class OAuthState:
    """What the provider remembers while it runs; applications stand in the database."""

    seconds: int = TOKEN_SECONDS
    """How long a token lives."""
    codes: dict[str, Grant] = field(default_factory=dict)
    """Codes that were not used yet, the oldest first."""
    used: dict[str, str] = field(default_factory=dict)
    """The grants of codes that were."""
    revoked: set[str] = field(default_factory=set)
    """Grants of which no token is good any more."""
    key: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))


def register(
    database: Database, name: str, redirect_uris: list[str], scopes: list[str], *, public: bool = False
) -> tuple[App, str | None]:
    """A new application, and its secret."""
    unknown = set(scopes) - set(SCOPES)
    if unknown or not redirect_uris or not all(urlsplit(uri).scheme in ("http", "https") for uri in redirect_uris):
        raise bad_request("An application has redirect URIs and known scopes")
    secret = None if public else secrets.token_hex(20)
    wanted = tuple(dict.fromkeys(["openid", "profile", *scopes]))
    app = App(
        client_id=new_id(),
        name=name,
        redirect_uris=tuple(redirect_uris),
        scopes=wanted,
        secret_hash=digest(secret) if secret else None,
    )
    database.run("INSERT INTO settings VALUES (?, ?)", f"oauth_app:{app.client_id}", json.dumps(asdict(app)))
    return app, secret


def find(database: Database, client_id: str) -> App | None:
    """A registered application."""
    row = database.row("SELECT value FROM settings WHERE key = ?", f"oauth_app:{client_id}")
    if row is None:
        return None
    fields = json.loads(row["value"])
    return App(**{**fields, "redirect_uris": tuple(fields["redirect_uris"]), "scopes": tuple(fields["scopes"])})


def digest(secret: str) -> str:
    """What is kept of an application's secret."""
    return hashlib.sha256(secret.encode()).hexdigest()
