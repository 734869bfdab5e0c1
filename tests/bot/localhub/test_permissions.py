"""Who may do what: strangers, readers, contributors, writers, owners; read tokens; nobody at all."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from bot.localhub.testing import RunningHub

Client = Callable[..., HfApi]


def write(api: HfApi, repo: str, **options: object):
    return api.create_commit(repo, [CommitOperationAdd("f.txt", api.token.encode())], commit_message="w", **options)  # type: ignore[union-attr, arg-type]


def refused(status: int, call: Callable[[], object]) -> None:
    with pytest.raises(HfHubHTTPError) as caught:
        call()
    assert caught.value.response.status_code == status, caught.value


def test_a_private_repository_does_not_exist_for_strangers(alice: HfApi, bot: HfApi, hub: RunningHub) -> None:
    repo = alice.create_repo("alice/hidden", private=True).repo_id
    write(alice, repo)
    nobody = HfApi(endpoint=hub.endpoint, token=False)
    for api in (bot, nobody):
        for call in (
            lambda api=api: api.model_info(repo),
            lambda api=api: api.hf_hub_download(repo, "f.txt"),
            lambda api=api: list(api.list_repo_tree(repo)),
            lambda api=api: list(api.get_repo_discussions(repo)),
            lambda api=api: api.list_repo_refs(repo),
            lambda api=api: api.auth_check(repo),
        ):
            with pytest.raises(RepositoryNotFoundError):
                call()
    refused(404, lambda: bot.create_discussion(repo, "hello there", description="x"))
    alice.auth_check(repo, write=True)


def test_a_read_token_reads_private_files_and_writes_nothing(alice: HfApi, hub: RunningHub) -> None:
    repo = alice.create_repo("alice/read-token", private=True).repo_id
    reader = HfApi(endpoint=hub.endpoint, token=hub.create_user("alice", role="read"))
    assert reader.model_info(repo).id == repo
    assert reader.whoami()["auth"]["accessToken"]["role"] == "read"
    refused(403, lambda: write(reader, repo))
    refused(403, lambda: write(reader, repo, create_pr=True))
    refused(403, lambda: reader.create_repo("alice/another"))
    refused(403, lambda: reader.create_discussion(repo, "a title", description="x"))
    refused(403, lambda: reader.create_webhook(url="http://127.0.0.1:9/", watched=[{"type": "user", "name": "alice"}]))
    refused(403, lambda: reader.delete_repo(repo))
    refused(403, lambda: reader.auth_check(repo, write=True))


def test_others_may_propose_but_not_write(alice: HfApi, bot: HfApi, repo: str, hub: RunningHub) -> None:
    refused(403, lambda: write(bot, repo))
    refused(403, lambda: bot.create_branch(repo, branch="mine"))
    refused(403, lambda: bot.create_tag(repo, tag="mine"))
    refused(403, lambda: bot.delete_repo(repo))
    refused(403, lambda: bot.update_repo_settings(repo, private=True))
    refused(403, lambda: bot.move_repo(repo, "bot/taken"))
    refused(403, lambda: bot.create_repo("alice/not-bots"))
    refused(403, lambda: bot.auth_check(repo, write=True))
    bot.auth_check(repo)
    pr = write(bot, repo, create_pr=True)
    assert pr.pr_num == 1
    refused(403, lambda: bot.merge_pull_request(repo, 1))
    write(bot, repo, revision="refs/pr/1")
    nobody = HfApi(endpoint=hub.endpoint, token=False)
    refused(401, lambda: nobody.create_discussion(repo, "a title", description="x"))
    refused(401, lambda: nobody.comment_discussion(repo, 1, "x"))


def test_only_its_author_and_writers_commit_to_a_pull_request(
    alice: HfApi, bot: HfApi, as_user: Client, repo: str
) -> None:
    write(bot, repo, create_pr=True)
    refused(403, lambda: write(as_user("mallory"), repo, revision="refs/pr/1"))
    write(alice, repo, revision="refs/pr/1")
    authors = [event.author for event in alice.get_discussion_details(repo, 1).events if event.type == "commit"]
    assert authors == ["bot", "alice"]


def test_comments_belong_to_their_authors(alice: HfApi, bot: HfApi, as_user: Client, repo: str) -> None:
    alice.create_discussion(repo, "a question", description="why?")
    mine = bot.comment_discussion(repo, 1, "because")
    mallory = as_user("mallory")
    refused(403, lambda: alice.edit_discussion_comment(repo, 1, mine.id, "changed"))
    refused(403, lambda: mallory.hide_discussion_comment(repo, 1, mine.id))
    refused(403, lambda: mallory.rename_discussion(repo, 1, "something else"))
    refused(403, lambda: mallory.change_discussion_status(repo, 1, "closed"))
    alice.hide_discussion_comment(repo, 1, mine.id)
    refused(403, lambda: bot.edit_discussion_comment(repo, 1, mine.id, "back"))
    shown = [event for event in bot.get_discussion_details(repo, 1).events if event.id == mine.id]
    assert shown[0].hidden is True  # type: ignore[attr-defined]
    assert "because" not in str(shown[0]._event)


def test_roles_in_an_organisation(as_user: Client, hub: RunningHub) -> None:
    owner, writer = as_user("olga", orgs={"club": "admin"}), as_user("wim", orgs={"club": "write"})
    contributor, reader = as_user("con", orgs={"club": "contributor"}), as_user("rea", orgs={"club": "read"})
    private = owner.create_repo("club/private", private=True).repo_id
    write(writer, private)
    assert reader.model_info(private).private
    refused(403, lambda: write(reader, private))
    refused(403, lambda: write(contributor, private))
    refused(403, lambda: reader.create_repo("club/mine"))
    own = contributor.create_repo("club/own").repo_id
    write(contributor, own)
    refused(403, lambda: contributor.delete_repo(own))
    refused(403, lambda: writer.delete_repo(private))
    owner.delete_repo(private)
    with pytest.raises(RepositoryNotFoundError):
        as_user("stranger").model_info(private)


def test_events_tell_owners_and_members_from_strangers(as_user: Client, bot: HfApi) -> None:
    owner, member = as_user("olga", orgs={"club": "admin"}), as_user("rea", orgs={"club": "read"})
    repo = owner.create_repo("club/asks").repo_id
    owner.create_discussion(repo, "who speaks?", description="I do")
    member.comment_discussion(repo, 1, "me too")
    bot.comment_discussion(repo, 1, "and I")
    events = [event._event["author"] for event in owner.get_discussion_details(repo, 1).events]
    assert [(who["name"], who["isOwner"], who["isOrgMember"]) for who in events] == [
        ("olga", True, True),
        ("rea", False, True),
        ("bot", False, False),
    ]


def test_the_administrator_may_do_everything_and_add_users(hub: RunningHub, alice: HfApi, http) -> None:
    admin = HfApi(endpoint=hub.endpoint, token=hub.token)
    repo = alice.create_repo("alice/administered", private=True).repo_id
    write(admin, repo)
    body = {"name": "newcomer", "orgs": {"guild": "write"}, "tokenRole": "write"}
    made = http.post("/api/localhub/users", json=body, token=hub.token)
    assert made.status_code == 200
    assert HfApi(endpoint=hub.endpoint, token=made.json()["token"]).whoami()["orgs"][0]["name"] == "guild"
    assert http.post("/api/localhub/users", json=body, token=alice.token).status_code == 403
    assert http.post("/api/localhub/users", json=body).status_code == 401
    for bad in (
        {"name": "api"},
        {"name": "x y"},
        {"name": "u", "orgs": {"o": "king"}},
        {"name": "u", "tokenRole": "god"},
    ):
        assert http.post("/api/localhub/users", json=bad, token=hub.token).status_code == 400
    assert hub.hub.accounts.by_name("u") is None, "a refused request leaves no account behind"


def test_a_browsers_password_cannot_write(alice: HfApi, repo: str, http) -> None:
    """Another site can make a browser send Basic credentials along; so they only ever read."""
    import base64

    basic = {"Authorization": "Basic " + base64.b64encode(f"alice:{alice.token}".encode()).decode()}
    assert http.get("/api/whoami-v2", headers=basic).json()["name"] == "alice"
    reply = http.post("/api/repos/create", json={"name": "by-basic"}, headers=basic)
    assert reply.status_code == 403
    wrong = b"Basic " + base64.b64encode(b"alice:wrong")
    for bad in (b"Basic !!!", wrong, b"Digest x", b"Bearer", b"Bearer \xff"):
        assert http.get("/api/whoami-v2", headers={"Authorization": bad}).status_code == 401, bad


def test_names_of_other_hosts_are_not_answered(http) -> None:
    """A page that rebinds its own name to 127.0.0.1 must not read what is here."""
    assert http.get("/api/models", headers={"Host": "evil.example"}).status_code == 400
    assert http.get("/api/models", headers={"Host": "localhost:1234"}).status_code == 200
