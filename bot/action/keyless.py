"""A token for the Hub repository that gets the pull request: minted for this job where it can be, else the given one.

Stage 5, right before publishing, because such a token lives for an hour and an export may take longer. In: the
repository, the job's environment and the ``hub-token`` input. Out: a ``Token``, or a refusal with what to do. A job
with ``id-token: write`` asks GitHub for an identity token and exchanges it for one that may write to that repository
only (https://huggingface.co/docs/hub/trusted-publishers). Secrets are given to ``mask`` before anything else is done
with them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import httpx2
from huggingface_hub import _oidc
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import get_session, hf_raise_for_status  # type: ignore[attr-defined]  # public

from bot.errors import KeylessRefused, NotAuthorized
from bot.hubapi import scrub
from bot.publish.markdown import one_line

ADDRESS, PERMIT = "ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"
"""Where GitHub gives identity tokens, and the secret that lets this job ask; set with ``id-token: write`` only."""
ATTEMPTS = 3
PAUSES = (1.0, 4.0)
"""Seconds before the second and the third."""
_LONGEST = 16 * 1024
"""Characters of a token; theirs have some hundreds."""


@dataclass(frozen=True, kw_only=True)
class Token:
    """A token that may write to the repository."""

    secret: str = field(repr=False)
    keyless: bool
    """Whether it was minted for this job."""
    seconds: int | None = None
    """How long it lives; None for the given one."""


def offered(env: Mapping[str, str]) -> bool:
    """Whether this job may ask for an identity token."""
    return bool(env.get(ADDRESS) and env.get(PERMIT))


def hub_token(
    repo_id: str,
    endpoint: str,
    given: str | None,
    env: Mapping[str, str],
    say: Callable[[str], None],
    *,
    mask: Callable[[str], None] = lambda secret: None,
) -> Token:
    """The token to publish to ``repo_id`` with: a minted one first, then ``given``.

    Args:
        endpoint: the Hub's address; the identity token is made out to it.
        say: told in words when ``given`` has to do.
        mask: told each secret before it is used.

    Raises:
        KeylessRefused: no token could be minted, and there is no other.
        NotAuthorized: the job may not ask for one, and there is no other.
    """
    if not offered(env):
        if given:
            return Token(secret=given, keyless=False)
        raise NotAuthorized(
            f"A pull request on {repo_id} cannot be opened without a token.",
            remedy="Give the job `permissions: id-token: write` and trust this workflow in the Hub repository's "
            "settings, or set the input hub-token.",
        )
    mask(env[PERMIT])
    try:
        return _minted(repo_id, endpoint.rstrip("/"), env, mask)
    except KeylessRefused as error:
        if not given:
            raise
        say(f"{error.what} hub-token is used instead.")
        return Token(secret=given, keyless=False)


def _minted(repo_id: str, endpoint: str, env: Mapping[str, str], mask: Callable[[str], None]) -> Token:
    """Raises KeylessRefused."""
    given = _asked(
        "GitHub gave no identity token",
        "Give the job `permissions: id-token: write`, and run it again.",
        lambda: _identity(env, endpoint),
    )
    identity = _plain(given, "GitHub's answer holds no identity token")
    mask(identity)
    answer = _asked(
        f"{endpoint} gave no token for {repo_id}",
        _how_to_trust(repo_id, endpoint, env),
        lambda: _oidc.exchange_oidc_token(subject_token=identity, resource=repo_id, endpoint=endpoint),
    )
    found = answer if isinstance(answer, dict) else {}
    secret = _plain(found.get("access_token"), f"The answer of {endpoint} holds no token for {repo_id}")
    mask(secret)
    seconds = found.get("expires_in")
    return Token(secret=secret, keyless=True, seconds=seconds if isinstance(seconds, int) else None)


def _identity(env: Mapping[str, str], audience: str) -> Any:
    """Ask GitHub who this job is, as its toolkit does (actions/toolkit, packages/core/src/oidc-utils.ts).

    Not huggingface_hub's own ``_oidc.get_oidc_token``: that of 2.4 gives httpx the audience as ``params``, which takes
    the place of the address's query, ``api-version`` with it; and it reads the secret from the process's environment,
    where ptebot does not leave it.
    """
    parts = urlsplit(env[ADDRESS])
    query = urlencode([*parse_qsl(parts.query, keep_blank_values=True), ("audience", audience)])
    address = urlunsplit(parts._replace(query=query))
    response = get_session().get(address, headers={"Authorization": f"Bearer {env[PERMIT]}"})
    hf_raise_for_status(response)
    return response.json()["value"]


def _asked(what: str, remedy: str, ask: Callable[[], Any]) -> Any:
    """What ``ask`` gives; asked again when nobody answered.

    The original failure is dropped, for it holds the request with its secrets.
    """
    for attempt in range(ATTEMPTS):
        last = attempt == ATTEMPTS - 1
        try:
            return ask()
        except HfHubHTTPError as error:
            status = error.response.status_code
            said = one_line(scrub(error.server_message or f"HTTP {status}"))[:300]
            refusal = KeylessRefused(f"{what} ({status}: {said}).", remedy=remedy)
            if last or not (status == 429 or status >= 500):
                raise refusal from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            if last:
                raise KeylessRefused(f"{what}: no answer ({type(error).__name__}).", remedy=remedy) from None
        except (ValueError, KeyError, TypeError):
            raise KeylessRefused(f"{what}: the answer is not what was to be expected.", remedy=remedy) from None
        time.sleep(PAUSES[attempt])
    raise AssertionError  # the last attempt gives or raises


def _plain(value: object, what: str) -> str:
    """A token that can stand in a header; anything else is no token, and nothing of it is shown."""
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or not 8 <= len(value) <= _LONGEST:
        raise KeylessRefused(f"{what}.")
    if " " in value:
        raise KeylessRefused(f"{what}.")
    return value


def _how_to_trust(repo_id: str, endpoint: str, env: Mapping[str, str]) -> str:
    """What to enter in the repository's settings, from what this job is."""
    workflow = env.get("GITHUB_WORKFLOW_REF", "").partition("@")[0].rpartition("/")[2]
    branch = env.get("GITHUB_REF_NAME", "") if env.get("GITHUB_REF", "").startswith("refs/heads/") else ""
    claims = {"repository": env.get("GITHUB_REPOSITORY", ""), "workflow": workflow, "branch": branch}
    named = ", ".join(f"{name} = {one_line(value)}" for name, value in claims.items() if value)
    return (
        f"In {endpoint}/{repo_id}/settings, add a trusted publisher for GitHub Actions with the claims of this job"
        f"{f' ({named})' if named else ''}, or set the input hub-token."
    )
