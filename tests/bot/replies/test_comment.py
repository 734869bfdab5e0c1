"""The one comment: made once, edited, found again, never longer than GitHub takes."""

from __future__ import annotations

import re

import pytest
from markdown_it import MarkdownIt

from bot.errors import GitHubNotAuthorized, GitHubUnreachable
from bot.githubapi import connect
from bot.replies.comment import LIMIT, Comment, fit, reply_marker
from bot.replies.shapes import web_address
from tests.bot.replies.conftest import Place

BOT = "github-actions[bot]"


def _comment(place: Place) -> Comment:
    marker = reply_marker(place.command)
    return Comment(place.client, place.repo.full_name, place.issue, marker, after=place.command)


def test_it_is_made_once_and_edited(place: Place) -> None:
    comment = _comment(place)
    for body in ("one", "two", "two", "three"):
        comment.show(body)
    assert place.bodies() == [f"{reply_marker(place.command)}\nthree"]
    assert len(place.github.api_requests("POST", "/comments$")) == 1
    assert len(place.github.api_requests("PATCH", "/comments/")) == 2, "the same words are not sent again"


def test_another_process_finds_it_again(place: Place) -> None:
    _comment(place).show("one")
    _comment(place).show("two")
    assert place.bodies() == [f"{reply_marker(place.command)}\ntwo"]


def test_a_copied_marker_is_nobody_s_comment(place: Place) -> None:
    place.repo.add_comment(place.issue, "mona", f"{reply_marker(place.command)}\nI am the bot")
    _comment(place).show("one")
    assert [body.split("\n", 1)[1] for body in place.bodies()] == ["I am the bot", "one"]


def test_the_reply_to_another_command_is_another_comment(place: Place) -> None:
    _comment(place).show("first")
    place.command = place.repo.add_comment(place.issue, "mona", "/ptebot status")
    _comment(place).show("second")
    assert [one.body.split("\n", 1)[-1] for one in place.repo.comments(place.issue) if one.author.login == BOT] == [
        "first",
        "second",
    ]


def test_it_is_found_among_hundreds(place: Place) -> None:
    for number in range(150):
        place.repo.add_comment(place.issue, "mona", f"chat {number}")
    _comment(place).show("one")
    other = _comment(place)
    other.after = None
    other.show("two")
    assert sum("two" in body for body in place.bodies()) == 1 and not any(
        body.endswith("one") for body in place.bodies()
    )


@pytest.mark.parametrize("fault", ["drop", "drop_before", 502, 503])
def test_a_lost_reply_doubles_nothing(fault: object, place: Place) -> None:
    comment = _comment(place)
    place.github.fail("/comments$", fault, method="POST")  # type: ignore[arg-type]
    try:
        comment.show("one")
    except GitHubUnreachable:
        assert fault != "drop", "what was written is found"
        comment.show("one")
    place.github.fail("/comments/", fault, method="PATCH")  # type: ignore[arg-type]
    comment.show("two")
    assert place.bodies() == [f"{reply_marker(place.command)}\ntwo"]


def test_a_reply_and_the_look_for_it_lost_together_double_nothing(place: Place) -> None:
    comment = _comment(place)
    place.github.fail("/comments$", "drop", method="POST")
    place.github.fail("/comments", 500, method="GET", skip=2, times=20)
    with pytest.raises(GitHubUnreachable):
        comment.show("one")
    place.github.clear()
    comment.show("two")
    assert place.bodies() == [f"{reply_marker(place.command)}\ntwo"]


def test_where_it_was_deleted_there_is_a_new_one(place: Place) -> None:
    comment = _comment(place)
    comment.show("one")
    (made,) = [one for one in place.repo.comments(place.issue) if one.author.login == BOT]
    del place.repo.repo.comments[made.id]
    comment.show("two")
    assert place.bodies() == [f"{reply_marker(place.command)}\ntwo"]


def test_a_deleted_command_still_gets_its_reply(place: Place) -> None:
    del place.repo.repo.comments[place.command]
    _comment(place).show("one")
    assert len(place.bodies()) == 1


def test_a_token_without_the_right_names_it(place: Place) -> None:
    token = place.github.installation_token(place.repo, {"contents": "read", "issues": "read"})
    comment = _comment(place)
    comment.client = connect(token, api_url=place.github.api_url)
    with pytest.raises(GitHubNotAuthorized, match="issues: write"):
        comment.show("one")


def test_a_long_body_is_cut_at_a_line(place: Place) -> None:
    _comment(place).show("\n".join(f"| row {number} | {'x' * 80} |" for number in range(2000)))
    (body,) = place.bodies()
    assert LIMIT - 500 < len(body) <= LIMIT
    assert body.endswith("*The rest is left out here; the summary of the job has it.*\n")
    assert all(re.fullmatch(r"\| row \d+ \| x{80} \|", line) for line in body.splitlines()[1:-2] if line)


@pytest.mark.parametrize(
    "body",
    [
        "<details>\n<summary>x</summary>\n\n```text\n" + "line\n" * 500,
        "````\n```\n" + "line\n" * 500,
        "~~~\n" + "line\n" * 500,
        "```a\nb\n```\n" + "line\n" * 500,
        "x" * 3000,
    ],
)
def test_what_is_cut_leaves_nothing_open(body: str) -> None:
    short = fit(body, 1000)
    assert len(short) <= 1000
    rendered = MarkdownIt("gfm-like", {"linkify": False, "html": True}).render(short)
    assert "<em>The rest is left out here" in rendered
    assert rendered.count("<details>") == rendered.count("</details>")


@pytest.mark.parametrize(
    ("url", "fine"),
    [
        ("https://github.com/acme/tiny/actions/runs/1?pr=2", True),
        ("http://127.0.0.1:5000/acme/tiny/discussions/1", True),
        ("javascript:alert(1)", False),
        ("https://user:pw@evil.example/", False),
        ("https://evil.example/)](x", False),
        ("https://evil.example/ x", False),
        ("https://evil.example/\n", False),
        ("https:///x", False),
        ("https://[", False),
        ("https://evil.example/" + "x" * 600, False),
        ("", False),
        (None, False),
    ],
)
def test_addresses(url: str | None, fine: bool) -> None:
    assert web_address(url) == (url if fine else None)
