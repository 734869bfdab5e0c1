"""The local Hub as OAuth provider: codes are good once, tokens do what their scopes say."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from itertools import count
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import jwt
import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError

from bot.localhub import oauth
from bot.localhub.testing import RunningHub

BACK = "http://127.0.0.1:9/back"
VERIFIER = "v" * 50
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().rstrip("=")
_NUMBERS = count(1)


class Flow:
    """One application and one person."""

    def __init__(self, hub: RunningHub, *, name: str = "maria", orgs: dict[str, Any] | None = None) -> None:
        self.hub = hub
        scopes = ("write-discussions", "read-repos", "write-repos", "manage-repos", "webhooks", "email")
        self.client_id, self.secret = hub.register_app(BACK, scopes=scopes)
        self.login = (name, hub.create_user(name, orgs))

    def ask(self, **changed: str) -> httpx2.Response:
        query = {
            "response_type": "code", "client_id": self.client_id, "redirect_uri": BACK, "scope": "openid profile",
            "state": "s", "nonce": "n", "code_challenge": CHALLENGE, "code_challenge_method": "S256", **changed,
        }  # fmt: skip
        return httpx2.get(f"{self.hub.endpoint}/oauth/authorize", params=query, auth=self.login)

    def consent(self, decision: str = "allow", org: str = "", **changed: str) -> dict[str, str]:
        """What the application is told."""
        found = re.search(r'name="ticket" value="([^"]+)"', self.ask(**changed).text)
        assert found is not None
        form = {"ticket": found[1], "decision": decision, "org": org}
        sent = httpx2.post(f"{self.hub.endpoint}/oauth/authorize", data=form, auth=self.login)
        assert sent.status_code == 303 and sent.headers["location"].startswith(f"{BACK}?")
        return {key: value for key, (value,) in parse_qs(urlsplit(sent.headers["location"]).query).items()}

    def redeem(self, code: str, auth: tuple[str, str] | None = None, **changed: str) -> httpx2.Response:
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": BACK, "code_verifier": VERIFIER}
        given = auth or (self.client_id, self.secret)
        return httpx2.post(f"{self.hub.endpoint}/oauth/token", data={**form, **changed}, auth=given)

    def token(self, scope: str, org: str = "") -> str:
        code = self.consent(scope=scope, org=org)["code"]
        return str(self.redeem(code).json()["access_token"])

    def api(self, scope: str, org: str = "") -> HfApi:
        return HfApi(endpoint=self.hub.endpoint, token=self.token(scope, org))


@pytest.fixture
def flow(hub: RunningHub) -> Flow:
    return Flow(hub)


def test_a_code_becomes_tokens(flow: Flow) -> None:
    told = flow.consent()
    assert told["state"] == "s"
    answer = flow.redeem(told["code"]).json()
    assert answer["access_token"].startswith("hf_oauth_") and answer["scope"] == "openid profile"
    metadata = httpx2.get(f"{flow.hub.endpoint}/.well-known/openid-configuration").json()
    keys = jwt.PyJWKSet.from_dict(httpx2.get(metadata["jwks_uri"]).json())
    claims = jwt.decode(
        answer["id_token"], keys["1"].key, algorithms=["RS256"], audience=flow.client_id, issuer=flow.hub.endpoint
    )
    bearer = {"Authorization": f"Bearer {answer['access_token']}"}
    shown = httpx2.get(metadata["userinfo_endpoint"], headers=bearer).json()
    assert claims["nonce"] == "n" and claims["sub"] == shown["sub"] and shown["preferred_username"] == "maria"
    assert "email" not in shown
    assert HfApi(endpoint=flow.hub.endpoint, token=answer["access_token"]).whoami()["name"] == "maria"


def test_a_code_is_good_once_and_its_tokens_end_when_it_comes_again(flow: Flow) -> None:
    code = flow.consent()["code"]
    api = HfApi(endpoint=flow.hub.endpoint, token=flow.redeem(code).json()["access_token"])
    assert api.whoami()["name"] == "maria"
    again = flow.redeem(code)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    with pytest.raises(HfHubHTTPError):
        api.whoami()


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"code_verifier": "x" * 50}, "invalid_grant"),
        ({"code_verifier": ""}, "invalid_grant"),
        ({"redirect_uri": BACK + "/x"}, "invalid_grant"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"code": "guess"}, "invalid_grant"),
    ],
)
def test_codes_are_bound_to_what_was_asked(flow: Flow, changed: dict[str, str], error: str) -> None:
    refused = flow.redeem(**{"code": flow.consent()["code"], **changed})
    assert (refused.status_code, refused.json()["error"]) == (400, error)


def test_codes_are_bound_to_their_application(flow: Flow) -> None:
    code = flow.consent()["code"]
    other = Flow(flow.hub)
    assert flow.redeem(code, auth=(flow.client_id, "wrong")).json()["error"] == "invalid_client"
    assert flow.redeem(code, auth=("nobody", flow.secret)).status_code == 401
    assert other.redeem(code).json()["error"] == "invalid_grant"
    assert "access_token" in flow.redeem(code).json()


def test_a_code_is_good_for_a_minute(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oauth, "CODE_SECONDS", -1)
    assert flow.redeem(flow.consent()["code"]).json()["error"] == "invalid_grant"


@pytest.mark.parametrize(
    "changed", [{"client_id": "0" * 24}, {"redirect_uri": "https://evil.example/"}, {"redirect_uri": ""}]
)
def test_nobody_is_sent_to_an_address_that_is_not_registered(flow: Flow, changed: dict[str, str]) -> None:
    refused = flow.ask(**changed)
    assert refused.status_code == 400 and "location" not in refused.headers and "evil" not in refused.text


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"scope": "openid inference-api"}, "invalid_scope"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
    ],
)
def test_other_errors_are_the_applications(flow: Flow, changed: dict[str, str], error: str) -> None:
    sent = flow.ask(**changed)
    assert sent.status_code == 303 and parse_qs(urlsplit(sent.headers["location"]).query)["error"] == [error]


def test_declining(flow: Flow) -> None:
    told = flow.consent("deny")
    assert told["error"] == "access_denied" and told["state"] == "s" and "code" not in told


def test_an_application_without_a_secret_needs_pkce(hub: RunningHub, flow: Flow) -> None:
    body = {"client_name": "cli", "redirect_uris": [BACK], "token_endpoint_auth_method": "none"}
    url = f"{hub.endpoint}/oauth/register"
    made = httpx2.post(url, json=body, headers={"Authorization": f"Bearer {flow.login[1]}"}).json()
    assert "client_secret" not in made
    flow.client_id = made["client_id"]
    sent = flow.ask(code_challenge="")
    assert "error=invalid_request" in sent.headers["location"]
    code = flow.consent()["code"]
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": BACK, "client_id": flow.client_id}
    url = f"{hub.endpoint}/oauth/token"
    assert "access_token" in httpx2.post(url, data={**form, "code_verifier": VERIFIER}).json()
    assert httpx2.post(f"{hub.endpoint}/oauth/register", json=body).status_code == 401


def test_a_token_ends_and_cannot_be_forged(flow: Flow) -> None:
    user = flow.hub.hub.accounts.by_name("maria")
    assert user is not None
    url = f"{flow.hub.endpoint}/api/whoami-v2"

    def status(token: str) -> int:
        return httpx2.get(url, headers={"Authorization": f"Bearer {token}"}).status_code

    good = oauth.issue(flow.hub.hub, user, ("openid",))
    flow.hub.hub.oauth.seconds = -1
    over = oauth.issue(flow.hub.hub, user, ("openid",))
    flow.hub.hub.oauth.seconds = 3600
    forged = oauth.PREFIX + jwt.encode(
        {"user": user.id, "scopes": ["manage-repos"], "aud": "access"}, "k" * 32, algorithm="HS256"
    )
    found = re.search(r'name="ticket" value="([^"]+)"', flow.ask().text)
    assert found is not None
    ticket = oauth.PREFIX + found[1]
    assert [status(one) for one in (good, over, forged, ticket, oauth.PREFIX)] == [200, 401, 401, 401, 401]


# --- scopes

MINE, ORGS, OTHERS = "maria", "the-org", "acme"


@pytest.mark.parametrize(
    ("scope", "own_private", "open_pr", "write_own", "create"),
    [
        ("openid profile", False, False, False, False),
        ("write-discussions", False, True, False, False),
        ("read-repos", True, False, False, False),
        ("write-repos", True, True, True, False),
        ("manage-repos", True, True, True, True),
    ],
)
def test_scopes_are_kept(
    hub: RunningHub, scope: str, own_private: bool, open_pr: bool, write_own: bool, create: bool
) -> None:
    flow = Flow(hub)
    owner = HfApi(endpoint=hub.endpoint, token=flow.login[1])
    number = next(_NUMBERS)
    private, public, theirs = f"{MINE}/private{number}", f"{MINE}/public{number}", f"{OTHERS}/public{number}"
    owner.create_repo(private, private=True)
    owner.create_repo(public)
    HfApi(endpoint=hub.endpoint, token=hub.create_user(OTHERS)).create_repo(theirs)
    api = flow.api(scope)
    assert _works(lambda: api.model_info(public)) and _works(lambda: api.model_info(theirs))
    assert _works(lambda: api.model_info(private)) == own_private
    for repo in (theirs, public):
        opened = _works(lambda repo=repo: api.create_commit(repo, [file()], commit_message="a", create_pr=True))
        assert opened == open_pr
    assert _works(lambda: api.create_discussion(theirs, "A title")) == (scope == "write-discussions")
    assert _works(lambda: api.create_commit(public, [file()], commit_message="a")) == write_own
    assert not _works(lambda: api.create_commit(theirs, [file()], commit_message="a"))
    assert not _works(lambda: api.merge_pull_request(theirs, 1))
    assert _works(lambda: api.create_repo(f"{MINE}/new{number}")) == create
    assert _works(lambda: api.delete_repo(private)) == create
    assert not _works(api.list_webhooks)


def test_pull_requests_on_private_repositories_take_both_scopes(flow: Flow) -> None:
    owner = HfApi(endpoint=flow.hub.endpoint, token=flow.login[1])
    repo = f"{MINE}/private{next(_NUMBERS)}"
    owner.create_repo(repo, private=True)
    for scope, fine in (("write-discussions", False), ("read-repos", False), ("write-discussions read-repos", True)):
        api = flow.api(scope)
        assert _works(lambda api=api: api.create_commit(repo, [file()], commit_message="a", create_pr=True)) == fine
    details = owner.get_discussion_details(repo, 1)
    assert details.author == MINE
    # More commits to one's own pull request, and nothing to the main branch.
    api.create_commit(repo, [file(b"b")], commit_message="b", revision="refs/pr/1")
    assert not _works(lambda: api.create_commit(repo, [file(b"b")], commit_message="b"))


def test_organisations_are_reached_where_the_person_chose_them(hub: RunningHub) -> None:
    flow = Flow(hub, name="joan", orgs={ORGS: "admin"})
    repo = f"{ORGS}/private{next(_NUMBERS)}"
    HfApi(endpoint=hub.endpoint, token=flow.login[1]).create_repo(repo, private=True)
    org = hub.hub.accounts.by_name(ORGS)
    other = hub.hub.accounts.create("other-org", is_org=True)
    assert org is not None
    assert ORGS in flow.ask(scope="read-repos").text and ORGS not in flow.ask(scope="write-discussions").text
    assert not _works(lambda: flow.api("read-repos").model_info(repo))
    assert not _works(lambda: flow.api("read-repos", other.id).model_info(repo))
    assert _works(lambda: flow.api("read-repos", org.id).model_info(repo))


def file(content: bytes = b"a") -> CommitOperationAdd:
    """The client takes each of them once."""
    return CommitOperationAdd(path_in_repo="a.txt", path_or_fileobj=content)


def _works(call: Callable[[], Any]) -> bool:
    try:
        call()
    except HfHubHTTPError as error:
        assert error.response is not None and error.response.status_code in (401, 403, 404), error
        return False
    return True
