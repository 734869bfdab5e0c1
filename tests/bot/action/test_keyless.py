"""Tokens without a stored one: a real identity token, exchanged at the local Hub, used to publish."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, _oidc
from huggingface_hub.errors import HfHubHTTPError

from bot.action import keyless
from bot.action.keyless import Token, hub_token
from bot.errors import KeylessRefused, NotAuthorized
from bot.hubapi import scrub
from bot.localhub.testing import RunningHub, running_hub
from tests.bot.hubs import Repository, repository
from tests.bot.issuer import PERMIT, Issuer, running_issuer

GIVEN = "hf_givenByTheWorkflow"


@pytest.fixture(scope="module")
def _hub() -> Iterator[RunningHub]:
    with running_hub() as hub:
        yield hub


@pytest.fixture(scope="module")
def _repo(_hub: RunningHub, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return repository(_hub, tmp_path_factory.mktemp("keyless"))


@pytest.fixture
def repo(_hub: RunningHub, _repo: Repository) -> Iterator[Repository]:
    """The module's repository, which trusts nobody yet; nothing of what a test publishes there stays open."""
    _hub.hub.publishers.clear()
    _hub.hub.token_seconds, _hub.hub.tells_publishers = 3600, False
    yield _repo
    _hub.clear_faults()
    for num, status in _repo.pulls():
        if status == "open":
            _repo.owner.change_discussion_status(_repo.repo_id, num, "closed")


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with running_issuer() as one:
        yield one


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyless, "PAUSES", (0.0, 0.0))


@pytest.fixture
def ask(repo: Repository, issuer: Issuer) -> Callable[..., Token]:
    """``hub_token`` for this test's repository and job; what was said and masked are its attributes."""

    def call(given: str | None = None, of: Repository = repo, **env: str) -> Token:
        whole = {name: value for name, value in {**issuer.env, **env}.items() if value}
        return hub_token(
            of.repo_id,
            of.hub.endpoint,
            given,
            whole,
            call.said.append,
            mask=call.masked.append,  # type: ignore[attr-defined]
        )

    call.said, call.masked = [], []  # type: ignore[attr-defined]
    return call


def trust(repo: Repository, issuer: Issuer, **claims: str) -> None:
    repo.hub.trust(repo.repo_id, issuer.url, **{"repository": "acme/training", **claims})


def test_a_trusted_job_gets_a_token_for_its_repository(
    repo: Repository, issuer: Issuer, ask: Callable[..., Token]
) -> None:
    trust(repo, issuer, workflow="pte.yml", branch="main")
    token = ask(GIVEN)
    assert token.keyless and token.seconds == 3600 and token.secret.startswith("hf_jwt_")
    api = HfApi(repo.hub.endpoint, token=token.secret)
    opened = api.create_commit(
        repo.repo_id, [CommitOperationAdd("new", b"x")], commit_message="From a job", create_pr=True
    )
    assert api.get_discussion_details(repo.repo_id, int(str(opened.pr_num))).author == "[OIDC]"


def test_the_given_token_is_not_looked_at_when_one_was_minted(
    repo: Repository, issuer: Issuer, ask: Callable[..., Token]
) -> None:
    trust(repo, issuer)
    assert ask(GIVEN).secret != GIVEN
    assert ask.said == []  # type: ignore[attr-defined]


def test_github_is_asked_for_this_hub_and_keeps_its_own_parameters(
    repo: Repository, issuer: Issuer, ask: Callable[..., Token]
) -> None:
    trust(repo, issuer)
    ask()
    assert issuer.asked == [f"api-version=2.0&audience={repo.hub.endpoint.replace(':', '%3A').replace('/', '%2F')}"]


def test_huggingface_hub_still_loses_githubs_parameters(
    repo: Repository, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When this fails, ``keyless._identity`` can be huggingface_hub's own function."""
    for name in (keyless.ADDRESS, keyless.PERMIT):
        monkeypatch.setenv(name, issuer.env[name])
    _oidc.get_oidc_token(provider="github", audience="https://hub.example")
    assert issuer.asked == ["audience=https%3A%2F%2Fhub.example"]


def test_secrets_are_masked_before_they_are_used_and_stand_in_no_environment(
    repo: Repository, issuer: Issuer, ask: Callable[..., Token]
) -> None:
    trust(repo, issuer)
    token = ask()
    permit, identity, minted = ask.masked  # type: ignore[attr-defined]
    assert permit == PERMIT and identity.startswith("eyJ") and minted == token.secret
    assert keyless.ADDRESS not in os.environ and keyless.PERMIT not in os.environ
    for secret in (PERMIT, identity, minted):
        assert secret not in repr(token) and secret not in str(list(os.environ.items()))
    assert scrub(f"a {identity} b {minted} c") == "a *** b *** c"


def test_a_token_reaches_nothing_else(
    repo: Repository, issuer: Issuer, ask: Callable[..., Token], tmp_path: Path
) -> None:
    trust(repo, issuer)
    other = repository(repo.hub, tmp_path / "other")
    api = HfApi(repo.hub.endpoint, token=ask().secret)
    operations = [CommitOperationAdd("new", b"x")]
    for act in (
        lambda: api.create_commit(other.repo_id, operations, commit_message="m", create_pr=True),
        lambda: api.create_discussion(other.repo_id, "Hello"),
        lambda: api.create_repo("acme/another"),
        lambda: api.delete_repo(repo.repo_id),
        api.list_webhooks,
    ):
        with pytest.raises(HfHubHTTPError) as caught:
            act()
        assert caught.value.response.status_code in (401, 403)


def test_a_token_ends(repo: Repository, issuer: Issuer, ask: Callable[..., Token]) -> None:
    trust(repo, issuer)
    repo.hub.hub.token_seconds = -1
    api = HfApi(repo.hub.endpoint, token=ask().secret)
    with pytest.raises(HfHubHTTPError) as caught:
        api.create_discussion(repo.repo_id, "Hello")
    assert caught.value.response.status_code == 401


def test_a_forged_token_is_nobodys(repo: Repository, issuer: Issuer, ask: Callable[..., Token]) -> None:
    trust(repo, issuer)
    head, body, _ = ask().secret.split(".")
    with pytest.raises(HfHubHTTPError):
        HfApi(repo.hub.endpoint, token=f"{head}.{body}.AAAA").create_discussion(repo.repo_id, "Hello")


@pytest.mark.parametrize(
    "change",
    [
        {"repository": "mallory/training"},
        {"ref": "refs/heads/main-backup"},
        {"ref": "refs/tags/main"},
        {"workflow_ref": "acme/training/.github/workflows/other.yml@refs/heads/main"},
        {"exp": 1},
        {"aud": "https://elsewhere.example"},
        {"iss": "https://token.actions.githubusercontent.com"},
    ],
)
def test_another_job_gets_none(
    repo: Repository, issuer: Issuer, ask: Callable[..., Token], change: dict[str, str]
) -> None:
    trust(repo, issuer, workflow="pte.yml", branch="main")
    issuer.claims |= change
    with pytest.raises(KeylessRefused, match="400: "):
        ask()


def test_a_token_that_somebody_else_signed_is_refused(
    repo: Repository, issuer: Issuer, ask: Callable[..., Token]
) -> None:
    trust(repo, issuer)
    issuer.signing_key = 2
    with pytest.raises(KeylessRefused):
        ask()


def test_refused_and_nothing_else_says_what_to_enter_where(repo: Repository, ask: Callable[..., Token]) -> None:
    with pytest.raises(KeylessRefused) as caught:
        ask()
    assert f"{repo.hub.endpoint}/{repo.repo_id}/settings" in caught.value.advice
    assert "repository = acme/training, workflow = pte.yml, branch = main" in caught.value.advice
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    assert PERMIT not in str(caught.value) and "eyJ" not in str(caught.value)


def test_refused_with_a_given_token_takes_that_and_says_so(repo: Repository, ask: Callable[..., Token]) -> None:
    assert ask(GIVEN) == Token(secret=GIVEN, keyless=False)
    (notice,) = ask.said  # type: ignore[attr-defined]
    assert repo.repo_id in notice and "hub-token is used instead" in notice and GIVEN not in notice


def test_a_job_that_may_not_ask_uses_the_given_token_silently(ask: Callable[..., Token], issuer: Issuer) -> None:
    assert ask(GIVEN, ACTIONS_ID_TOKEN_REQUEST_URL="").secret == GIVEN
    assert ask.said == [] and issuer.asked == []  # type: ignore[attr-defined]


def test_a_job_with_nothing_is_told_both_ways(ask: Callable[..., Token]) -> None:
    with pytest.raises(NotAuthorized) as caught:
        ask(ACTIONS_ID_TOKEN_REQUEST_TOKEN="")
    assert "id-token: write" in caught.value.advice and "hub-token" in caught.value.advice


def test_a_hub_that_stumbles_is_asked_again(repo: Repository, issuer: Issuer, ask: Callable[..., Token]) -> None:
    trust(repo, issuer)
    issuer.statuses = [503, 429]
    fault = repo.hub.fail("^/oauth/token$", 502, times=2)
    assert ask().keyless
    assert (fault.hits, len(issuer.asked)) == (2, 3)


@pytest.mark.parametrize("action", [500, "drop"])
def test_a_hub_that_does_not_answer_is_not_asked_forever(
    repo: Repository, issuer: Issuer, ask: Callable[..., Token], action: int
) -> None:
    trust(repo, issuer)
    fault = repo.hub.fail("^/oauth/token$", action, times=9)
    with pytest.raises(KeylessRefused):
        ask()
    assert fault.hits == keyless.ATTEMPTS
    assert ask(GIVEN).secret == GIVEN


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_is_not_asked_again(issuer: Issuer, ask: Callable[..., Token], status: int) -> None:
    issuer.statuses = [status]
    with pytest.raises(KeylessRefused, match=f"GitHub gave no identity token .{status}"):
        ask()
    assert len(issuer.asked) == 1


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"value": 5}', b'{"value": "two words"}', b'{"value": "a\\nb"}', b"\xff", b'{"value": ""}'],
)
def test_an_answer_that_is_none_is_refused(issuer: Issuer, ask: Callable[..., Token], body: bytes) -> None:
    issuer.body = body or b"\n"
    with pytest.raises(KeylessRefused):
        ask()


@pytest.fixture
def fresh(repo: Repository, tmp_path: Path) -> Repository:
    """A repository without pull requests."""
    return repository(repo.hub, tmp_path)


@pytest.mark.parametrize("told", [False, True])
def test_publishing_finds_its_own_pull_request_again(
    fresh: Repository, issuer: Issuer, ask: Callable[..., Token], told: bool
) -> None:
    """Each run has another token; whether the Hub says whose it is or not, there is one pull request."""
    trust(fresh, issuer)
    fresh.hub.hub.tells_publishers = told
    first = fresh.publish(fresh.report(), token=ask(of=fresh).secret)
    again = fresh.publish(fresh.report(), token=ask(of=fresh).secret)
    assert (first.operation, again.operation, again.pr_num) == ("created", "unchanged", first.pr_num)


def test_somebody_elses_pull_request_with_our_marker_is_not_ours(
    fresh: Repository, issuer: Issuer, ask: Callable[..., Token]
) -> None:
    trust(fresh, issuer)
    theirs = fresh.publish(fresh.report())
    ours = fresh.publish(fresh.report(), token=ask(of=fresh).secret)
    assert (theirs.operation, ours.operation) == ("created", "created")
    assert ours.pr_num != theirs.pr_num
