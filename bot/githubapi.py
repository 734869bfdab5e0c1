"""How the bot speaks to GitHub: one client per address and token, its failures as ours, no secret in any text.

Used by ``bot.publish.github`` (stage 5) and ``bot.replies`` (stage 6). In: what PyGithub and requests raise. Out:
one of the classes of ``bot.errors`` (70 to 77), with GitHub's own words and the right that the token lacks.

What repeats and what does not: reads are repeated after a 5xx or a lost reply, with bounded waits. A write is
repeated only where GitHub said that it did *not* do it (a rate limit). After any other failure of a write nobody
knows whether it was done, so its caller looks first; ``found_or`` is that look for one single write.
"""

from __future__ import annotations

import json
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
from github.GithubException import BadAttributeException
from urllib3.connectionpool import ConnectionPool
from urllib3.exceptions import MaxRetryError
from urllib3.response import BaseHTTPResponse

from bot.errors import CommitConflict, GitHubNotAuthorized, GitHubRefused, GitHubUnreachable
from bot.githubfailures import decoded, limit_seconds, refusal, scrub, words
from exporter import __version__
from exporter.errors import PtebotError

ACTIONS = "github-actions[bot]"
"""The account of every job's own token."""
API_URL = "https://api.github.com"
TIMEOUT_SECONDS = 30
"""GitHub ends its own requests after 10 seconds; the rest is for the way."""
MOST_RETRIES = 4
RETRY_SECONDS = 0.5
"""Before the second repetition of a read; doubled each time. The first comes at once."""
LONGEST_WAIT_SECONDS = 120.0
"""For a rate limit to end; one that ends later is told instead."""
MOST_WAITS = 2
PAUSE_SECONDS: float | None = 0.25
WRITE_PAUSE_SECONDS: float | None = 1.0
"""Between two requests and between two writes, as GitHub's guide for well-behaved clients asks."""
_READS = frozenset({"GET", "HEAD"})
_NOT_GITHUBS = (BadAttributeException, AssertionError, ValueError, TypeError, LookupError, AttributeError)
"""What reading a reply raises that has another shape than it should."""
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
            raise GithubException(status, decoded(text.encode()), headers)
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
                if isinstance(error, GithubException) and error.status < 500:
                    return ACTIONS  # a server that answers apps no such question: a job's own token is meant
                if attempt == MOST_RETRIES - 1:
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
        return refusal(error.status, words(error), error.headers or {}, place=place, needs=needs, token=client.token)
    said = scrub(" ".join(str(error).split())[:300], client.token)
    if isinstance(error, requests.RequestException | urllib3.exceptions.HTTPError | ConnectionError | TimeoutError):
        return GitHubUnreachable(f"No answer from {place}: {said}.")
    if isinstance(error, RuntimeError) and "redirected" in said:
        return GitHubRefused(f"{place}: {said}.", remedy="Check GITHUB_API_URL: it must be the server's own address.")
    if isinstance(error, _NOT_GITHUBS):
        # PyGithub's words for replies that are not GitHub's: a proxy's page, an address of another server.
        return GitHubRefused(f"{place}: the reply is not one of GitHub's: {said or type(error).__name__}.")
    return None


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
        data = decoded(response.data)
        refused = GithubException(response.status, data, headers)
        wait = limit_seconds(response.status, headers, words(refused))
        waited = sum(one.status in (403, 429) for one in self.history)
        if wait is None or wait > LONGEST_WAIT_SECONDS or waited >= MOST_WAITS:
            raise refused
        try:
            again = super().increment(method, url, response, error, _pool, _stacktrace)
        except MaxRetryError:
            raise refused from None
        again.get_backoff_time = lambda: wait  # type: ignore[method-assign]
        return again
