"""How the bot speaks to GitHub: one client per address and token, its failures as ours, no secret in any text.

Used by ``bot.publish.github`` (stage 5) and ``bot.replies`` (stage 6). In: what PyGithub and requests raise. Out:
one of the classes of ``bot.errors`` (70 to 77), with GitHub's own words and the right that the token lacks.

What repeats and what does not: reads are repeated after a 5xx or a lost reply, with bounded waits. A write is
repeated only where GitHub said that it did *not* do it (a rate limit). After any other failure of a write nobody
knows whether it was done, so its caller looks first; ``found_or`` is that look for one single write.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import requests
import urllib3
from github import Auth, Github, GithubException
from github.GithubException import BadAttributeException, UnknownObjectException
from urllib3.connectionpool import ConnectionPool
from urllib3.exceptions import MaxRetryError
from urllib3.response import BaseHTTPResponse

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
from exporter import __version__
from exporter.errors import PtebotError

API_URL = "https://api.github.com"
TIMEOUT_SECONDS = 30
"""GitHub ends its own requests after 10 seconds; the rest is for the way."""
MOST_RETRIES = 4
RETRY_SECONDS = 0.5
"""Before the second repetition of a read; doubled each time. The first comes at once."""
LONGEST_WAIT_SECONDS = 120.0
"""For a rate limit to end; one that ends later is told instead."""
MOST_WAITS = 2
NO_HINT_SECONDS = 60.0
"""For a limit without a time: GitHub asks for "at least one minute"."""
PAUSE_SECONDS: float | None = 0.25
WRITE_PAUSE_SECONDS: float | None = 1.0
"""Between two requests and between two writes, as GitHub's guide for well-behaved clients asks."""
_READS = frozenset({"GET", "HEAD"})
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

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Client:
    """PyGithub's client, and what it was made from."""

    gh: Github
    api_url: str
    token: str | None = field(repr=False)

    def call(self, verb: str, path: str, *, query: Mapping[str, Any] | None = None, body: Any = None) -> Any:
        """One request of the API, its reply's JSON; inside ``asking``, which explains what it raises.

        Args:
            path: ``/repos/acme/tiny/pulls``, with everything quoted that needs it.
        """
        accept = {"Accept": "application/vnd.github+json"}
        status, headers, text = self.gh.requester.requestJson(verb, path, dict(query or {}), accept, body)
        if status >= 300:  # PyGithub itself takes the 307 of a renamed repository for success
            raise GithubException(status, _decoded(text.encode()), headers)
        return json.loads(text) if text else None

    def me(self) -> str:
        """The account that writes with this token, ``github-actions[bot]`` for a job's own token.

        Raises:
            GitHubNotAuthorized: there is no token, or it is none.
        """
        if not self.token:
            raise GitHubNotAuthorized("There is no token for GitHub, so nothing can be written in anyone's name.")
        with asking("asking who the token belongs to", self):
            try:
                return self.gh.get_user().login
            except GithubException as error:
                # A token of an app (a job's own is one) has no user; GraphQL names the app's account.
                if error.status not in (403, 404):
                    raise
            return self._viewer()

    def _viewer(self) -> str:
        """GraphQL's questions are POSTs, which nothing repeats by itself; this one only reads."""
        for attempt in range(MOST_RETRIES):
            try:
                _, answer = self.gh.requester.graphql_query("query { viewer { login } }", {})
                return str(answer["data"]["viewer"]["login"])
            except (GithubException, requests.RequestException) as error:
                lost = not isinstance(error, GithubException) or error.status >= 500
                if not lost or attempt == MOST_RETRIES - 1:
                    raise
                time.sleep(RETRY_SECONDS * 2**attempt)
        raise AssertionError("the last attempt raises")


def connect(token: str | None, *, api_url: str = API_URL) -> Client:
    """A client that uses this token or none at all.

    Args:
        api_url: ``GITHUB_API_URL`` of the job, ``https://api.github.com`` or that of an own server.
    """
    api_url = api_url.rstrip("/")
    gh = Github(
        base_url=api_url,
        auth=Auth.Token(token) if token else None,
        timeout=TIMEOUT_SECONDS,
        user_agent=f"ptebot/{__version__}",
        per_page=100,
        retry=_Retry(
            total=MOST_RETRIES,
            redirect=0,
            other=0,
            allowed_methods=_READS,
            backoff_factor=RETRY_SECONDS,
            respect_retry_after_header=False,
            raise_on_status=False,
        ),
        seconds_between_requests=PAUSE_SECONDS,
        seconds_between_writes=WRITE_PAUSE_SECONDS,
    )
    return Client(gh=gh, api_url=api_url, token=token or None)


def same_account(one: str | None, other: str | None) -> bool:
    """Whether two logins are one account: an app's is written with and without ``[bot]``, in either case."""
    plain = [(name or "").lower().removesuffix("[bot]") for name in (one, other)]
    return plain[0] == plain[1] != ""


def scrub(text: str, token: str | None = None) -> str:
    """``text`` without the token and without anything that looks like one."""
    if token:
        text = text.replace(token, "***")
    return _SECRET.sub("***", text)


@contextmanager
def asking(doing: str, client: Client, *, needs: str | None = None) -> Iterator[None]:
    """Turn every failure of GitHub inside the block into ours; ``doing`` was being done ("reading acme/tiny").

    The original is dropped from the traceback (``from None``), because it may hold the request and its headers.

    Args:
        needs: the right that this takes, as a workflow spells it (``pull-requests: write``); told where GitHub
            itself does not say.

    Raises:
        GitHubUnreachable, GitHubNotFound, GitHubNotAuthorized, GitHubRateLimited, GitHubRefused, BranchProtected,
            RepositoryReadOnly: as GitHub answers.
        CommitConflict: something moved since it was read, or is there already.
    """
    try:
        yield
    except PtebotError:
        raise
    except Exception as error:
        found = translated(error, doing, client, needs=needs)
        if found is None:
            raise
        raise found from None


def found_or(look: Callable[[], T | None], write: Callable[[], T]) -> T:
    """One write whose reply may be lost: after a failure that leaves it open, what was written is looked for.

    Args:
        look: gives what the write makes, None where it is not there.

    Raises:
        GitHubUnreachable: there was no answer, and it is not there; doing the same again doubles nothing.
    """
    try:
        return write()
    except (GitHubUnreachable, CommitConflict):
        found = look()
        if found is None:
            raise
        return found


def translated(error: Exception, doing: str, client: Client, *, needs: str | None = None) -> Exception | None:
    """Our failure for one of PyGithub's or requests'; None when it is none of GitHub's doing."""
    place = f"{urlsplit(client.api_url).netloc} while {doing}"
    if isinstance(error, GithubException):
        return refusal(error.status, _words(error), error.headers or {}, place=place, needs=needs, token=client.token)
    said = scrub(" ".join(str(error).split())[:300], client.token)
    if isinstance(error, requests.RequestException | urllib3.exceptions.HTTPError | ConnectionError | TimeoutError):
        return GitHubUnreachable(f"No answer from {place}: {said}.")
    if isinstance(error, RuntimeError) and "redirected" in said:
        return GitHubRefused(f"{place}: {said}.", remedy="Check GITHUB_API_URL: it must be the server's own address.")
    if isinstance(error, BadAttributeException | AssertionError | json.JSONDecodeError):
        # PyGithub's words for replies that are not GitHub's: a proxy's page, an address of another server.
        return GitHubRefused(f"{place}: the reply is not one of GitHub's: {said or type(error).__name__}.")
    return None


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
    moment = time.strftime("%H:%M:%S UTC", time.gmtime(time.time() + wait))
    return f"in {wait:.0f} seconds, at {moment}" if wait < 86_400 else f"on {time.strftime('%F', time.gmtime())}"


def _words(error: GithubException) -> str:
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


class _Retry(urllib3.Retry):
    """Reads again after a 5xx or a lost reply; any request again after a rate limit that ends soon.

    PyGithub's own GithubRetry repeats POSTs after a 5xx, which opens pull requests twice, waits as long as
    GitHub says, and knows no 429.
    """

    def is_retry(self, method: str, status_code: int, has_retry_after: bool = False) -> bool:
        return status_code in (403, 429) or (status_code >= 500 and method.upper() in _READS)

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: ConnectionPool | None = None,
        _stacktrace: TracebackType | None = None,
    ) -> Self:
        if response is None or response.status not in (403, 429):
            return super().increment(method, url, response, error, _pool, _stacktrace)
        headers = {name.lower(): value for name, value in response.headers.items()}
        data = _decoded(response.data)
        refused = GithubException(response.status, data, headers)
        wait = limit_seconds(response.status, headers, _words(refused))
        waited = sum(one.status in (403, 429) for one in self.history)
        if wait is None or wait > LONGEST_WAIT_SECONDS or waited >= MOST_WAITS:
            raise refused
        try:
            again = super().increment(method, url, response, error, _pool, _stacktrace)
        except MaxRetryError:
            raise refused from None
        again.get_backoff_time = lambda: wait  # type: ignore[method-assign]
        return again


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace")[:1000]
