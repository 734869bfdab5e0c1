"""Discussions and pull requests: life and death, merging as git does it, conflicts, diffs, lists."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError

from bot.localhub.testing import RunningHub


def propose(api: HfApi, repo: str, files: dict[str, bytes], title: str = "Proposal", description: str = "why"):
    operations = [CommitOperationAdd(path, data) for path, data in files.items()]
    return api.create_commit(
        repo, operations, commit_message=title, commit_description=description, create_pr=True
    )  # fmt: skip


def put(api: HfApi, repo: str, path: str, data: bytes, **options: str) -> str:
    return api.create_commit(repo, [CommitOperationAdd(path, data)], commit_message=f"put {path}", **options).oid


def refused(status: int, call) -> HfHubHTTPError:
    with pytest.raises(HfHubHTTPError) as caught:
        call()
    assert caught.value.response.status_code == status
    return caught.value


def test_a_pull_request_from_a_commit(alice: HfApi, bot: HfApi, repo: str, hub: RunningHub) -> None:
    pr = propose(bot, repo, {"new.txt": b"hello\n"}, "Add a file", "It says *hello*")
    assert (pr.pr_url, pr.pr_num, pr.pr_revision) == (f"{hub.endpoint}/{repo}/discussions/1", 1, "refs/pr/1")
    details = bot.get_discussion_details(repo, 1)
    assert (details.title, details.status, details.author, details.is_pull_request) == (
        "Add a file",
        "open",
        "bot",
        True,
    )
    assert (details.target_branch, details.conflicting_files, details.merge_commit_oid) == ("refs/heads/main", [], None)
    assert [event.type for event in details.events] == ["comment", "commit"]
    assert details.events[0].content == "It says *hello*"  # type: ignore[attr-defined]
    assert details.events[1].oid == pr.oid  # type: ignore[attr-defined]
    assert "+hello" in (details.diff or "")
    assert "new.txt" not in alice.list_repo_files(repo)
    assert "new.txt" in alice.list_repo_files(repo, revision="refs/pr/1")
    refs = alice.list_repo_refs(repo, include_pull_requests=True)
    assert [(ref.ref, ref.target_commit) for ref in refs.pull_requests or []] == [("refs/pr/1", pr.oid)]


def test_later_commits_go_to_the_same_pull_request(bot: HfApi, repo: str) -> None:
    first = propose(bot, repo, {"m.pte": os.urandom(5000)})
    second = put(bot, repo, "m.pte", os.urandom(6000), revision="refs/pr/1", parent_commit=first.oid)
    details = bot.get_discussion_details(repo, 1)
    assert [getattr(event, "oid", None) for event in details.events] == [None, first.oid, second]
    refused(412, lambda: put(bot, repo, "x", b"1", revision="refs/pr/1", parent_commit=first.oid))


def test_merge_is_a_merge_commit_of_both_sides(alice: HfApi, bot: HfApi, repo: str, hub: RunningHub, tmp_path) -> None:
    large = os.urandom(30_000)
    pr = propose(bot, repo, {"theirs.bin": large}, "Theirs")
    ours = put(alice, repo, "ours.txt", b"ours")
    alice.merge_pull_request(repo, 1, comment="Thank you")
    details = alice.get_discussion_details(repo, 1)
    found = hub.hub.repos.find(*repo.split("/"))
    assert found is not None
    merged = found.git().commit("main")
    assert [str(oid) for oid in merged.parent_ids] == [ours, pr.oid]
    assert (details.status, details.merge_commit_oid) == ("merged", str(merged.id))
    assert merged.message == "Theirs (#1)"
    assert [event.type for event in details.events] == ["comment", "commit", "comment", "status-change"]
    assert "theirs.bin" in (details.diff or ""), "the diff of a merged pull request stays what it was"
    assert "ours.txt" not in (details.diff or "")
    assert Path(alice.hf_hub_download(repo, "theirs.bin", cache_dir=tmp_path)).read_bytes() == large
    refused(400, lambda: alice.merge_pull_request(repo, 1))
    refused(403, lambda: put(bot, repo, "late.txt", b"x", revision="refs/pr/1"))
    refused(400, lambda: alice.change_discussion_status(repo, 1, "open"))


def test_conflicts_are_named_and_stop_the_merge(alice: HfApi, bot: HfApi, repo: str) -> None:
    put(alice, repo, "card.txt", b"one\ntwo\nthree\n")
    propose(bot, repo, {"card.txt": b"one\nTWO\nthree\n", "fine.txt": b"x"})
    propose(bot, repo, {"card.txt": b"one\ntwo\nthree\nfour\n"})
    head = put(alice, repo, "card.txt", b"one\nzwei\nthree\n")
    assert alice.get_discussion_details(repo, 1).conflicting_files == ["card.txt"]
    error = refused(409, lambda: alice.merge_pull_request(repo, 1))
    assert error.response.json()["filesWithConflicts"] == ["card.txt"]
    assert alice.model_info(repo).sha == head
    assert alice.get_discussion_details(repo, 1).status == "open"
    # Changes of different lines are no conflict, as in git.
    put(alice, repo, "card.txt", b"zero\none\ntwo\nthree\n")
    assert alice.get_discussion_details(repo, 2).conflicting_files == []
    alice.create_commit(repo, [CommitOperationDelete("card.txt")], commit_message="gone")
    assert alice.get_discussion_details(repo, 1).conflicting_files == ["card.txt"]


def test_an_empty_pull_request_is_a_draft_until_opened(alice: HfApi, bot: HfApi, repo: str) -> None:
    made = bot.create_pull_request(repo, "Work in progress", description="soon")
    assert (made.status, made.num, made.is_pull_request) == ("draft", 1, True)
    refused(400, lambda: alice.merge_pull_request(repo, 1))
    put(bot, repo, "a.txt", b"1", revision="refs/pr/1")
    bot.change_discussion_status(repo, 1, "open")
    assert bot.get_discussion_details(repo, 1).status == "open"
    alice.merge_pull_request(repo, 1)
    assert "a.txt" in alice.list_repo_files(repo)


def test_comments_edits_titles_and_status(alice: HfApi, bot: HfApi, repo: str) -> None:
    alice.create_discussion(repo, "A question", description="**why**?")
    comment = bot.comment_discussion(repo, 1, "because")
    edited = bot.edit_discussion_comment(repo, 1, comment.id, "because of *this*")
    assert (edited.content, edited.edited, edited._event["data"]["numEdits"]) == ("because of *this*", True, 1)
    assert "<em>this</em>" in edited._event["data"]["latest"]["html"]
    renamed = alice.rename_discussion(repo, 1, "A better question")
    assert (renamed.old_title, renamed.new_title) == ("A question", "A better question")
    closed = alice.change_discussion_status(repo, 1, "closed", comment="answered")
    assert closed.new_status == "closed"
    refused(400, lambda: alice.change_discussion_status(repo, 1, "closed"))
    bot.comment_discussion(repo, 1, "one more thing")
    events = alice.get_discussion_details(repo, 1).events
    kinds = ["comment", "comment", "title-change", "comment", "status-change", "comment"]
    assert [event.type for event in events] == kinds


def test_lists_filter_by_kind_status_and_author(alice: HfApi, bot: HfApi, repo: str) -> None:
    alice.create_discussion(repo, "First talk", description="x")
    propose(bot, repo, {"a": b"1"}, "Bot one")
    propose(bot, repo, {"b": b"1"}, "Bot two")
    propose(alice, repo, {"c": b"1"}, "Own one")
    alice.change_discussion_status(repo, 2, "closed")
    alice.merge_pull_request(repo, 4)

    def numbers(**options: str) -> list[int]:
        return [item.num for item in alice.get_repo_discussions(repo, **options)]  # type: ignore[arg-type]

    assert numbers() == [4, 3, 2, 1]
    assert numbers(discussion_type="pull_request") == [4, 3, 2]
    assert numbers(discussion_type="discussion") == [1]
    assert numbers(discussion_status="open") == [3, 1]
    assert numbers(discussion_status="closed") == [4, 2]
    assert numbers(author="bot") == [3, 2]
    assert numbers(author="bot", discussion_type="pull_request", discussion_status="open") == [3]
    assert numbers(author="nobody") == []


def test_lists_come_in_pages(alice: HfApi, repo: str, http) -> None:
    for number in range(53):
        body = {"title": f"Talk {number}", "description": "x", "pullRequest": False}
        assert http.post(f"/api/models/{repo}/discussions", json=body, token=alice.token).status_code == 200
    assert [item.num for item in alice.get_repo_discussions(repo)] == list(range(53, 0, -1))
    found = http.get(f"/api/models/{repo}/discussions?search=talk 7").json()
    assert [item["num"] for item in found["discussions"]] == [8]


def test_deleting_the_ref_and_the_discussion(alice: HfApi, bot: HfApi, repo: str, http) -> None:
    propose(bot, repo, {"a": b"1"})
    address = f"/api/models/{repo}/discussions/1"
    assert http.request("DELETE", f"{address}/ref", token=bot.token).status_code == 400
    bot.change_discussion_status(repo, 1, "closed")
    assert http.request("DELETE", f"{address}/ref", token=bot.token).status_code == 200
    assert http.get(f"/api/models/{repo}/tree/refs%2Fpr%2F1").status_code == 404
    details = http.get(f"{address}?diff=1").json()
    assert details["changes"]["refDeleted"] is True
    assert details["events"][-1]["type"] == "ref-deleted"
    assert http.get(f"/{repo}/discussions/1").status_code == 200
    assert http.request("DELETE", address, token=bot.token).status_code == 403
    assert http.request("DELETE", address, token=alice.token).status_code == 200
    assert http.get(address).status_code == 404
    assert propose(bot, repo, {"a": b"1"}).pr_num == 2, "a number is never given twice"


@pytest.mark.parametrize("number", ["0", "99", "x", "-1", "1.5", "9" * 30, "²"])
def test_numbers_that_are_none(alice: HfApi, http, number: str) -> None:
    repo = alice.create_repo("alice/numbers", exist_ok=True).repo_id
    assert http.get(f"/api/models/{repo}/discussions/{number}").status_code == 404


def test_lengths_are_held_to_the_hubs(alice: HfApi, repo: str, http) -> None:
    def create(**body: object) -> int:
        return http.post(f"/api/models/{repo}/discussions", json=body, token=alice.token).status_code

    assert create(title="ab", description="x") == 400
    assert create(title="x" * 201, description="x") == 400
    assert create(title="fine", description="x" * 65537) == 400
    assert create(title="fine", description=None) == 400
    assert create(title="fine", description="x", pullRequest="yes") == 400
    assert create(title="fine", description="") == 200
    for text in ("", "  ", "x" * 65537, 5, None):
        reply = http.post(f"/api/models/{repo}/discussions/1/comment", json={"comment": text}, token=alice.token)
        assert reply.status_code == 400


def test_compare_gives_the_diff_of_two_revisions(alice: HfApi, bot: HfApi, repo: str, http) -> None:
    propose(bot, repo, {"new.txt": b"their line\n"})
    put(alice, repo, "own.txt", b"our line\n")
    two = http.get(f"/api/models/{repo}/compare/main..refs%2Fpr%2F1?raw=1").text
    three = http.get(f"/api/models/{repo}/compare/main...refs%2Fpr%2F1").json()
    assert "+their line" in two
    assert "-our line" in two
    assert "+their line" in three
    assert "our line" not in three
    assert http.get(f"/api/models/{repo}/compare/main..nowhere").status_code == 404
