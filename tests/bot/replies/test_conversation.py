"""What a request hears from us, on a local GitHub that stores it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from bot.errors import GitHubUnreachable
from bot.githubapi import Client
from bot.replies.comment import reply_marker
from bot.replies.conversation import EVERY_SECONDS, Conversation, help_text
from bot.triggers import comments
from bot.triggers.request import Origin, Request
from tests.bot.replies.conftest import Place

BOT = "github-actions[bot]"
URL = "https://github.com/acme/tiny/actions/runs/1"
Limited = Callable[..., Client]


class Clock:
    """Seconds that pass when they are told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Iterator[Clock]:
    yield Clock()


def _talk(
    place: Place, warnings: list[str], clock: Clock, origin: Origin | None = None, client: Client | None = None
) -> Conversation:
    return Conversation(
        client or place.client, origin or place.origin(), run_url=URL, warn=warnings.append, clock=clock
    )


def test_a_command_from_eyes_to_rocket(place: Place, warnings: list[str], clock: Clock) -> None:
    place.repo.set_role("mona", "write")
    talk = _talk(place, warnings, clock)
    assert talk.allowed()
    talk.start("Exporting acme/tiny.")
    assert place.reactions() == {(BOT, "eyes")}
    assert place.bodies() == [f"{reply_marker(place.command)}\nExporting acme/tiny.\n\n[Log]({URL})\n"]
    for second in range(0, 61, 5):
        clock.now = second
        talk.progress(f"second {second}")
    assert [place.bodies()[0].splitlines()[1]] == ["second 60"]
    assert len(place.github.api_requests("PATCH", "/comments/")) == 60 // int(EVERY_SECONDS)
    talk.finish(True, "**4 files**\n\n| a |\n| --- |\n| b |\n", title="4 files", url="https://hub.example/pr")
    assert place.reactions() == {(BOT, "rocket")}
    assert place.bodies() == [f"{reply_marker(place.command)}\n**4 files**\n\n| a |\n| --- |\n| b |\n\n[Log]({URL})\n"]
    clock.now = 1000
    talk.progress("late")
    assert "late" not in place.bodies()[0], "nothing is said after the end"
    assert warnings == [] and place.repo.repo.check_runs == {}


def test_an_end_that_is_none_to_be_glad_of(place: Place, warnings: list[str], clock: Clock) -> None:
    talk = _talk(place, warnings, clock)
    talk.start()
    talk.finish(False, "No file passed.")
    assert place.reactions() == {(BOT, "confused")}


@pytest.mark.parametrize("role", ["none", "read", "triage"])
def test_who_may_not_write_gets_a_reaction_and_nothing_else(
    role: str, place: Place, warnings: list[str], clock: Clock
) -> None:
    place.repo.set_role("mona", role)  # type: ignore[arg-type]
    talk = _talk(place, warnings, clock)
    assert not talk.allowed()
    talk.refuse("Only people who may write to this repository give commands.")
    assert place.reactions() == {(BOT, "confused")} and place.bodies() == []


def test_where_it_cannot_be_told_nothing_runs(place: Place, warnings: list[str], clock: Clock) -> None:
    place.repo.set_role("mona", "admin")
    place.github.fail("/permission", 503, times=-1)
    with pytest.raises(GitHubUnreachable):
        _talk(place, warnings, clock).allowed()
    assert not Conversation(None, place.origin()).allowed(), "without a token nobody may"


def test_other_events_need_no_permission(place: Place, warnings: list[str], clock: Clock) -> None:
    assert _talk(place, warnings, clock, place.pushed()).allowed()
    assert Conversation(None, place.pushed()).allowed()
    assert place.github.requests == []


def test_a_refusal_of_somebody_who_may(place: Place, warnings: list[str], clock: Clock) -> None:
    place.repo.set_role("mona", "write")
    talk = _talk(place, warnings, clock)
    assert talk.allowed()
    talk.refuse("the configuration says `enabled: false`, @octocat")
    (body,) = place.bodies()
    assert "Nothing was done: the configuration says" in body and "@" not in body
    assert place.reactions() == {(BOT, "confused")}


def test_help(place: Place, warnings: list[str], clock: Clock) -> None:
    talk = _talk(place, warnings, clock)
    talk.help(Request(verb="help", origin=place.origin(), problem="There is no command 'expert'."))
    (body,) = place.bodies()
    assert "There is no command 'expert'. Nothing was done." in body and comments.GRAMMAR in body
    assert place.reactions() == {(BOT, "confused")}
    talk = _talk(place, warnings, clock)
    talk.help(Request(verb="help", origin=place.origin()))
    (body,) = place.bodies()
    assert "Nothing was done" not in body and comments.EXPLAINED in body
    assert (BOT, "rocket") in place.reactions()


def test_a_push_has_a_check_on_its_commit(place: Place, warnings: list[str], clock: Clock) -> None:
    talk = _talk(place, warnings, clock, place.pushed())
    talk.start("Exporting")
    talk.progress("quantize")
    talk.finish(True, "| table |", title="4 files")
    (run,) = place.repo.repo.check_runs.values()
    assert (run.status, run.conclusion, run.output["title"]) == ("completed", "success", "4 files")
    assert run.output["summary"] == "| table |" and place.bodies() == [] and warnings == []


@pytest.mark.parametrize("event", ["schedule", "workflow_dispatch", "repository_dispatch"])
def test_an_event_that_is_about_no_commit_leaves_none_a_check(
    event: str, place: Place, warnings: list[str], clock: Clock
) -> None:
    talk = _talk(place, warnings, clock, replace(place.pushed(), event=event))
    talk.start("Exporting")
    talk.finish(True, "| table |", title="4 files")
    assert place.repo.repo.check_runs == {} and warnings == []


def test_a_cancelled_job_says_so(place: Place, warnings: list[str], clock: Clock) -> None:
    talk = _talk(place, warnings, clock, place.pushed())
    talk.start("Exporting")
    talk.finish(False, "", title="Cancelled", conclusion="cancelled")
    assert [one.conclusion for one in place.repo.repo.check_runs.values()] == ["cancelled"]


def test_a_request_from_a_fork_gets_no_words(place: Place, warnings: list[str], clock: Clock) -> None:
    origin = place.pushed(event="pull_request", number=place.issue, is_pull_request=True, forked=True)
    talk = _talk(place, warnings, clock, origin)
    talk.start("x")
    talk.finish(True, "y")
    talk.link_back(model="acme/tiny", operation="created", url="https://hub.example/pr")
    assert place.github.requests == [] and warnings == []


def test_what_cannot_be_said_is_told_once_and_ends_nothing(
    place: Place, warnings: list[str], clock: Clock, limited: Limited
) -> None:
    talk = _talk(place, warnings, clock, client=limited(contents="read"))
    talk.start("Exporting")
    for second in range(0, 200, 50):
        clock.now = second
        talk.progress(f"second {second}")
    talk.finish(True, "done")
    assert len(warnings) == 2, warnings
    assert len(place.github.api_requests("POST", "/comments$")) == 2, "at the start, and once more at the end"
    assert any("could not react" in one and "`issues: write`" in one for one in warnings)
    assert any("could not reply" in one for one in warnings)
    assert place.bodies() == [] and place.reactions() == set()


def test_nothing_is_said_without_a_token(place: Place, warnings: list[str], clock: Clock) -> None:
    for origin in (place.origin(), place.pushed()):
        talk = Conversation(None, origin, warn=warnings.append, clock=clock)
        talk.start("x")
        talk.progress("y")
        talk.finish(True, "z")
        talk.refuse("w")
        talk.link_back(model="m", operation="created", url="https://hub.example/pr")
    assert place.github.requests == [] and warnings == []


@pytest.mark.parametrize("event", ["issue_comment", "push"])
def test_a_repository_that_was_renamed_meanwhile(event: str, place: Place, warnings: list[str], clock: Clock) -> None:
    origin = place.origin() if event == "issue_comment" else place.pushed()
    talk = _talk(place, warnings, clock, origin)
    talk.start("one")
    place.repo.rename(f"renamed-{place.command}")
    talk.finish(True, "two")
    assert warnings == []
    if event == "push":
        assert [one.conclusion for one in place.repo.repo.check_runs.values()] == ["success"]
    else:
        assert len(place.bodies()) == 1 and "two" in place.bodies()[0]
        assert place.reactions() == {(BOT, "rocket")}


@pytest.mark.parametrize("fault", ["drop", "drop_before", 500])
@pytest.mark.parametrize("at", range(9))
def test_a_fault_at_any_request_leaves_one_comment(
    at: int, fault: object, place: Place, warnings: list[str], clock: Clock
) -> None:
    """Of a whole conversation; what was lost is found again, or told."""
    place.repo.set_role("mona", "write")
    place.github.fail("^/", fault, skip=at)  # type: ignore[arg-type]
    talk = _talk(place, warnings, clock)
    assert talk.allowed()
    talk.start("Exporting")
    clock.now = 100
    talk.progress("half")
    talk.finish(True, "**done**")
    (body,) = place.bodies()
    assert "**done**" in body
    assert (BOT, "rocket") in place.reactions() or any("react" in one for one in warnings)


def test_two_runs_of_one_command_leave_one_comment(place: Place, warnings: list[str], clock: Clock) -> None:
    first, second = _talk(place, warnings, clock), _talk(place, warnings, clock)
    first.start("a")
    second.start("b")
    first.finish(True, "c")
    second.finish(True, "d")
    assert place.bodies() == [f"{reply_marker(place.command)}\nd\n\n[Log]({URL})\n"]
    assert place.reactions() == {(BOT, "rocket")}


def test_nothing_that_is_shown_reaches_further(place: Place, warnings: list[str], clock: Clock) -> None:
    talk = _talk(place, warnings, clock)
    hostile = "@octocat fixes #1 acme/tiny#2 GH-3 [x](javascript:1) <img src=x> deadbeefdeadbeef\n::error::x"
    talk.start(hostile)
    shown = place.bodies()[0]
    assert not re.search(r"@\w|#\d(?!\d*;)|<img|\]\(javascript|GH-\d|\n::", shown), shown
    assert "`deadbeefdeadbeef`" in shown
    talk.refuse(hostile)
    assert "Nothing was done" not in place.bodies()[0], "who was not asked for may not be given words either"
    wrong = help_text(hostile)
    assert not re.search(r"@\w|#\d(?!\d*;)|<img|\]\(javascript|GH-\d|\n::", wrong)


def test_a_page_that_is_none_is_not_linked(place: Place, warnings: list[str], clock: Clock) -> None:
    talk = replace(_talk(place, warnings, clock), run_url="javascript:alert(1)")
    talk.start("x")
    assert "javascript" not in place.bodies()[0]
