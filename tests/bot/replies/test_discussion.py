"""The reply in a discussion of the real local Hub: written once, edited as a job goes on, and safe to show."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from huggingface_hub import DiscussionComment
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.errors import HubRefused, HubUnreachable, NotAuthorized, RepoNotFound
from bot.hubapi import connect
from bot.replies import discussion, discussion_text
from bot.replies.discussion import Discussion, refusal_marker, reply_marker
from bot.server.records import Asked, Asker, Failure, JobRecord, State
from bot.server.replier import Replier
from bot.server.settings import Settings
from bot.server.store import Store, open_engine
from exporter import report as reports
from tests.bot.hubs import Repository
from tests.bot.reports import cell, failed, report

COMMENT = "6398872887bfcfb93a306f18"
MARKER = f"<!-- ptebot:reply comment={COMMENT} -->"


def job(state: State = "queued", repo_id: str = "acme/tiny", num: int | None = 1, **fields: Any) -> JobRecord:
    asked = Asked(repo_id=repo_id, sha="ab" * 20, options={"backends": ["xnnpack"]}, again=COMMENT)
    asker = Asker(trigger="comment", name="acme", discussion=num, comment_id=COMMENT if num else None)
    return JobRecord(id=asked.id, asked=asked, asker=asker, state=state, priority=1, **fields)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Place:
    def __init__(self, repo: Repository) -> None:
        self.repo = repo
        self.num = repo.owner.create_discussion(repo.repo_id, "Please", description="/ptebot export").num
        self.clock = Clock()
        self.api = connect(repo.hub.endpoint, repo.bot_token)

    def here(self) -> Discussion:
        return Discussion(self.api, self.repo.repo_id, self.num, clock=self.clock)

    def say(self, state: State, parts: dict[str, str] | None = None, force: bool = False, **fields: Any) -> str | None:
        return self.here().say(job(state, self.repo.repo_id, self.num, **fields), parts or {}, force=force)

    def comments(self, author: str = "ptebot-user") -> list[DiscussionComment]:
        found = self.repo.owner.get_discussion_details(self.repo.repo_id, self.num).events
        return [one for one in found if isinstance(one, DiscussionComment) and one.author == author]

    def writes(self) -> int:
        return sum(one.method == "POST" and "/comment" in one.path for one in self.repo.hub.traffic)


@pytest.fixture
def place(repo: Repository) -> Place:
    forget()
    return Place(repo)


def forget() -> None:
    """As a process that has just started."""
    discussion._MEMORY._shown.clear()


def test_one_comment_from_the_queue_to_the_end(place: Place) -> None:
    first = place.say("queued")
    place.say("running", stage="export xnnpack", fraction=0.25)
    forget()
    parts = {"": reports.dumps(report())}
    last = place.say("passed", parts, operation="created", pr_url="http://x.example/a/b", pr_num=7)
    (reply,) = place.comments()
    assert first == last == reply.id
    assert reply.content.startswith(f"{MARKER}\n**✅ Every file is made and proven**")
    assert "**A pull request was opened:** [pull request 7](http://x.example/a/b)" in reply.content
    assert "| `xnnpack` | `8da4w` |" in reply.content
    assert reply._event["data"]["numEdits"] == 2


def test_progress_is_shown_now_and_then_and_states_at_once(place: Place) -> None:
    place.say("queued")
    place.say("running", stage="fetch")
    before = place.writes()
    for number in range(10):
        place.clock.now += 1
        place.say("running", stage=f"export {number}")
    assert place.writes() == before
    place.clock.now += discussion.EVERY_SECONDS
    place.say("running", stage="export late")
    assert place.writes() == before + 1
    place.say("running", stage="export forced", force=True)
    place.say("running", {"xnnpack": reports.dumps(report())}, stage="a backend ended")
    place.say("failed")
    assert place.writes() == before + 4
    place.clock.now += 100
    place.say("failed")
    assert place.writes() == before + 4, "nothing new to say"


def test_a_copied_marker_of_others_is_not_ours(place: Place) -> None:
    place.repo.owner.comment_discussion(place.repo.repo_id, place.num, f"{MARKER}\nAll is well, run this: ...")
    ours = place.say("queued")
    assert place.comments()[0].id == ours
    assert "All is well" in place.comments("acme")[1].content


def test_a_quoted_marker_of_ours_is_another_comment(place: Place) -> None:
    place.api.comment_discussion(place.repo.repo_id, place.num, f"A text\n{MARKER}")
    place.say("queued")
    assert len(place.comments()) == 2


@pytest.mark.parametrize("action", ["drop", "drop_before", 500])
def test_a_lost_answer_writes_no_second_comment(place: Place, action: Any) -> None:
    place.repo.hub.fail("/comment$", action, method="POST", times=1)
    try:
        place.say("queued")
    except HubUnreachable:
        assert action != "drop", "it was there to be found"
        place.say("queued")
    assert len(place.comments()) == 1


def test_an_edit_that_failed_is_made_later(place: Place) -> None:
    place.say("queued")
    place.repo.hub.fail("/edit$", 503, method="POST", times=1)
    with pytest.raises(HubUnreachable):
        place.say("passed")
    assert "Waiting" in place.comments()[0].content
    place.say("passed")
    assert "Every file" in place.comments()[0].content


def test_who_hides_the_reply_hears_no_more(place: Place) -> None:
    reply_id = place.say("queued")
    assert reply_id is not None
    place.repo.owner.hide_discussion_comment(place.repo.repo_id, place.num, reply_id)
    assert place.say("running", stage="fetch") == reply_id
    forget()
    assert place.say("passed", reply_id=reply_id) == reply_id
    assert len(place.comments()) == 1


def test_a_job_without_a_comment_says_nothing(place: Place) -> None:
    assert place.here().say(job(num=None), {}) is None
    assert place.comments() == []


def test_without_a_token_or_a_discussion(place: Place) -> None:
    with pytest.raises(NotAuthorized):
        Discussion(connect(place.repo.hub.endpoint, None), place.repo.repo_id, place.num).say(
            job("queued", place.repo.repo_id, place.num), {}
        )
    with pytest.raises(RepoNotFound):
        Discussion(place.api, place.repo.repo_id, 999).say(job("queued", place.repo.repo_id, 999), {})


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b'{"events": {}}', b"\xff"])
def test_a_hub_that_answers_something_else(place: Place, monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    class Session:
        def get(self, url: str, **_: Any) -> httpx2.Response:
            return httpx2.Response(200, content=answer, request=httpx2.Request("GET", url))

    monkeypatch.setattr(discussion, "get_session", Session)
    with pytest.raises(HubRefused):
        place.say("queued")
    assert place.comments() == []


def test_it_fits_whatever_there_is_to_say(place: Place) -> None:
    cells = [failed(f"backend{number}", "8da4w", reason="`x` " * 2_000) for number in range(300)]
    place.say("failed", {"": reports.dumps(report(cells))}, reason="r" * 100_000)
    (reply,) = place.comments()
    assert len(reply.content) < discussion.LIMIT and "280 more" in reply.content


def test_what_is_longer_than_the_hub_takes_is_cut(place: Place) -> None:
    place.here().tell(MARKER, "a line of a long answer\n" * 10_000)
    (reply,) = place.comments()
    assert len(reply.content) <= discussion.LIMIT and "The rest is left out here" in reply.content


def test_an_older_report_that_cannot_be_read_is_left_out() -> None:
    told = discussion_text.job(job("passed"), {"": '{"schema_version": 0}', "xnnpack": "nonsense"})
    assert "Every file" in told and "|" not in told


def test_how_each_end_is_told() -> None:
    failure = Failure(name="HubRefused", exit_code=35, title="The Hub refused", what="It said no.", advice="Ask again.")
    told = discussion_text.job(job("error", failure=failure), {})
    assert "The Hub refused. It said no." in told and "**What to do:** Ask again." in told
    assert "newer commit" in discussion_text.job(job("superseded", reason="newer commit 1234"), {})
    partly = discussion_text.job(job("partial"), {"": reports.dumps(report([cell(), failed()]))})
    assert "⚠️" in partly and "the compiler gave up" in partly and "at lower" in partly
    running = discussion_text.job(
        job("running", stage="lower xnnpack", fraction=0.5, attempt=2), {"portable": reports.dumps(report([cell()]))}
    )
    assert "lower xnnpack (50%)" in running and "Attempt 2" in running and "1 of 1 file proven" in running


HOSTILE = [
    "<script>alert(1)</script>", "@everyone", "[x](http://evil)", "\n# Title", "| a | b |", "-->", "`", "https://x.y",
]  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(HOSTILE) | st.text(max_size=20), min_size=8, max_size=8))
def test_nothing_from_outside_is_markup(words: list[str]) -> None:
    failure = Failure(name=words[0], exit_code=1, title=words[1], what=words[2], advice=words[3])
    record = replace(
        job(
            "error",
            failure=failure,
            reason=words[4],
            stage=words[5],
            pr_url="javascript:" + words[6],
            operation=words[7],
        ),
        asked=Asked(repo_id="acme/" + words[0], sha="ab" * 20, options={"backends": words, words[1]: words[2]}),
    )
    bad = failed(words[0], words[1], reason=words[2], failed_stage=words[3])
    for state in ("running", "error"):
        told = discussion_text.job(
            replace(record, state=state), {"": reports.dumps(report([bad])), words[4]: reports.dumps(report([bad]))}  # type: ignore[arg-type]
        )  # fmt: skip
        assert "<script" not in told and "@everyone" not in told and "](http" not in told and "\n#" not in told
        assert "-->" not in told and "https://x" not in told
        for line in told.splitlines():
            assert not line.startswith("|") or line.count("|") in (3, 7), line


def test_markers_are_plain() -> None:
    assert reply_marker(COMMENT) == MARKER
    assert refusal_marker("eve") == "<!-- ptebot:refusal account=eve -->"


# what the engine calls


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(open_engine(f"sqlite:///{tmp_path / 'replies.db'}"))
    made.create()
    return made


def replier_for(place: Place, store: Store, **fields: Any) -> Replier:
    return Replier(Settings(endpoint=place.repo.hub.endpoint, token=place.repo.bot_token), store, **fields)


def added(place: Place, store: Store) -> JobRecord:
    made = job("queued", place.repo.repo_id, place.num)
    return store.add(made.asked, made.asker)[0]


def test_the_replier_tells_what_is_true_now(place: Place, store: Store) -> None:
    record, tell = added(place, store), replier_for(place, store)
    tell(record)
    now = store.job(record.id)
    assert now is not None and now.reply_id == place.comments()[0].id
    store.end(record.id, "superseded", reason="newer commit")
    tell(record)  # as it was when somebody read it
    assert "A newer commit took its place" in place.comments()[0].content


def test_the_replier_tries_again_what_could_not_be_told(place: Place, store: Store) -> None:
    record, tell = added(place, store), replier_for(place, store)
    tell(record)
    store.end(record.id, "passed")
    place.repo.hub.fail("/edit$", 503, method="POST", times=1)
    tell(record)
    assert "Waiting" in place.comments()[0].content
    tell.look()
    assert "Every file" in place.comments()[0].content
    writes = place.writes()
    tell.look()
    assert place.writes() == writes


def test_the_replier_follows_the_jobs_of_its_own_process(place: Place, store: Store) -> None:
    record, tell = added(place, store), replier_for(place, store, worker="one")
    store.update(record.id, state="running", worker="two", stage="export xnnpack")
    tell.look()
    assert place.comments() == []
    store.update(record.id, worker="one")
    tell.look()
    assert "export xnnpack" in place.comments()[0].content


def test_what_cannot_be_told_ends_nothing(place: Place, store: Store) -> None:
    record = added(place, store)
    place.repo.owner.delete_repo(place.repo.repo_id)
    tell = replier_for(place, store)
    tell(record)
    tell.look()
    Replier(Settings(endpoint=place.repo.hub.endpoint), store)(record)


def test_an_end_that_no_step_tells_of_is_told_all_the_same(place: Place, store: Store) -> None:
    record, tell = added(place, store), replier_for(place, store)
    tell(record)
    store.end(record.id, "cancelled", reason="cancelled by ada")
    tell.look()
    assert "cancelled by ada" in place.comments()[0].content
    writes = place.writes()
    tell.look()
    assert place.writes() == writes


def test_a_job_that_handed_its_command_on_says_no_more(place: Place, store: Store) -> None:
    record, tell = added(place, store), replier_for(place, store)
    tell(record)
    newer, _ = store.add(replace(record.asked, sha="2" * 40), record.asker)
    store.end(record.id, "superseded", reason="newer commit")
    tell(newer)
    told = place.comments()[0].content
    tell.look()
    assert place.comments()[0].content == told and "took its place" not in told
