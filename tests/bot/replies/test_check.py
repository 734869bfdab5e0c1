"""One check run or status for a commit, updated and not doubled."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bot.errors import GitHubNotAuthorized, GitHubUnreachable
from bot.githubapi import Client, connect
from bot.replies.check import Check, Conclusion
from tests.bot.replies.conftest import Place

URL = "https://github.com/acme/tiny/actions/runs/1"
Limited = Callable[..., Client]


def _check(place: Place, client: Client | None = None) -> Check:
    return Check(client or place.client, place.repo.full_name, place.repo.head() or "", URL)


def _statuses(place: Place) -> list[tuple[str, str, str, str | None]]:
    return [(one.context, one.state, one.description or "", one.target_url) for one in place.repo.repo.statuses]


def test_a_check_run_from_start_to_end(place: Place) -> None:
    check = _check(place)
    check.start("The export is about to start.")
    (run,) = place.repo.repo.check_runs.values()
    assert (run.name, run.status, run.conclusion, run.details_url) == ("ptebot", "in_progress", None, URL)
    check.finish(
        "success", "4 of 4 files", "| a | b |\n| --- | --- |\n", url="https://hub.example/acme/tiny/discussions/1"
    )
    (run,) = place.repo.repo.check_runs.values()
    assert (run.status, run.conclusion) == ("completed", "success")
    assert run.output["title"] == "4 of 4 files" and run.output["summary"].startswith("| a | b |")
    assert run.details_url == "https://hub.example/acme/tiny/discussions/1"
    assert place.repo.repo.statuses == []


def test_another_run_updates_the_same_check(place: Place) -> None:
    _check(place).finish("failure", "No file passed", "x")
    _check(place).start("Again")
    _check(place).finish("success", "All passed", "y")
    (run,) = place.repo.repo.check_runs.values()
    assert (run.conclusion, run.output["title"]) == ("success", "All passed")


def test_a_job_of_the_same_name_is_not_ours(place: Place) -> None:
    """Actions makes a check run for each job, by the same app."""
    body = {"name": "ptebot", "head_sha": place.repo.head(), "status": "in_progress", "external_id": "a-job"}
    place.client.call("POST", f"/repos/{place.repo.full_name}/check-runs", body=body)
    _check(place).finish("success", "done", "x")
    ends = {one.external_id: one.status for one in place.repo.repo.check_runs.values()}
    assert ends == {"a-job": "in_progress", "ptebot": "completed"}


@pytest.mark.parametrize("fault", ["drop", "drop_before", 502])
def test_a_lost_reply_doubles_no_check_run(fault: object, place: Place) -> None:
    check = _check(place)
    place.github.fail("/check-runs$", fault, method="POST")  # type: ignore[arg-type]
    try:
        check.start("one")
    except GitHubUnreachable:
        assert fault != "drop", "what was written is found"
        check.start("one")
    place.github.fail("/check-runs/", fault, method="PATCH")  # type: ignore[arg-type]
    check.finish("neutral", "two", "x")
    assert [one.conclusion for one in place.repo.repo.check_runs.values()] == ["neutral"]


@pytest.mark.parametrize(
    ("conclusion", "state"),
    [("success", "success"), ("failure", "failure"), ("neutral", "success"), ("cancelled", "error")],
)
def test_a_status_where_no_check_run_may_be_written(
    conclusion: Conclusion, state: str, place: Place, limited: Limited
) -> None:
    check = _check(place, limited(statuses="write"))
    check.start("Working")
    check.finish(conclusion, "How it ended " + "x" * 300, "| table |", url="https://hub.example/pr")
    first, last = _statuses(place)
    assert first == ("ptebot", "pending", "Working", URL)
    assert last[:2] == ("ptebot", state) and last[3] == "https://hub.example/pr" and len(last[2]) == 140
    assert len(place.github.api_requests("POST", "check-runs")) == 1, "what was refused once is not asked again"
    assert place.repo.repo.check_runs == {}


def test_a_person_s_token_writes_a_status(place: Place) -> None:
    client = connect(place.github.create_user("acme"), api_url=place.github.api_url)
    _check(place, client).finish("success", "done", "x")
    assert [one[:2] for one in _statuses(place)] == [("ptebot", "success")]


@pytest.mark.parametrize("fault", ["drop", "drop_before"])
def test_a_lost_reply_doubles_no_status(fault: object, place: Place, limited: Limited) -> None:
    check = _check(place, limited(statuses="write"))
    place.github.fail("/statuses/", fault, method="POST")  # type: ignore[arg-type]
    try:
        check.start("one")
    except GitHubUnreachable:
        assert fault != "drop", "what was written is found"
        check.start("one")
    assert len(_statuses(place)) == 1


def test_a_token_with_neither_right_names_both(place: Place, limited: Limited) -> None:
    with pytest.raises(GitHubNotAuthorized) as failure:
        _check(place, limited(contents="read")).start("x")
    assert "checks: write" in failure.value.advice and "statuses: write" in failure.value.advice


def test_a_summary_that_is_too_large_is_cut(place: Place) -> None:
    _check(place).finish("success", "t" * 1000, "line\n" * 50_000)
    (run,) = place.repo.repo.check_runs.values()
    assert len(run.output["summary"]) <= 65_535 and len(run.output["title"]) == 200


def test_a_summary_is_cut_by_bytes(place: Place) -> None:
    _check(place).finish("success", "t", "✅ ü\n" * 30_000)
    (run,) = place.repo.repo.check_runs.values()
    assert 60_000 < len(run.output["summary"].encode()) <= 65_535


def test_an_ended_check_run_that_is_not_begun_again(place: Place) -> None:
    _check(place).finish("failure", "No file passed", "x")
    place.github.fail("/check-runs/", 422, method="PATCH", body={"message": "Validation Failed"})
    check = _check(place)
    check.start("Again")
    check.finish("success", "All passed", "y")
    assert [one.conclusion for one in place.repo.repo.check_runs.values()] == ["failure", "success"]


def test_addresses_that_are_none_are_left_out(place: Place) -> None:
    check = Check(place.client, place.repo.full_name, place.repo.head() or "", "javascript:alert(1)")
    check.finish("success", "", "", url="https://user:pw@evil.example")
    (run,) = place.repo.repo.check_runs.values()
    assert not run.details_url and run.output["title"] == "ptebot"
