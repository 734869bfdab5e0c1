"""All that the client needs of the Hub, done once, and every body held against the Hub's OpenAPI description."""

from __future__ import annotations

import os

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from bot.localhub.testing import Exchange, RunningHub
from tests.bot.localhub.openapi import SPEC, Description, closed

MUST_BE_CHECKED = {
    "GET /api/whoami-v2 response 200",
    "POST /api/repos/create request",
    "POST /api/repos/create response 200",
    "POST /api/repos/create response 409",
    "POST /api/repos/move request",
    "POST /api/models/{namespace}/{repo}/preupload/{rev} request",
    "POST /api/models/{namespace}/{repo}/preupload/{rev} response 200",
    "GET /api/models/{namespace}/{repo}/xet-write-token/{rev} response 200",
    "GET /api/models/{namespace}/{repo}/xet-read-token/{rev} response 200",
    "POST /api/models/{namespace}/{repo}/commit/{rev} response 200",
    "GET /api/models/{namespace}/{repo}/refs response 200",
    "GET /api/models/{namespace}/{repo}/commits/{rev} response 200",
    "GET /api/models/{namespace}/{repo}/tree/{rev}/{path} response 200",
    "GET /api/models/{namespace}/{repo}/compare/{compare} response 200",
    "POST /api/models/{namespace}/{repo}/paths-info/{rev} request",
    "POST /api/models/{namespace}/{repo}/paths-info/{rev} response 200",
    "POST /api/models/{namespace}/{repo}/branch/{rev} request",
    "POST /api/models/{namespace}/{repo}/tag/{rev} request",
    "PUT /api/models/{namespace}/{repo}/settings request",
    "PUT /api/models/{namespace}/{repo}/settings response 200",
    "GET /api/{repoType}/{namespace}/{repo}/discussions response 200",
    "POST /api/{repoType}/{namespace}/{repo}/discussions request",
    "POST /api/{repoType}/{namespace}/{repo}/discussions response 200",
    "GET /api/{repoType}/{namespace}/{repo}/discussions/{num} response 200",
    "POST /api/{repoType}/{namespace}/{repo}/discussions/{num}/comment request",
    "POST /api/{repoType}/{namespace}/{repo}/discussions/{num}/comment response 201",
    "POST /api/{repoType}/{namespace}/{repo}/discussions/{num}/status request",
    "POST /api/{repoType}/{namespace}/{repo}/discussions/{num}/status response 200",
    "POST /api/{repoType}/{namespace}/{repo}/discussions/{num}/title request",
    "POST /api/{repoType}/{namespace}/{repo}/discussions/{num}/title response 200",
    "POST /api/{repoType}/{namespace}/{repo}/discussions/{num}/merge request",
    "GET /api/settings/webhooks response 200",
    "POST /api/settings/webhooks request",
    "POST /api/settings/webhooks response 200",
    "GET /api/settings/webhooks/{webhookId} response 200",
    "POST /api/settings/webhooks/{webhookId} request",
    "POST /api/settings/webhooks/{webhookId} response 200",
    "POST /api/settings/webhooks/{webhookId}/{action} response 200",
    "DELETE /api/settings/webhooks/{webhookId} response 200",
}
UNDESCRIBED = {
    "api/validate-yaml",
    "auth-check",
    "/edit",
    "/hide",
    "/api/models/alice",
    "/api/repos/delete",
    "api/localhub",
}


@pytest.fixture(scope="module")
def spec() -> Description:
    if not SPEC.is_file():
        pytest.skip("the Hub's OpenAPI description is not beside this checkout")
    return Description()


def journey(owner: HfApi, other: HfApi, http) -> None:
    """Every call once, by the real client where it has it."""
    repo = owner.create_repo("alice/journey").repo_id
    owner.create_repo(repo, exist_ok=True)
    owner.auth_check(repo, write=True)
    files = {"README.md": b"---\ntags: [a]\n---\n# A\n", "m.safetensors": os.urandom(5000), "d/c.json": b"{}"}
    head = owner.create_commit(repo, [CommitOperationAdd(*item) for item in files.items()], commit_message="first")
    owner.hf_hub_download(repo, "m.safetensors")
    owner.model_info(repo, files_metadata=True)
    list(owner.list_repo_tree(repo, recursive=True, expand=True))
    owner.get_paths_info(repo, ["README.md", "m.safetensors", "d"], expand=True)
    owner.list_repo_commits(repo)
    owner.create_branch(repo, branch="b", revision=head.oid)
    owner.create_tag(repo, tag="t", tag_message="m")
    pr = other.create_commit(
        repo, [CommitOperationAdd("e/x.pte", os.urandom(3000))], commit_message="pte", create_pr=True
    )
    other.create_commit(repo, [CommitOperationAdd("f", b"1")], commit_message="f", revision=pr.pr_revision)
    owner.list_repo_refs(repo, include_pull_requests=True)
    http.get(f"/api/models/{repo}/compare/main..refs%2Fpr%2F1")
    list(owner.get_repo_discussions(repo))
    comment = owner.comment_discussion(repo, 1, "hm")
    owner.edit_discussion_comment(repo, 1, comment.id, "well")
    owner.rename_discussion(repo, 1, "other title")
    owner.change_discussion_status(repo, 1, "closed", comment="no")
    owner.change_discussion_status(repo, 1, "open")
    owner.merge_pull_request(repo, 1, comment="yes")
    owner.get_discussion_details(repo, 1)
    talk = other.create_discussion(repo, "a talk", description="x")
    said = other.comment_discussion(repo, talk.num, "y")
    with pytest.warns(UserWarning, match="irreversible"):
        other.hide_discussion_comment(repo, talk.num, said.id)
    owner.get_discussion_details(repo, talk.num)
    other.create_pull_request(repo, "a draft", description="z")
    hook = owner.create_webhook(url="http://127.0.0.1:9/", watched=[{"type": "model", "name": repo}], secret="s")
    owner.get_webhook(hook.id)
    owner.update_webhook(hook.id, watched=[{"type": "user", "name": "alice"}])
    owner.disable_webhook(hook.id)
    owner.enable_webhook(hook.id)
    owner.list_webhooks()
    owner.delete_webhook(hook.id)
    owner.update_repo_settings(repo, private=True)
    owner.whoami()
    owner.delete_tag(repo, tag="t")
    owner.delete_branch(repo, branch="b")
    owner.move_repo(repo, "alice/journey-2")
    owner.delete_repo("alice/journey-2")


def test_every_body_fits_the_description(
    hub: RunningHub, spec: Description, as_user, alice: HfApi, bot: HfApi, http
) -> None:
    as_user("alice", orgs={"club": "admin"})
    before = len(hub.traffic)
    journey(alice, bot, http)
    verdict = spec.check(hub.traffic[before:])
    assert verdict.errors == []
    assert set(verdict.checked) >= MUST_BE_CHECKED, "some call was not held against the description"
    strange = {path for path in verdict.unknown if not any(part in path for part in UNDESCRIBED)}
    assert strange == set(), "these calls are described nowhere"


def exchange(method: str, path: str, *, sent: object = None, status: int = 200, got: object = None) -> Exchange:
    return Exchange(method, path, "", "application/json", sent, status, "application/json", got)


def test_the_checker_finds_what_is_wrong(spec: Description) -> None:
    wrong = [
        exchange("POST", "/api/repos/create", sent={"name": 5}, got={"url": "u", "name": "n", "id": "a" * 24}),
        exchange("POST", "/api/repos/create", sent={"name": "n"}, got={"url": "u", "name": "n", "id": "short"}),
        exchange("POST", "/api/repos/create", sent={"name": "n"}, status=201, got={}),
        exchange("GET", "/api/models/a/b/refs", got={"branches": [], "tags": []}),
        exchange("GET", "/api/models/a/b/tree/main", got=[{"type": "planet", "oid": "x", "path": "p"}]),
        exchange("POST", "/api/models/a/b/discussions/1/title", sent={"title": "t"}, got={"newTitle": {"id": "x"}}),
        exchange("GET", "/api/models/a/b/discussions/1", got={"title": "x", "extra": 1}),
    ]
    for item in wrong:
        assert spec.check([item]).errors, item
    assert spec.check([exchange("GET", "/api/nothing/known")]).unknown == {"GET /api/nothing/known"}


def test_closing_an_intersection_keeps_strangers_out() -> None:
    from jsonschema import Draft202012Validator

    sides = [
        {"type": "object", "properties": {name: {"type": "string"}}, "additionalProperties": False} for name in "ab"
    ]
    schema = closed({"allOf": sides})
    assert not list(Draft202012Validator(schema).iter_errors({"a": "x", "b": "y"}))
    assert list(Draft202012Validator(schema).iter_errors({"a": "x", "c": "y"}))
