"""Signing in elsewhere with an account of this Hub: OpenID Connect's authorization code flow, as its provider.

In: an application's request, a person's consent, a code. Out: an identity token, and an access token that may do what
its scopes say and no more. As the Hub documents it (https://huggingface.co/docs/hub/oauth): addresses below /oauth,
PKCE with S256, identity tokens signed with RS256, tokens of eight hours that begin with ``hf_oauth_``, and
``write-discussions`` for pull requests, with ``read-repos`` on private repositories.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
import time
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import jwt
from starlette.responses import RedirectResponse, Response

from bot.localhub import oauth_apps, oidc
from bot.localhub.accounts import Caller, TokenRole, User
from bot.localhub.context import Call, Hub, reply, text_field
from bot.localhub.database import new_id, now
from bot.localhub.errors import HubError, bad_request
from bot.localhub.oauth_apps import App, Grant
from bot.localhub.scopes import CHANGES

PREFIX = "hf_oauth_"
CODE_SECONDS = 60
CONSENT_SECONDS = 600
_CODES_KEPT = 1000


def register(call: Call) -> Response:
    """POST /oauth/register (RFC 7591): a new application, by somebody with an account."""
    call.signed_in()
    body = call.json()
    uris, method = body.get("redirect_uris"), body.get("token_endpoint_auth_method", "client_secret_basic")
    if not isinstance(uris, list) or not uris or not all(isinstance(one, str) for one in uris):
        raise bad_request("redirect_uris must be a list of addresses")
    app, secret = oauth_apps.register(
        call.hub.database,
        text_field(body, "client_name", 1, 96),
        uris,
        text_field(body, "scope", 0, 1000).split() if "scope" in body else [],
        public=method == "none",
    )
    answer: dict[str, Any] = {
        "client_id": app.client_id,
        "client_id_issued_at": int(time.time()),
        "client_secret_expires_at": 0,
        "redirect_uris": list(app.redirect_uris),
        "client_name": app.name,
        "scope": " ".join(app.scopes),
        "grant_types": ["authorization_code"],
        "token_endpoint_auth_method": method,
    }
    return reply(answer | ({"client_secret": secret} if secret else {}), 201)


def metadata(call: Call) -> Response:
    """GET /.well-known/openid-configuration."""
    base = call.endpoint
    return reply({
        "issuer": base,
        "authorization_endpoint": f"{base}/oauth/authorize",
        "token_endpoint": f"{base}/oauth/token",
        "userinfo_endpoint": f"{base}/oauth/userinfo",
        "registration_endpoint": f"{base}/oauth/register",
        "jwks_uri": f"{base}/oauth/jwks",
        "response_types_supported": ["code"],
        "grant_types_supported": ["authorization_code", oidc.GRANT],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
    })  # fmt: skip


def keys(call: Call) -> Response:
    """GET /oauth/jwks."""
    public: dict[str, Any] = jwt.algorithms.RSAAlgorithm.to_jwk(call.hub.oauth.key.public_key(), as_dict=True)
    return reply({"keys": [{**public, "kid": "1", "use": "sig", "alg": "RS256"}]})


def ask(call: Call, wanted: dict[str, str]) -> tuple[App, dict[str, Any], str | None]:
    """An application's request, checked: the application, what a consent would allow, and an error for it.

    Raises:
        HubError: 400, it cannot be told even of an error: nobody knows where to.
    """
    app = oauth_apps.find(call.hub.database, wanted.get("client_id", ""))
    if app is None or wanted.get("redirect_uri") not in app.redirect_uris:
        raise bad_request("Unknown application, or an address that it did not register")
    scopes = tuple(dict.fromkeys(wanted.get("scope", "openid profile").split()))
    error = None
    if wanted.get("response_type") != "code":
        error = "unsupported_response_type"
    elif not scopes or set(scopes) - set(app.scopes):
        error = "invalid_scope"
    elif wanted.get("code_challenge_method", "S256") != "S256" or (
        app.secret_hash is None and not wanted.get("code_challenge")
    ):
        error = "invalid_request"
    content = {
        "client_id": app.client_id,
        "redirect_uri": wanted["redirect_uri"],
        "scopes": scopes,
        "state": wanted.get("state", ""),
        "nonce": wanted.get("nonce", ""),
        "challenge": wanted.get("code_challenge", ""),
    }
    return app, content, error


def ticket(call: Call, user: User, content: dict[str, Any]) -> str:
    """What the consent page sends back: bound to the person, so that no other site can have made it."""
    claims = {**content, "user": user.id, "aud": "consent", "exp": int(time.time()) + CONSENT_SECONDS}
    return jwt.encode(claims, call.hub.signing_key, algorithm="HS256")


def person(call: Call) -> User | None:
    """Who may consent: a person by a token of their own, not an application by one that it was given."""
    asking = call.caller
    return asking.user if asking is not None and asking.scopes is None and asking.only_repo is None else None


def decide(call: Call) -> Response:
    """POST /oauth/authorize {ticket, decision, org...}: the way back to the application, with a code or without."""
    user = person(call)
    fields = parse_qsl(call.body.decode("utf-8", "replace"), max_num_fields=1000)
    form = dict(fields)
    try:
        content = jwt.decode(form.get("ticket", ""), call.hub.signing_key, algorithms=["HS256"], audience="consent")
    except jwt.PyJWTError:
        raise bad_request("This page is too old: go back to the application and begin again") from None
    if user is None or content["user"] != user.id:
        raise HubError(403, "This page was shown to somebody else")
    if form.get("decision") != "allow":
        return back(content, error="access_denied", error_description="The user denied the request")
    known = {org.id for org, _ in call.hub.accounts.memberships(user)}
    grant = Grant(
        client_id=content["client_id"],
        user_id=user.id,
        redirect_uri=content["redirect_uri"],
        scopes=tuple(content["scopes"]),
        orgs=tuple(value for name, value in fields if name == "org" and value in known),
        nonce=content["nonce"],
        challenge=content["challenge"],
        expires=time.time() + CODE_SECONDS,
        id=new_id(),
    )
    code = secrets.token_urlsafe(32)
    codes = call.hub.oauth.codes
    codes[code] = grant
    while len(codes) > _CODES_KEPT:
        del codes[next(iter(codes))]
    return back(content, code=code)


def back(content: dict[str, Any], **values: str) -> Response:
    """To the application's address."""
    uri = content["redirect_uri"]
    state = {"state": content["state"]} if content["state"] else {}
    return RedirectResponse(f"{uri}{'&' if urlsplit(uri).query else '?'}{urlencode({**values, **state})}", 303)


def token(call: Call) -> Response:
    """POST /oauth/token: a form with grant_type=authorization_code; JSON is an exchange of ``bot.localhub.oidc``."""
    if "json" in call.request.headers.get("content-type", ""):
        return oidc.exchange(call)
    form = dict(parse_qsl(call.body.decode("utf-8", "replace"), max_num_fields=50))
    if form.get("grant_type") != "authorization_code":
        return _refusal("unsupported_grant_type", "Only authorization_code")
    app = _client(call, form)
    if app is None:
        return _refusal("invalid_client", "Unknown application, or not its secret", 401)
    grant = _redeem(call.hub, app, form)
    if isinstance(grant, str):
        return _refusal("invalid_grant", grant)
    user = call.hub.accounts.by_id(grant.user_id)
    answer = {
        "access_token": issue(call.hub, user, grant.scopes, grant.orgs, grant.id),
        "token_type": "bearer",
        "expires_in": call.hub.oauth.seconds,
        "scope": " ".join(grant.scopes),
    }
    if "openid" in grant.scopes:
        answer["id_token"] = _identity(call, user, grant)
    return reply(answer, headers={"Cache-Control": "no-store"})


def _redeem(hub: Hub, app: App, form: dict[str, str]) -> Grant | str:
    """What a code stands for, once; or why nothing."""
    code, state = form.get("code", ""), hub.oauth
    if code in state.used:
        state.revoked.add(state.used[code])  # RFC 6749, 4.1.2: what came of it ends, for one of the two is a thief
        return "This code was used already"
    grant = state.codes.get(code)
    if grant is None or grant.client_id != app.client_id or grant.expires < time.time():
        return "No such code, or not any more"
    del state.codes[code]
    state.used[code] = grant.id
    if grant.redirect_uri != form.get("redirect_uri"):
        return "The address is not the one that the code went to"
    if grant.challenge and not secrets.compare_digest(grant.challenge, _challenge(form.get("code_verifier", ""))):
        return "The code verifier does not fit"
    return grant


def issue(hub: Hub, user: User, scopes: tuple[str, ...], orgs: tuple[str, ...] = (), grant: str = "") -> str:
    """An access token; it is kept nowhere."""
    claims = {"user": user.id, "scopes": list(scopes), "orgs": list(orgs), "grant": grant, "created": now()}
    until = {"aud": "access", "exp": int(time.time()) + hub.oauth.seconds}
    return PREFIX + jwt.encode({**claims, **until}, hub.signing_key, algorithm="HS256")


def caller(hub: Hub, text: str) -> Caller | None:
    """Who a token stands for; None where it is none, or is over."""
    try:
        claims = jwt.decode(text.removeprefix(PREFIX), hub.signing_key, algorithms=["HS256"], audience="access")
    except jwt.PyJWTError:
        return None
    if claims["grant"] in hub.oauth.revoked:
        return None
    scopes = frozenset(claims["scopes"])
    role: TokenRole = "write" if scopes & (CHANGES) else "read"
    user = hub.accounts.by_id(claims["user"])
    return Caller(
        user, "OAuth", role, str(claims["created"]), scopes=scopes, orgs=frozenset(claims["orgs"])
    )  # fmt: skip


def userinfo(call: Call) -> Response:
    """GET /oauth/userinfo."""
    asking = call.caller
    if asking is None or asking.scopes is None:
        raise HubError(401, "This needs an OAuth token")
    user = asking.user
    answer: dict[str, Any] = {"sub": user.id, "isPro": False, "orgs": []}
    if "profile" in asking.scopes:
        picture = f"{call.endpoint}/static/avatar.svg"
        answer |= {
            "name": user.fullname, "preferred_username": user.name, "profile": f"{call.endpoint}/{user.name}",
            "picture": picture,
            "orgs": [
                {
                    "sub": org.id, "name": org.fullname, "preferred_username": org.name, "picture": picture,
                    "roleInOrg": role,
                }
                for org, role in call.hub.accounts.memberships(user)
            ],
        }  # fmt: skip
    if "email" in asking.scopes:
        answer |= {"email": f"{user.name}@localhub.invalid", "email_verified": True}
    return reply(answer)


def _client(call: Call, form: dict[str, str]) -> App | None:
    """The application that asks, by Basic (RFC 6749, 2.3.1) or by fields of the form."""
    scheme, _, value = call.request.headers.get("authorization", "").partition(" ")
    client_id, secret = form.get("client_id", ""), form.get("client_secret")
    if scheme.lower() == "basic":
        try:
            name, _, rest = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            return None
        client_id, secret = unquote(name), unquote(rest)
    app = oauth_apps.find(call.hub.database, client_id)
    if app is None or app.secret_hash is None:
        return app
    return app if secret is not None and secrets.compare_digest(app.secret_hash, oauth_apps.digest(secret)) else None


def _identity(call: Call, user: User, grant: Grant) -> str:
    at = int(time.time())
    claims = {"iss": call.endpoint, "aud": grant.client_id, "sub": user.id, "iat": at, "exp": at + 3600}
    if grant.nonce:
        claims["nonce"] = grant.nonce
    if "profile" in grant.scopes:
        claims |= {"name": user.fullname, "preferred_username": user.name}
    return jwt.encode(claims, call.hub.oauth.key, algorithm="RS256", headers={"kid": "1"})


def _challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")


def _refusal(error: str, description: str, status: int = 400) -> Response:
    return reply({"error": error, "error_description": description}, status)
