"""GitHub's failures as ours, against a real HTTP server that answers what it is told to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from bot import githubapi, githubfailures
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
from bot.githubapi import asking, connect, found_or, same_account
from bot.githubfailures import accepted_rights, scrub
from exporter.errors import PtebotError

TOKEN = "ghs_AbCdEfGhIjKlMnOp0123"
USER = {"login": "octocat", "id": 1}


class Raw(bytes):
    """A body that is sent as it is."""


@dataclass
class Server:
    """Answers each request with the next of its replies: a status, headers, a body; None hangs up without a word."""

    url: str = ""
    replies: list[tuple[int, dict[str, str], Any] | None] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)

    def answer(self, *replies: tuple[int, dict[str, str], Any] | None) -> None:
        self.replies[:] = replies
        self.requests.clear()


@pytest.fixture(scope="module")
def module_server() -> Iterator[Server]:
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            server.requests.append((self.command, self.path))
            reply = server.replies.pop(0) if server.replies else (500, {}, {"message": "no more replies"})
            if reply is None:
                self.close_connection = True
                self.connection.close()
                return
            status, headers, body = reply
            data = bytes(body) if isinstance(body, Raw) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {
                "Content-Type": "application/json",
                **headers,
                "Content-Length": str(len(data)),
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_PATCH = do_PUT = do_GET

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_port}"
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield server
    http.shutdown()
    http.server_close()


@pytest.fixture
def server(module_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr(githubapi, "PAUSE_SECONDS", None)
    monkeypatch.setattr(githubapi, "WRITE_PAUSE_SECONDS", None)
    monkeypatch.setattr(githubapi, "RETRY_SECONDS", 0.001)
    module_server.answer()
    return module_server


def read(server: Server) -> str:
    client = connect(TOKEN, api_url=server.url)
    with asking("reading the user", client):
        return client.gh.get_user("octocat").login


def write(server: Server, needs: str | None = None) -> None:
    client = connect(TOKEN, api_url=server.url)
    with asking("writing a comment", client, needs=needs):
        client.call("POST", "/repos/acme/tiny/issues/1/comments", body={"body": "x"})


def said(message: str, **more: Any) -> dict[str, Any]:
    return {"message": message, **more}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"a {TOKEN} b", "a *** b"),
        ("a github_pat_11ABCDEFG_xyz b", "a *** b"),
        ("a hf_ZZZZZZZZZZZZ b", "a *** b"),
        ("Authorization: Basic eDp5OjEyMzQ1", "Authorization: Basic ***"),
        ("https://x-access-token:secret@github.com/x", "https://***@github.com/x"),
        ("PUT https://s3.example/x?X-Amz-Signature=0a1b&y=2 failed", "PUT https://s3.example/x*** failed"),
        ("what? nothing", "what? nothing"),
    ],
)
def test_scrub(text: str, expected: str) -> None:
    assert scrub(text, TOKEN) == expected


@pytest.mark.parametrize("fault", [None, (500, {}, said("oops")), (502, {}, said("Bad gateway")), (503, {}, said("x"))])
def test_reads_are_repeated(server: Server, fault: Any) -> None:
    server.answer(fault, fault, (200, {}, USER))
    assert read(server) == "octocat"
    assert len(server.requests) == 3


def test_reads_are_not_repeated_for_ever(server: Server) -> None:
    server.answer(*[(502, {}, said("Bad gateway"))] * 20)
    with pytest.raises(GitHubUnreachable, match="502: Bad gateway"):
        read(server)
    assert len(server.requests) == githubapi.MOST_RETRIES + 1
    server.answer(*[None] * 20)
    with pytest.raises(GitHubUnreachable, match="No answer from 127"):
        read(server)
    assert len(server.requests) == githubapi.MOST_RETRIES + 1


@pytest.mark.parametrize("fault", [None, (500, {}, said("oops")), (502, {}, said("Bad gateway"))])
def test_writes_are_not_repeated(server: Server, fault: Any) -> None:
    server.answer(fault, (201, {}, {}))
    with pytest.raises(GitHubUnreachable):
        write(server)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [403, 429])
def test_a_limit_that_ends_soon_is_waited_for_by_writes_too(server: Server, status: int) -> None:
    secondary = said("You have exceeded a secondary rate limit.")
    server.answer((status, {"Retry-After": "1"}, secondary), (201, {}, {}))
    started = time.monotonic()
    write(server)
    assert 1 <= time.monotonic() - started < 5 and len(server.requests) == 2
    reset = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(time.time()))}
    server.answer((status, reset, said("API rate limit exceeded for user")), (200, {}, USER))
    assert read(server) == "octocat"


def test_one_that_ends_late_is_told_with_its_time(server: Server) -> None:
    at = int(time.time()) // 60 * 60 + 1830
    reset = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(at)}
    server.answer((403, reset, said("API rate limit exceeded for installation.")))
    with pytest.raises(GitHubRateLimited, match=rf"at {time.strftime('%H:%M', time.gmtime(at))}"):
        read(server)
    assert len(server.requests) == 1
    late = int(time.time()) + 3 * 86_400
    server.answer((403, {**reset, "X-RateLimit-Reset": str(late)}, said("API rate limit exceeded for installation.")))
    with pytest.raises(GitHubRateLimited, match=rf"on {time.strftime('%F', time.gmtime(late))}"):
        read(server)
    server.answer((403, {"Retry-After": "3600"}, said("You have exceeded a secondary rate limit.")))
    with pytest.raises(GitHubRateLimited, match="in 3600 seconds"):
        write(server)


def test_one_that_does_not_end_is_not_waited_for_for_ever(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(githubfailures, "NO_HINT_SECONDS", 0.01)
    server.answer(*[(403, {}, said("You have exceeded a secondary rate limit. Please wait."))] * 20)
    with pytest.raises(GitHubRateLimited):
        write(server)
    assert len(server.requests) == githubapi.MOST_WAITS + 1


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (401, "Bad credentials", GitHubNotAuthorized),
        (403, "Resource not accessible by integration", GitHubNotAuthorized),
        (403, "GitHub Actions is not permitted to create or approve pull requests.", GitHubNotAuthorized),
        (403, "Repository was archived so is read-only.", RepositoryReadOnly),
        (307, "Temporary Redirect", CommitConflict),
        (404, "Not Found", GitHubNotFound),
        (451, "Repository access blocked", GitHubNotFound),
        (409, "is at 1234 but expected 5678", CommitConflict),
        (409, "Git Repository is empty.", GitHubRefused),
        (422, "Reference already exists", CommitConflict),
        (422, "Update is not a fast forward", CommitConflict),
        (422, "Repository rule violations found: Cannot create ref due to creations being restricted", BranchProtected),
        (403, "Protected branch update failed", BranchProtected),
        (422, "Invalid tree info", GitHubRefused),
        (418, "I'm a teapot", GitHubRefused),
    ],
)
def test_each_answer_has_its_class(server: Server, status: int, message: str, expected: type[Exception]) -> None:
    server.answer((status, {}, said(message)))
    with pytest.raises(expected) as caught:
        write(server)
    assert message.rstrip(".") in str(caught.value) and "writing a comment" in str(caught.value)
    assert len(server.requests) == 1


def test_the_reasons_beside_a_message_are_told(server: Server) -> None:
    errors = [{"resource": "PullRequest", "code": "custom", "message": "A pull request already exists for acme:x."}]
    server.answer((422, {}, said("Validation Failed", errors=errors)))
    with pytest.raises(CommitConflict, match="Validation Failed: A pull request already exists for acme:x"):
        write(server)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("pull_requests=write", "pull-requests: write"),
        ("contents=write,workflows=write; administration=write", "contents: write, workflows: write"),
        ("<script>=write", None),
        ("", None),
    ],
)
def test_the_missing_right_is_named(server: Server, header: str, expected: str | None) -> None:
    assert accepted_rights({"x-accepted-github-permissions": header}) == expected
    server.answer((403, {"X-Accepted-GitHub-Permissions": header}, said("Resource not accessible by integration")))
    with pytest.raises(GitHubNotAuthorized, match=f"the right `{expected or 'issues: write'}`"):
        write(server, needs="issues: write")


def test_a_write_whose_reply_was_lost_is_looked_for() -> None:
    def lost() -> str:
        raise GitHubUnreachable("lost")

    assert found_or(lambda: "there", lost) == "there"
    with pytest.raises(GitHubUnreachable):
        found_or(lambda: None, lost)
    assert found_or(lambda: pytest.fail("asked"), lambda: "written") == "written"


def test_the_account_of_a_person_and_of_an_app(server: Server) -> None:
    server.answer((200, {}, USER))
    assert connect(TOKEN, api_url=server.url).me() == "octocat"
    server.answer(
        (403, {}, said("Resource not accessible by integration")),
        (200, {}, {"data": {"viewer": {"login": "github-actions[bot]"}}}),
    )
    assert connect(TOKEN, api_url=server.url).me() == "github-actions[bot]"
    assert server.requests[-1] == ("POST", "/graphql")
    server.answer(
        (403, {}, said("Resource not accessible by integration")),
        (200, {}, {"data": None, "errors": [{"type": "FORBIDDEN", "message": "Resource not accessible"}]}),
    )
    assert connect(TOKEN, api_url=server.url).me() == "github-actions[bot]"
    with pytest.raises(GitHubNotAuthorized):
        connect(None, api_url=server.url).me()


def test_a_reply_that_is_not_githubs_is_told(server: Server) -> None:
    server.answer((200, {}, {"url": "https://evil.example/x"}), *[(200, {}, ["not", "an", "object"])] * 3)
    client = connect(TOKEN, api_url=server.url)
    with pytest.raises(PtebotError), asking("reading", client):
        client.gh.requester.requestJsonAndCheck("GET", "https://evil.example/x")
    server.answer((301, {"Location": "https://evil.example/x"}, said("Moved Permanently")))
    with pytest.raises(GitHubRefused, match="redirected"):
        read(server)


def test_a_page_where_json_belongs_is_told(server: Server) -> None:
    server.answer((200, {"Content-Type": "text/html"}, Raw(b"<html>Sign in to the proxy</html>")))
    client = connect(TOKEN, api_url=server.url)
    with pytest.raises(GitHubRefused, match="not one of GitHub's"), asking("reading", client):
        client.call("GET", "/user")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("github-actions[bot]", "github-actions", True),
        ("Octocat", "octocat", True),
        ("octocat", "octodog", False),
        (None, None, False),
        ("", "octocat", False),
    ],
)
def test_same_account(one: str | None, other: str | None, same: bool) -> None:
    assert same_account(one, other) is same


def test_a_server_that_is_away(server: Server) -> None:
    client = connect(TOKEN, api_url="http://127.0.0.1:9")
    with pytest.raises(GitHubUnreachable, match=r"127\.0\.0\.1:9"), asking("reading", client):
        client.gh.get_user("x")


def test_no_token_in_any_text(server: Server) -> None:
    echo = (403, {}, said(f"Not with {TOKEN}, nor https://x:{TOKEN}@github.com/?token={TOKEN}"))
    for reply in (echo, (500, {}, said(f"oops {TOKEN}"))):
        server.answer(reply)
        with pytest.raises(PtebotError) as caught:
            write(server)
        assert TOKEN not in f"{caught.value} {caught.value!r}"
        assert caught.value.__cause__ is None and caught.value.__suppress_context__
    assert TOKEN not in repr(connect(TOKEN, api_url=server.url))


def test_defects_of_ours_are_not_dressed_up() -> None:
    with pytest.raises(ZeroDivisionError), asking("trying", connect(None, api_url="http://127.0.0.1:9")):
        raise ZeroDivisionError
