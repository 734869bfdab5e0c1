"""GitHub's events: what each asks for."""

from __future__ import annotations

from typing import Any

import pytest

from bot.errors import InvalidEvent
from bot.triggers import github
from bot.triggers.request import Ignored, Origin, Overrides, Request
from tests.bot.triggers import events
from tests.bot.triggers.events import BEFORE, ENV, SHA


def request(name: str, payload: Any, env: dict[str, str] | None = None) -> Request:
    found = github.read(name, payload, ENV if env is None else env)
    assert isinstance(found, Request), found
    return found


def ignored(name: str, payload: Any) -> str:
    found = github.read(name, payload, ENV)
    assert isinstance(found, Ignored), found
    return found.reason


# push


def test_a_push_to_a_branch() -> None:
    found = request("push", events.push())
    assert found == Request(
        verb="export",
        why="push to main",
        origin=Origin(
            event="push",
            repository="acme/tiny",
            actor="octocat",
            sha=SHA,
            ref="refs/heads/main",
            before=BEFORE,
            default_branch="main",
            changed_files=("README.md", "models/tiny/model.safetensors", "old.txt"),
        ),
    )


def test_a_push_to_another_branch_is_told_as_it_is() -> None:
    origin = request("push", events.push("feature/x")).origin
    assert (origin.ref, origin.default_branch) == ("refs/heads/feature/x", "main")


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (events.push("ptebot/tiny"), "ptebot's own"),
        (events.push(ref="refs/tags/v1"), "a tag was pushed"),
        (events.push(deleted=True, after="0" * 40), "the branch main was deleted"),
        (events.push(after="0" * 40), "deleted"),
        (events.push(ref="refs/tags/v1", deleted=True, after="0" * 40), "the tag v1 was deleted"),
    ],
)
def test_pushes_that_ask_for_nothing(payload: dict[str, Any], said: str) -> None:
    assert said in ignored("push", payload)


def test_a_branch_that_only_resembles_ours_is_exported() -> None:
    for branch in ("ptebot", "ptebots/x", "x/ptebot/y", "main\u200b"):
        assert request("push", events.push(branch)).verb == "export"


@pytest.mark.parametrize(
    "fields",
    [
        {"forced": True},
        {"created": True, "before": "0" * 40},
        {"commits": []},
        {"commits": None},
        {"commits": [{"id": SHA}]},  # as in a runner's event file, which has no paths
        {"commits": [{"added": [], "modified": ["a"]}]},
        {"commits": [{"added": [], "modified": [3], "removed": []}]},
        {"commits": [{"added": ["x" * 5000], "modified": [], "removed": []}]},
        {"commits": [{"added": [], "modified": [], "removed": []}] * 2048},
        {"commits": [{"added": [f"{n}.txt" for n in range(3001)], "modified": [], "removed": []}]},
    ],
)
def test_paths_are_not_known_unless_all_are(fields: dict[str, Any]) -> None:
    assert request("push", events.push(**fields)).origin.changed_files is None


@pytest.mark.parametrize(
    "fields",
    [
        {"ref": None},
        {"ref": "main"},
        {"ref": "refs/heads/"},
        {"ref": "refs/heads/a b"},
        {"ref": "refs/heads/a\nb"},
        {"ref": "refs/heads/" + "x" * 300},
        {"ref": ["refs/heads/main"]},
        {"after": None},
        {"after": "A" * 40},
        {"after": SHA + "0"},
        {"after": 5},
    ],
)
def test_a_push_without_its_parts_is_no_event(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidEvent, match=r"no valid (ref|after)"):
        github.read("push", events.push(**fields), ENV)


def test_the_repository_goes_by_the_runner() -> None:
    lying = events.push(repository=events.repository("evil/other"))
    assert request("push", lying).origin.repository == "acme/tiny"
    assert request("push", lying, {}).origin.repository == "evil/other"
    for name in ("..", "a/..", "../b", "a/b/c", "a b/c", "a/b\n"):
        with pytest.raises(InvalidEvent, match=r"repository\.full_name"):
            github.read("push", events.push(repository={"full_name": name}), {"GITHUB_REPOSITORY": name})


# events without a change of their own


@pytest.mark.parametrize("name", ["schedule", "workflow_dispatch", "workflow_call"])
def test_events_that_run_on_what_is_there(name: str) -> None:
    found = request(name, {"repository": events.repository(), "sender": events.user(), "schedule": "0 3 * * *"})
    assert found.verb == "export" and found.overrides == Overrides()
    assert (found.origin.sha, found.origin.ref) == (ENV["GITHUB_SHA"], "refs/heads/main")
    assert request(name, {}).origin.actor == "octocat"


def test_a_schedule_without_any_environment_is_no_event() -> None:
    with pytest.raises(InvalidEvent, match="repository"):
        github.read("schedule", {}, {})


def test_inputs_of_a_workflow_that_are_named_like_ours() -> None:
    inputs = {
        "model": "acme/other",
        "max_seq_len": "512",
        "backends": "xnnpack, portable",
        "precision": "",
        "revision": None,
        "dry-run": "true",
        "environment": {"x": 1},
    }
    found = request("workflow_dispatch", {"inputs": inputs})
    assert found.overrides == Overrides(model="acme/other", max_seq_len=512, backends=("xnnpack", "portable"))


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"model": "../x"}, "model: it takes"),
        ({"max-seq-len": "many"}, "max-seq-len: it takes a whole number"),
        ({"max-seq-len": 10**5000}, "no text and no number"),
        ({"max-seq-len": True}, "no text and no number"),
        ({"max-seq-len": 1.5}, "no text and no number"),
        ({"max-kl": 1e400}, "max-kl: it is no number of nats"),
        ({"max-kl": True}, "no text and no number"),
        ({"model": {"a": "b"}}, "no text and no number"),
        ({"model": "x" * 2000}, "no text and no number"),
        ({"max-seq-len": 5, "max_seq_len": 6}, "'max-seq-len' twice"),
        ({"backends": ["xnnpack", 5]}, "no text and no number"),
        ([], "no JSON object"),
        ("x", "no JSON object"),
    ],
)
def test_wrong_inputs_are_named(inputs: Any, said: str) -> None:
    with pytest.raises(InvalidEvent, match=said):
        github.read("workflow_dispatch", {"inputs": inputs}, ENV)


def test_a_published_release() -> None:
    payload = {"action": "published", "release": {"tag_name": "v1.0", "draft": False}, "sender": events.user()}
    found = request("release", payload)
    assert found.why == "release v1.0" and found.origin.sha == ENV["GITHUB_SHA"]
    for action in ("created", "edited", "deleted", "prereleased", "released", "unpublished", None, 7, "\n::error::x"):
        assert "only a published one" in ignored("release", {**payload, "action": action})
    assert "draft" in ignored("release", {**payload, "release": {"tag_name": "v1", "draft": True}})
    with pytest.raises(InvalidEvent, match="tag_name"):
        github.read("release", {**payload, "release": {"tag_name": "v 1"}}, ENV)


# repository_dispatch


def test_a_dispatch_with_settings_of_ours() -> None:
    payload = {"model": "acme/tiny", "revision": SHA, "backends": ["xnnpack", "openvino"], "max-seq-len": 128}
    found = request("repository_dispatch", events.dispatch(payload=payload))
    wanted = Overrides(model="acme/tiny", revision=SHA, backends=("xnnpack", "openvino"), max_seq_len=128)
    assert found.overrides == wanted and found.why == "dispatch ptebot-export"
    for empty in (None, {}):
        assert request("repository_dispatch", events.dispatch("ptebot", empty)).overrides == Overrides()


@pytest.mark.parametrize("kind", ["deploy", "xptebot", "ptebots", "ptebot_x", "ptebot-", "ptebot-a b", "", None, 5])
def test_dispatches_for_others(kind: Any) -> None:
    assert "does not begin with ptebot" in ignored("repository_dispatch", events.dispatch(kind))


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ({"hub-token": "hf_x"}, "'hub-token' is no setting"),
        ({"endpoint": "https://evil.example"}, "'endpoint' is no setting"),
        ({"model": "a/b", "publish": "github"}, "'publish' is no setting"),
        ({"\n::error::": "x"}, "is no setting"),
        ({"model": 5.5}, "no text"),
        ("text", "no JSON object"),
        ([1], "no JSON object"),
    ],
)
def test_a_dispatch_asks_for_listed_settings_only(payload: Any, said: str) -> None:
    with pytest.raises(InvalidEvent, match=said) as failure:
        github.read("repository_dispatch", events.dispatch(payload=payload), ENV)
    assert "hf_x" not in str(failure.value) and "evil" not in str(failure.value) and "::error" not in str(failure.value)


def test_a_forwarded_webhook_of_the_hub() -> None:
    found = request("repository_dispatch", events.dispatch("ptebot-hub", events.hub_webhook()))
    assert found.overrides == Overrides(model="acme/tiny-hub", revision=SHA)
    new = events.hub_webhook("repo", "create")
    del new["updatedRefs"]
    assert request("repository_dispatch", events.dispatch("ptebot-hub", new)).overrides.revision == BEFORE


@pytest.mark.parametrize(
    "payload",
    [
        events.hub_webhook("discussion"),
        events.hub_webhook("discussion.comment", "create"),
        events.hub_webhook("repo.config"),
        events.hub_webhook("repo", "delete"),
        events.hub_webhook("repo.content", "delete"),
        events.hub_webhook(repo={"type": "dataset", "name": "acme/data"}),
        events.hub_webhook(updatedRefs=[{"ref": "refs/pr/1", "oldSha": BEFORE, "newSha": SHA}]),
        events.hub_webhook(updatedRefs=[{"ref": "refs/heads/main", "oldSha": SHA, "newSha": "0" * 40}]),
        events.hub_webhook(updatedRefs=[{"ref": "refs/heads/main", "newSha": None}]),
        events.hub_webhook(updatedRefs=[5, None]),
        events.hub_webhook(updatedRefs=[]),
    ],
)
def test_webhooks_of_the_hub_that_ask_for_nothing(payload: dict[str, Any]) -> None:
    assert "Hub's event" in ignored("repository_dispatch", events.dispatch("ptebot-hub", payload))


@pytest.mark.parametrize("name", [None, "tiny", "../x", "a/b/c", "a/b\n", 5, "a" * 300 + "/b"])
def test_a_webhook_of_the_hub_names_its_model(name: Any) -> None:
    payload = events.hub_webhook(repo={"type": "model", "name": name, "headSha": SHA})
    with pytest.raises(InvalidEvent, match="does not name its repository"):
        github.read("repository_dispatch", events.dispatch("ptebot-hub", payload), ENV)


# issue_comment


def test_a_command_on_an_issue_and_on_a_pull_request() -> None:
    for is_pull_request in (False, True):
        found = request(
            "issue_comment", events.comment("/ptebot export precision=fp32\nthanks", pull_request=is_pull_request)
        )
        assert (found.verb, found.overrides, found.problem) == ("export", Overrides(precisions=("fp32",)), None)
        assert found.origin == Origin(
            event="issue_comment",
            repository="acme/tiny",
            actor="mona",
            number=7,
            comment_id=99,
            is_pull_request=is_pull_request,
            default_branch="main",
        )


def test_a_wrong_command_gets_help() -> None:
    found = request("issue_comment", events.comment("/ptebot expert"))
    assert (found.verb, found.overrides) == ("help", Overrides())
    assert found.problem == "There is no command 'expert'."


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (events.comment(action="edited"), "edited"),
        (events.comment(action="deleted"), "deleted"),
        (events.comment("Looks good"), "does not begin"),
        (events.comment(issue={"number": 7, "locked": True}), "locked"),
        (events.comment(issue={"number": 7}), "locked"),
        (events.comment(comment={"id": 9, "body": "/ptebot help", "user": events.user("x", "Bot")}), "bot's"),
        (events.comment(comment={"id": 9, "body": "/ptebot help", "user": events.user("ci[bot]")}), "bot's"),
        (events.comment(comment={"id": 9, "body": "/ptebot help", "user": {"login": "x"}}), "bot's"),
        (events.comment(comment={"id": 9, "body": None, "user": events.user()}), "does not begin"),
    ],
)
def test_comments_that_do_nothing(payload: dict[str, Any], said: str) -> None:
    assert said in ignored("issue_comment", payload)


def test_nobody_counts_as_somebody_else() -> None:
    payload = events.comment(sender=events.user("admin"))
    assert request("issue_comment", payload).origin.actor == "mona"
    for login in (None, "a b", "x" * 200, "a\nb", "../x"):
        payload["comment"]["user"]["login"] = login
        with pytest.raises(InvalidEvent, match="login"):
            github.read("issue_comment", payload, ENV)


# pull requests


@pytest.mark.parametrize("action", ["opened", "synchronize", "reopened", "ready_for_review"])
def test_a_pull_request_of_the_repository(action: str) -> None:
    found = request("pull_request", events.pull_request(action))
    assert (found.origin.sha, found.origin.number, found.origin.forked) == (SHA, 7, False)
    assert found.origin.is_pull_request and found.why == "pull request 7"


@pytest.mark.parametrize("head", ["evil/tiny", None])
def test_a_pull_request_from_a_fork(head: str | None) -> None:
    assert request("pull_request", events.pull_request(head=head)).origin.forked
    assert "pull_request_target" in ignored("pull_request_target", events.pull_request(head=head))


def test_a_pull_request_of_dependabot_has_no_secrets_either() -> None:
    payload = {**events.pull_request(), "sender": events.user("dependabot[bot]", "Bot")}
    assert request("pull_request", payload).origin.forked
    assert request("pull_request", events.pull_request(), {**ENV, "GITHUB_ACTOR": "dependabot[bot]"}).origin.forked


def test_a_fork_that_claims_our_branch_name_is_no_push_of_ours() -> None:
    assert request("pull_request", events.pull_request(head="evil/tiny", branch="ptebot/tiny")).origin.forked
    assert "ptebot's own" in ignored("pull_request", events.pull_request(branch="ptebot/tiny"))


def test_pull_request_target_within_the_repository() -> None:
    assert not request("pull_request_target", events.pull_request()).origin.forked


@pytest.mark.parametrize("action", ["closed", "labeled", "edited", "converted_to_draft", None])
def test_actions_that_change_no_file(action: Any) -> None:
    assert "changes no file" in ignored("pull_request", events.pull_request(action))


@pytest.mark.parametrize("name", ["check_run", "workflow_run", "ping", "", "issues", "status", "\n::error::x"])
def test_other_events(name: str) -> None:
    reason = ignored(name, {})
    assert "nothing is done" in reason and "\n" not in reason
