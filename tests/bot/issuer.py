"""A small issuer of identity tokens on loopback: what GitHub's is to a job with ``id-token: write``.

It signs real JWTs with a key made for the occasion, publishes the other half of it, and gives a token to whoever has
the permit. Claims: docs.github.com, "OpenID Connect reference".
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

PERMIT = "permit-of-this-job"


@cache
def _key(number: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass
class Issuer:
    """A running issuer."""

    url: str
    claims: dict[str, Any]
    """Of every token; change them to play another job."""
    signing_key: int = 1
    """Number 1 is the published one."""
    lifetime: int = 300
    statuses: list[int] = field(default_factory=list)
    """Answered instead, one a request."""
    body: bytes | None = None
    """Answered instead of a token."""
    asked: list[str] = field(default_factory=list)
    """The queries of requests for a token."""

    @property
    def env(self) -> dict[str, str]:
        """What GitHub's runner sets in a job that may ask."""
        return {
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{self.url}/token?api-version=2.0",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": PERMIT,
            "GITHUB_REPOSITORY": "acme/training",
            "GITHUB_REF": "refs/heads/main",
            "GITHUB_REF_NAME": "main",
            "GITHUB_WORKFLOW_REF": "acme/training/.github/workflows/pte.yml@refs/heads/main",
        }

    def token(self, audience: str, **changes: Any) -> str:
        """An identity token for an audience."""
        now = int(time.time())
        times = {"iat": now, "nbf": now, "exp": now + self.lifetime}
        claims = {"iss": self.url, "aud": audience, **times, **self.claims, **changes}
        return jwt.encode(claims, _key(self.signing_key), algorithm="RS256", headers={"kid": "one"})


@contextmanager
def running_issuer() -> Iterator[Issuer]:
    """An issuer in a thread, whose job is a push to main of acme/training."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            if parts.path == "/.well-known/jwks":
                public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(_key(1).public_key()))
                self._answer(200, json.dumps({"keys": [{**public, "kid": "one", "use": "sig"}]}).encode())
                return
            issuer.asked.append(parts.query)
            if issuer.statuses:
                self._answer(issuer.statuses.pop(0), b'{"message": "not now"}')
            elif self.headers["Authorization"] != f"Bearer {PERMIT}":
                self._answer(401, b'{"message": "who are you"}')
            else:
                token = issuer.token(parse_qs(parts.query)["audience"][0])
                self._answer(200, issuer.body or json.dumps({"count": 1, "value": token}).encode())

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    workflow = "acme/training/.github/workflows/pte.yml@refs/heads/main"
    claims = {"sub": "repo:acme/training:ref:refs/heads/main", "repository": "acme/training", "ref": "refs/heads/main"}
    issuer = Issuer(f"http://127.0.0.1:{server.server_address[1]}", claims | {"workflow_ref": workflow})
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield issuer
    finally:
        server.shutdown()
        server.server_close()
