"""GitHub's refusals as ours: a status, words and headers in, one of ``bot.errors`` (70 to 77) out. Pure.

Used by ``bot.githubapi`` for the API, and by ``bot.publish.github`` for Git LFS and uploads, which answer alike.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from typing import Any

from github import GithubException
from github.GithubException import UnknownObjectException

from bot.errors import (
    BranchProtected,
    CommitConflict,
    GitHubNotAuthorized,
    GitHubNotFound,
    GitHubRateLimited,
    GitHubRefused,
    GitHubUnreachable,
    RepositoryReadOnly,
)

NO_HINT_SECONDS = 60.0
"""For a limit without a time: GitHub asks for "at least one minute"."""
_SECRET = re.compile(
    r"\b(?:gh[a-z]_|github_pat_|hf_)[A-Za-z0-9_]{8,}|(?<=bearer )[^\s'\"]+|(?<=basic )[A-Za-z0-9+/=]{8,}"
    r"|(?<=://)[^\s/@]+(?=@)|\?[^\s'\"]*=[^\s'\"]*",
    re.IGNORECASE,
)
"""Tokens by shape, credentials in headers and URLs, and queries, which may be signatures."""
_RULES = re.compile(r"rule violation|protected branch|branch protection|protected ref|required signatures", re.I)
_ARCHIVED = re.compile(r"\barchived\b", re.I)
_MAY_NOT_OPEN = re.compile(r"not permitted to create or approve pull requests", re.I)
_EXISTS = re.compile(r"already exists|is not a fast forward|but expected|base branch was modified", re.I)
_LIMITED = re.compile(r"rate limit|abuse detection|\bquota exceeded", re.I)


def scrub(text: str, token: str | None = None) -> str:
    """``text`` without the token and without anything that looks like one."""
    if token:
        text = text.replace(token, "***")
    return _SECRET.sub("***", text)


def refusal(  # noqa: PLR0911 - one line per kind
    status: int,
    said: str,
    headers: Mapping[str, Any],
    *,
    place: str,
    needs: str | None = None,
    token: str | None = None,
) -> Exception:
    """Our failure for a reply of GitHub's that is none of success; also for those of Git LFS and of uploads.

    Args:
        headers: by lower-case name.
        place: who answered to what: ``api.github.com while reading acme/tiny``.
    """
    said = scrub(said, token)[:400].rstrip(". ")
    answered = f"{place}: GitHub answered {status}: {said}."
    if (wait := limit_seconds(status, headers, said)) is not None:
        return GitHubRateLimited(f"{answered} It takes requests again {_when(wait)}.")
    if status in (301, 302, 307, 308):
        # Reads follow a renamed repository, writes do not; who looks again learns the new name.
        return CommitConflict(answered)
    if status >= 500 or status == 408:
        return GitHubUnreachable(answered)
    if _ARCHIVED.search(said) and status in (403, 410, 422):
        return RepositoryReadOnly(answered)
    if status == 403 and _MAY_NOT_OPEN.search(said):
        return GitHubNotAuthorized(
            answered,
            remedy="In the repository's settings, under Actions, General, let GitHub Actions create pull requests.",
        )
    if status in (403, 409, 422) and _RULES.search(said):
        return BranchProtected(answered)
    if status == 401:
        return GitHubNotAuthorized(answered, remedy="github-token is no valid token; it may have expired.")
    if status == 403:
        right = accepted_rights(headers) or needs
        return GitHubNotAuthorized(f"{answered} It takes the right `{right}`." if right else answered)
    if status in (404, 410, 451):
        return GitHubNotFound(answered)
    if status == 409 and "repository is empty" in said.lower():
        return GitHubRefused(answered, remedy="Push a first commit to the repository, and run the job again.")
    if status == 409 or (status == 422 and _EXISTS.search(said)):
        return CommitConflict(answered)
    return GitHubRefused(answered)


def accepted_rights(headers: Mapping[str, Any]) -> str | None:
    """What X-Accepted-GitHub-Permissions asks for, as a workflow's ``permissions:`` spells it; None without it.

    The header separates alternatives by semicolons and rights that are needed together by commas.
    """
    value = str(headers.get("x-accepted-github-permissions") or "")
    first = [right.strip() for right in value.split(";", maxsplit=1)[0].split(",")]
    found = [re.fullmatch(r"([a-z_]{1,60})=(read|write|admin)", right) for right in first]
    return ", ".join(f"{one[1].replace('_', '-')}: {one[2]}" for one in found if one) or None


def limit_seconds(status: int, headers: Mapping[str, Any], said: str) -> float | None:
    """How long GitHub asks to wait; None where the reply is about no rate limit.

    By docs.github.com, "Rate limits for the REST API": Retry-After, else X-RateLimit-Reset where nothing remains,
    else at least a minute.

    Args:
        headers: by lower-case name.
    """
    if status not in (403, 429):
        return None
    after = str(headers.get("retry-after") or "")
    if after.isdigit():
        return float(after)
    reset = str(headers.get("x-ratelimit-reset") or "")
    if str(headers.get("x-ratelimit-remaining") or "") == "0" and reset.isdigit():
        return max(0.0, int(reset) - time.time()) + 1.0
    return NO_HINT_SECONDS if status == 429 or _LIMITED.search(said) else None


def _when(wait: float) -> str:
    end = time.gmtime(time.time() + wait)
    if wait >= 86_400:
        return f"on {time.strftime('%F', end)}"
    return f"in {wait:.0f} seconds, at {time.strftime('%H:%M:%S UTC', end)}"


def words(error: GithubException) -> str:
    """GitHub's message with the reasons that stand beside it, on one line."""
    data = error.data
    if isinstance(data, bytes | str):
        text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
        return " ".join(text.split())[:300] or type(error).__name__
    if not isinstance(data, dict):
        return "Not Found" if isinstance(error, UnknownObjectException) else str(error.message or "no reason given")
    errors = data.get("errors")
    reasons = errors if isinstance(errors, list) else []
    told = [str(one.get("message") or one.get("code") or "") if isinstance(one, dict) else str(one) for one in reasons]
    return " ".join(": ".join([str(data.get("message", "no reason given")), *filter(None, told)]).split())


def decoded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace")[:1000]
