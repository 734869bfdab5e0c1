"""Commands in discussions of the real local Hub: who may give them, what is done, and what is answered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import DiscussionComment, HfApi

from bot.errors import HubUnreachable
from bot.hubapi import connect
from bot.replies import discussion
from bot.server import members
from bot.server.comments import Comments, find
from bot.server.records import Delivery, JobRecord
from bot.server.settings import Settings
from bot.server.store import Store
from exporter.errors import PtebotError
from tests.bot.hubs import Repository
from tests.bot.server.doing import Kept


class Place:
    """A discussion of a repository, the handler, and what is said there."""

    def __init__(self, repo: Repository, store: Store) -> None:
        self.repo, self.store, self.actions = repo, store, Kept(store)
        self.repo_id = repo.repo_id
        settings = Settings(
            endpoint=repo.hub.endpoint, token=repo.bot_token, watch=("acme", "orga"), public_url="https://bot.example"
        )
        self.api = connect(repo.hub.endpoint, repo.bot_token)
        self.comments = Comments(settings, store, self.actions, self.api)
        self.num = repo.owner.create_discussion(self.repo_id, "Please", description="Hello").num

    def by(self, name: str, **options: Any) -> HfApi:
        return HfApi(endpoint=self.repo.hub.endpoint, token=self.repo.hub.create_user(name, **options))

    def written(self, text: str, by: HfApi | None = None) -> Delivery:
        """A comment, and what the webhook about it leaves in the inbox."""
        made = (by or self.repo.owner).comment_discussion(self.repo_id, self.num, text)
        return self.delivery(made.id)

    def delivery(self, comment_id: str, **data: Any) -> Delivery:
        given = {"discussion": self.num, "comment_id": comment_id, "author_id": "0" * 24, **data}
        return Delivery(key=f"comment:{comment_id}", kind="comment", repo_id=self.repo_id, data=given)

    def handle(self, text: str, by: HfApi | None = None) -> str:
        return self.comments.handle(self.written(text, by))

    def replies(self) -> list[str]:
        """What the bot has said here."""
        found = self.repo.owner.get_discussion_details(self.repo_id, self.num).events
        return [one.content for one in found if isinstance(one, DiscussionComment) and one.author == "ptebot-user"]

    def jobs(self) -> list[JobRecord]:
        return self.store.jobs()


@pytest.fixture
def place(repo: Repository, local_store: Store) -> Place:
    discussion._MEMORY._shown.clear()
    return Place(repo, local_store)


def test_an_owners_export(place: Place) -> None:
    delivery = place.written("/ptebot export backends=xnnpack,portable precision=fp32 max-seq-len=64\nthank you")
    job_id = place.comments.handle(delivery)
    (job,) = place.jobs()
    assert job.id == job_id
    assert job.asked.options == {"backends": ["xnnpack", "portable"], "precisions": ["fp32"], "max_seq_len": 64}
    assert (job.asked.sha, job.asked.again) == (place.repo.head, delivery.data["comment_id"])
    assert (job.asker.trigger, job.asker.name, job.asker.discussion) == ("comment", "acme", place.num)
    (reply,) = place.replies()
    assert reply.startswith(f"<!-- ptebot:reply comment={delivery.data['comment_id']} -->\n")
    assert "Waiting" in reply and job.asked.sha[:12] in reply and "`xnnpack, portable`" in reply
    assert f"https://bot.example/jobs/{job_id}" in reply
    found = place.repo.owner.get_discussion_details(place.repo_id, place.num).events[-1]
    assert job.reply_id == found.id


def test_the_same_comment_again_is_one_job_and_one_reply(place: Place) -> None:
    delivery = place.written("/ptebot export")
    first = place.comments.handle(delivery)
    discussion._MEMORY._shown.clear()  # another process
    place.repo.push({"config.json": b'{"model_type": "llama", "d": 1}'})
    assert place.comments.handle(delivery) == first
    assert len(place.jobs()) == 1 and len(place.replies()) == 1
    assert place.handle("/ptebot export") != first, "another comment wants it again"
    assert len(place.replies()) == 2


def test_a_death_between_reply_and_job(place: Place) -> None:
    def die() -> None:
        raise HubUnreachable("later")

    delivery = place.written("/ptebot export")
    place.actions.before = die
    with pytest.raises(HubUnreachable):
        place.comments.handle(delivery)
    assert place.jobs() == [] and len(place.replies()) == 1
    discussion._MEMORY._shown.clear()
    place.actions.before = lambda: None
    place.comments.handle(delivery)
    assert len(place.jobs()) == 1 and len(place.replies()) == 1
    assert place.jobs()[0].reply_id is not None


def test_a_job_whose_reply_is_refused_is_done_all_the_same(place: Place) -> None:
    delivery = place.written("/ptebot export")
    place.repo.hub.fail("/comment$", 403, method="POST", times=-1)
    place.comments.handle(delivery)
    assert len(place.jobs()) == 1 and place.replies() == []


def test_a_lost_answer_writes_no_second_reply(place: Place) -> None:
    delivery = place.written("/ptebot help")
    place.repo.hub.fail("/comment$", "drop", method="POST", times=1)
    place.comments.handle(delivery)
    assert len(place.replies()) == 1


def test_help_and_what_was_wrong(place: Place) -> None:
    place.handle("/ptebot help")
    place.handle("/ptebot frobnicate")
    place.handle("/ptebot export model=other/model")
    place.handle("/ptebot export revision=v1")
    shown, unknown, other, revision = place.replies()
    assert "/ptebot export [backends=NAME,...]" in shown and "workflow" not in shown and "revision" not in shown
    assert "There is no command 'frobnicate'" in unknown and "Nothing was done" in unknown
    assert "its own repository" in other and "main branch is exported" in revision
    assert place.jobs() == []


def test_status(place: Place) -> None:
    place.handle("/ptebot export")
    place.handle("/ptebot status")
    told = place.replies()[1]
    assert "no ExecuTorch files yet" in told and "Waiting to be exported" in told


@pytest.mark.parametrize("verb", ["export", "status", "help"])
def test_a_stranger_is_refused_once_and_starts_nothing(place: Place, verb: str) -> None:
    stranger = place.by("stranger")
    assert "stranger may not" in place.handle(f"/ptebot {verb}", stranger)
    place.handle("/ptebot export backends=xnnpack", stranger)
    discussion._MEMORY._shown.clear()
    place.handle("/ptebot export", stranger)
    assert place.jobs() == []
    (refusal,) = place.replies()
    events = place.repo.owner.get_discussion_details(place.repo_id, place.num).events
    assert [one._event["data"]["numEdits"] for one in events if one.author == "ptebot-user"] == [0], "nor written again"
    assert "can give commands" in refusal and "stranger" not in refusal.split("\n", 1)[1]
    place.handle("/ptebot export", place.by("another"))
    assert len(place.replies()) == 2


@pytest.mark.parametrize(
    "text", ["/ptebot frobnicate", "/ptebot export now please", "thanks /ptebot export", "/ptebots"]
)
def test_a_stranger_who_only_mentions_us_hears_nothing(place: Place, text: str) -> None:
    place.handle(text, place.by("stranger"))
    assert place.replies() == [] and place.jobs() == []


@pytest.mark.parametrize(
    ("role", "visible", "may"),
    [
        ("admin", True, True), ("write", True, True), ("contributor", True, False), ("read", True, False),
        ("write", False, True), ("read", False, True), (None, True, False),
    ],
)  # fmt: skip
def test_members_of_an_organization(place: Place, role: Any, visible: bool, may: bool) -> None:
    """Roles are told to members only; to others the Hub tells no more than that somebody is one."""
    name = f"orga-{role}-{visible}".lower()
    founder = place.by("founder", orgs={name: "admin"})
    if visible:
        place.by("ptebot-user", orgs={name: "read"})
    repo_id = f"{name}/tiny"
    founder.create_repo(repo_id)
    member = place.by(f"member-{role}", orgs={name: role} if role else {})
    num = founder.create_discussion(repo_id, "Please", description="Hello").num
    comment = member.comment_discussion(repo_id, num, "/ptebot export")
    found = find(discussion.events(place.api, repo_id, num), comment.id)
    assert not isinstance(found, str)
    assert members.may_command(place.api, repo_id, found.author) is may


def test_our_own_comments_are_no_commands(place: Place) -> None:
    bot = place.api
    made = bot.comment_discussion(place.repo_id, place.num, "/ptebot export")
    assert place.comments.handle(place.delivery(made.id, author_id=bot.whoami()["id"])) == "the comment is our own"
    assert place.comments.handle(place.delivery(made.id)) == "the comment is our own", "whatever the payload says"
    assert place.jobs() == []


def test_the_payload_is_not_believed(place: Place) -> None:
    """Text, author and rights come from the Hub: a payload that names another author changes nothing."""
    made = place.by("stranger").comment_discussion(place.repo_id, place.num, "/ptebot export")
    owner = place.repo.owner.whoami()["id"]
    assert "may not" in place.comments.handle(place.delivery(made.id, author_id=owner))
    assert "no such comment" in place.comments.handle(place.delivery("f" * 24))
    plain = place.repo.owner.comment_discussion(place.repo_id, place.num, "no command")
    assert "does not begin" in place.comments.handle(place.delivery(plain.id))
    hidden = place.repo.owner.comment_discussion(place.repo_id, place.num, "/ptebot export")
    place.repo.owner.hide_discussion_comment(place.repo_id, place.num, hidden.id)
    assert "hidden" in place.comments.handle(place.delivery(hidden.id))
    assert place.jobs() == []


def test_a_first_comment_may_be_a_command(place: Place) -> None:
    opened = place.repo.owner.create_discussion(place.repo_id, "Export it", description="/ptebot export")
    first = next(one for one in opened.events if isinstance(one, DiscussionComment))
    place.num = opened.num
    place.comments.handle(place.delivery(first.id))
    assert place.jobs()[0].asker.discussion == opened.num


def test_the_owners_can_turn_comments_off(place: Place) -> None:
    place.repo.push({".ptebot.yml": b"comments: false\n"})
    assert "comments: false" in place.handle("/ptebot export")
    assert place.jobs() == [] and place.replies() == []
    place.repo.push({".ptebot.yml": b"nonsense: [\n"})
    place.handle("/ptebot help")
    assert len(place.replies()) == 1, "a broken file turns nothing off"


def event(name: Any = "acme", **fields: Any) -> dict[str, Any]:
    data = {"hidden": False, "latest": {"raw": "/ptebot export", "author": {"name": name}}, "editors": [name]}
    return {"id": "1" * 24, "type": "comment", "author": {"name": name}, "data": data | fields}


@pytest.mark.parametrize(
    "hostile",
    [
        event(editors=["acme", "mallory"]),
        event(latest={"raw": "/ptebot export", "author": {"name": "mallory"}}),
        event(latest={"raw": ["/ptebot export"]}),
        event(latest=None),
        event(hidden="no"),
        event("<b>acme</b>"),
        event("acme -->"),
        event(None),
        event() | {"author": ["acme"]},
        event() | {"data": "x"},
        event() | {"type": "status-change"},
        {},
    ],
)
def test_events_of_another_shape_are_nothing_to_act_on(hostile: dict[str, Any]) -> None:
    assert isinstance(find([hostile], "1" * 24), str), json.dumps(hostile)


def test_an_event_of_the_right_shape_is() -> None:
    found = find([event()], "1" * 24)
    assert not isinstance(found, str) and found.name == "acme" and found.text == "/ptebot export"


def test_a_member_whose_flag_is_no_flag() -> None:
    api = connect("http://127.0.0.1:9", None)
    for author in ({"name": "eve", "isOwner": "true"}, {"name": "eve", "isOrgMember": 1}, {"name": 5}, {}):
        assert members.may_command(api, "acme/tiny", author) is False


def test_a_hub_that_does_not_answer_is_asked_again(place: Place, tmp_path: Path) -> None:
    delivery = place.written("/ptebot export")
    place.repo.hub.fail("/discussions/", 502, times=1)
    with pytest.raises(HubUnreachable):
        place.comments.handle(delivery)
    assert place.jobs() == []
    place.comments.handle(delivery)
    assert len(place.jobs()) == 1


def test_a_discussion_that_is_gone(place: Place) -> None:
    delivery = place.written("/ptebot export")
    place.num += 1_000
    with pytest.raises(PtebotError):
        place.comments.handle(place.delivery(str(delivery.data["comment_id"])))
