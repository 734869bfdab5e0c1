"""Providers that lie: nothing that they say is believed where it does not fit."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from bot.errors import SignInFailed
from bot.web.oauth import Person, Provider

KEY, OTHER = (rsa.generate_private_key(65537, 2048) for _ in range(2))
CLIENT = "client-1"
Change = Callable[["Liar", dict[str, Any]], Any]


@dataclass
class Liar:
    """A provider; ``lies`` has, by path, what becomes of a true answer."""

    url: str
    lies: dict[str, Change] = field(default_factory=dict)
    nonce: str = ""

    def answer(self, path: str) -> Any:
        now = int(time.time())
        claims = {"iss": self.url, "aud": CLIENT, "sub": "u1", "iat": now, "exp": now + 600, "nonce": self.nonce}
        public = jwt.algorithms.RSAAlgorithm.to_jwk(KEY.public_key(), as_dict=True)
        true: dict[str, dict[str, Any]] = {
            "/.well-known/openid-configuration": {
                "issuer": self.url,
                **{f"{name}_endpoint": f"{self.url}/{name}" for name in ("authorization", "token", "userinfo")},
                "jwks_uri": f"{self.url}/keys",
            },
            "/keys": {"keys": [{**public, "kid": "1"}]},
            "/claims": claims,
            "/token": {"access_token": "hf_oauth_1", "expires_in": 100, "scope": "openid profile write-discussions"},
            "/userinfo": {"sub": "u1", "preferred_username": "maria", "orgs": []},
        }
        change = self.lies.get(path, lambda _, value: value)
        if path == "/token":
            signed = self.answer("/claims")
            if isinstance(signed, dict):
                signed = jwt.encode(signed, KEY, algorithm="RS256", headers={"kid": "1"})
            true[path]["id_token"] = signed
        return change(self, true[path])


@pytest.fixture(scope="module")
def running() -> Iterator[Liar]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            value = liar.answer(self.path.partition("?")[0])
            body = value if isinstance(value, bytes) else json.dumps(value).encode()
            away = self.path in liar.lies and value == {"redirect": True}
            self.send_response(302 if away else 200)
            if away:
                self.send_header("Location", f"{liar.url}/elsewhere")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    liar = Liar(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield liar
    server.shutdown()
    server.server_close()


@pytest.fixture
def liar(running: Liar) -> Liar:
    running.lies.clear()
    return running


def sign_in(liar: Liar) -> Person:
    async def both() -> Person:
        provider = Provider(liar.url, CLIENT, "secret", ("write-discussions",))
        _, attempt = await provider.begin("http://127.0.0.1:1/oauth/callback", "/")
        liar.nonce = attempt.nonce
        return await provider.finish(attempt, {"state": attempt.state, "code": "c"})

    return asyncio.run(both())


def but(**fields: Any) -> Change:
    """The true answer, but for these fields; without those that are None."""
    return lambda _, value: {name: one for name, one in {**value, **fields}.items() if one is not None}


def signed(key: Any, algorithm: str, **headers: Any) -> Change:
    return lambda _, claims: jwt.encode(claims, key, algorithm=algorithm, headers=headers)


def test_the_truth_is_believed(liar: Liar) -> None:
    person = sign_in(liar)
    assert (person.name, person.subject, person.token, person.orgs) == ("maria", "u1", "hf_oauth_1", ())
    assert 0 < person.expires_at - time.time() <= 100
    assert "write-discussions" in person.scopes


LIES: dict[str, tuple[str, Change]] = {
    "another issuer": ("/.well-known/openid-configuration", but(issuer="https://evil.example")),
    "no issuer": ("/.well-known/openid-configuration", but(issuer=None)),
    "the token goes elsewhere": ("/.well-known/openid-configuration", but(token_endpoint="https://evil.example/t")),
    "userinfo elsewhere": ("/.well-known/openid-configuration", but(userinfo_endpoint="http://127.0.0.1:1/u")),
    "no keys": ("/.well-known/openid-configuration", but(jwks_uri=None)),
    "keys in a file": ("/.well-known/openid-configuration", but(jwks_uri="file:///etc/passwd")),
    "authorize by script": ("/.well-known/openid-configuration", but(authorization_endpoint="javascript:alert(1)")),
    "metadata is a list": ("/.well-known/openid-configuration", lambda _, value: [value]),
    "metadata is endless": ("/.well-known/openid-configuration", but(padding="x" * 3_000_000)),
    "deep": ("/.well-known/openid-configuration", lambda _, value: b"[" * 900_000),
    "not JSON": ("/token", lambda _, value: b"<html>"),
    "a redirect": ("/token", lambda _, value: {"redirect": True}),
    "no access token": ("/token", but(access_token=None)),
    "a token with a line break": ("/token", but(access_token="a\r\nX-Evil: 1")),
    "a token with a space": ("/token", but(access_token="a b")),
    "a huge token": ("/token", but(access_token="a" * 20_000)),
    "a token that is no text": ("/token", but(access_token={"a": 1})),
    "no identity": ("/token", but(id_token=None)),
    "identity is no token": ("/token", but(id_token="a.b.c")),
    "another nonce": ("/claims", but(nonce="x" * 43)),
    "no nonce": ("/claims", but(nonce=None)),
    "nonce is no text": ("/claims", but(nonce=1)),
    "for another application": ("/claims", but(aud="client-2")),
    "for several, given to another": ("/claims", but(aud=[CLIENT, "client-2"], azp="client-2")),
    "over": ("/claims", but(exp=1000)),
    "without an end": ("/claims", but(exp=None)),
    "not yet": ("/claims", but(nbf=int(time.time()) + 3600)),
    "of another issuer": ("/claims", but(iss="https://huggingface.co")),
    "of nobody": ("/claims", but(sub=None)),
    "signed by another": ("/claims", signed(OTHER, "RS256", kid="1")),
    "signed by a key that is not named": ("/claims", signed(KEY, "RS256", kid="2")),
    "not signed": ("/claims", signed(None, "none", kid="1")),
    "signed with the secret": ("/claims", signed("secret" * 8, "HS256", kid="1")),
    "keys are none": ("/keys", lambda _, value: {"keys": []}),
    "keys are odd": ("/keys", lambda _, value: {"keys": [{"kty": "RSA"}, 1, None]}),
    "keys are text": ("/keys", lambda _, value: {"keys": "none"}),
    "userinfo of another": ("/userinfo", but(sub="u2")),
    "userinfo of nobody": ("/userinfo", but(sub=None)),
    "no name": ("/userinfo", but(preferred_username=None)),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_are_not(liar: Liar, lie: str) -> None:
    path, change = LIES[lie]
    liar.lies[path] = change
    with pytest.raises(SignInFailed) as failure:
        sign_in(liar)
    assert "hf_oauth_1" not in str(failure.value) and "secret" not in str(failure.value)
    assert len(str(failure.value)) < 300 and str(failure.value).replace("\n", "").isprintable()


def test_a_provider_is_who_we_were_told_to_ask(liar: Liar) -> None:
    liar.lies["/.well-known/openid-configuration"] = but(issuer="https://evil.example")
    liar.lies["/claims"] = but(iss="https://evil.example")
    with pytest.raises(SignInFailed, match="another's"):
        sign_in(liar)


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "a b",
        "<script>",
        "a/b",
        "../x",
        "-a",
        "a-",
        ".a",
        "a\n",
        "\u202eevil",
        "ａdmin",
        "a" * 97,
        7,
        ["a"],
        "a@b",
    ],
)
def test_names_that_no_account_has(liar: Liar, name: Any) -> None:
    liar.lies["/userinfo"] = but(preferred_username=name)
    with pytest.raises(SignInFailed):
        sign_in(liar)


def test_odd_extras_do_no_harm(liar: Liar) -> None:
    odd = [{"preferred_username": "acme"}, {"preferred_username": "<b>"}, {"name": "x"}, 1, None, ["y"]]
    liar.lies["/userinfo"] = but(orgs=odd)
    assert sign_in(liar).orgs == ("acme",)
    for value in ("acme", {"acme": 1}, 7):
        liar.lies["/userinfo"] = but(orgs=value)
        assert sign_in(liar).orgs == ()


@pytest.mark.parametrize(
    ("told", "least", "most"),
    [
        (None, 28_000, 28_801),
        (-5, 28_000, 28_801),
        ("x", 28_000, 28_801),
        (True, 28_000, 28_801),
        (1e300, 2_591_000, 2_592_001),
    ],
)
def test_times_are_held_to_what_the_hub_gives(liar: Liar, told: Any, least: float, most: float) -> None:
    liar.lies["/token"] = but(expires_in=told)
    assert least < sign_in(liar).expires_at - time.time() <= most


def test_what_was_granted_is_what_counts(liar: Liar) -> None:
    liar.lies["/token"] = but(scope="openid profile")
    assert sign_in(liar).scopes == ("openid", "profile")
    liar.lies["/token"] = but(scope=None)
    assert "write-discussions" in sign_in(liar).scopes


def test_nobody_there(liar: Liar) -> None:
    provider = Provider("http://127.0.0.1:1", CLIENT, None, ())
    with pytest.raises(SignInFailed, match="cannot be reached"):
        asyncio.run(provider.begin("http://127.0.0.1/oauth/callback", "/"))
