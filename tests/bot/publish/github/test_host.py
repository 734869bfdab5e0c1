"""Publishing to a local GitHub with real git: one pull request per model, whatever happens."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot.errors import (
    BranchProtected,
    CardInvalid,
    GitHubNotAuthorized,
    GitHubNotFound,
    GitHubRateLimited,
    GitHubUnreachable,
    InvalidInput,
    LargeFileRefused,
    OutputNotTrusted,
    PublishFailed,
    RepositoryReadOnly,
    SourceMoved,
    UnsafeRepository,
)
from bot.publish import message
from bot.publish.marker import CLOSED
from bot.publish.splice import BEGIN, current_section
from exporter import report as manifests
from exporter.errors import InvalidModelDirectory, NoGoodCell
from exporter.spec import ExportSpec
from tests.bot import reports
from tests.bot.publish.github.repositories import ATTRIBUTES, CARD, Repository, repository
from tests.localgithub.testing import RunningGitHub

PTE = "executorch/xnnpack/tiny_xnnpack_8da4w.pte"


def test_one_commit_on_one_pull_request(repo: Repository) -> None:
    report = repo.report()
    done = repo.publish(report)
    assert (done.operation, done.pr_num) == ("created", 1)
    assert done.pr_url == f"{repo.github.server_url}/{repo.there.full_name}/pull/1"
    assert repo.pulls() == [(1, "open")]
    assert done.revision == repo.there.head(repo.branch)
    assert len(repo.there.log(repo.branch)) == len(repo.there.log()) + 1
    assert repo.there.log(repo.branch)[0].startswith(f"models/tiny: {message.pr_title(report)}\n\nPtebot-Files: ")
    assert repo.files(repo.branch) - repo.files() == {
        "models/tiny/executorch/.gitattributes",
        "models/tiny/executorch/manifest.json",
        "models/tiny/executorch/quality.svg",
        "models/tiny/executorch/portable/tiny_portable_fp32.pte",
        "models/tiny/executorch/xnnpack/tiny_xnnpack_fp32.pte",
        f"models/tiny/{PTE}",
    }
    assert repo.read("executorch/quality.svg", repo.branch).startswith(b"<?xml"), "not through Git LFS"
    assert repo.read(PTE, repo.branch) == b"xnnpack 8da4w program"
    assert repo.there.files(repo.branch)[f"models/tiny/{PTE}"].startswith(b"version https://git-lfs")
    assert manifests.loads(repo.read("executorch/manifest.json", repo.branch)) == report
    card = repo.read("README.md", repo.branch).decode()
    section = current_section(card.encode())
    assert section is not None and card.startswith(CARD.decode())
    assert "---" not in card.split(BEGIN)[0], "no front matter is made for a README.md on GitHub"
    assert "in [`executorch/`](executorch)" in section
    assert 'repo = "models/tiny"  # in a clone of this repository' in section
    assert "ptebot rebuild --model models/tiny models/tiny/executorch/manifest.json" in section
    assert "ptebot export models/tiny --precision fp32" in section
    assert "huggingface" not in section
    assert repo.there.files(repo.branch)["README.md"] == b"# All\n"
    issue = repo.there.repo.issues[1]
    assert issue.title == f"models/tiny: {message.pr_title(report)}"
    assert issue.author.login == "github-actions[bot]"
    assert message.marker_of(report).line() in repo.description()
    assert "folder `models/tiny`" in repo.description() and "Git LFS" in repo.description()


def test_the_model_at_the_root(github: RunningGitHub, tmp_path: Path) -> None:
    repo = repository(github, tmp_path, folder=".")
    assert repo.publish(repo.report()).operation == "created"
    assert "ptebot/executorch" in repo.there.branches()
    assert PTE in repo.files(repo.branch) and "executorch/.gitattributes" in repo.files(repo.branch)
    assert repo.there.files(repo.branch)[".gitattributes"] == ATTRIBUTES
    assert repo.publish(repo.report()).operation == "unchanged"


def test_a_model_card_keeps_its_front_matter_and_gets_the_tag(github: RunningGitHub, tmp_path: Path) -> None:
    repo = repository(github, tmp_path)
    repo.push({"README.md": b"---\nlicense: mit\n---\n# Tiny\n"})
    repo.publish(repo.report())
    assert repo.read("README.md", repo.branch).startswith(b"---\nlicense: mit\ntags:\n- executorch\n---\n# Tiny\n")


def test_two_models_of_one_repository_have_two_pull_requests(repo: Repository) -> None:
    repo.publish(repo.report())
    other = Repository(repo.github, repo.there, repo.token, repo.scratch, "models/other")
    other.push({**reports.MODEL_FILES, "config.json": b'{"other": 1}'})
    files = {**reports.MODEL_FILES, "config.json": b'{"other": 1}'}
    assert other.publish(other.report(files=files)).pr_num == 2
    assert repo.publish(repo.report()).pr_num == 1
    assert repo.pulls() == [(1, "open"), (2, "open")]


def test_the_same_again_is_unchanged_and_sends_nothing(repo: Repository) -> None:
    repo.publish(repo.report())
    repo.github.clear()
    done = repo.publish(repo.report(seconds=99.0))
    assert (done.operation, done.pr_num) == ("unchanged", 1)
    assert repo.writes() == []


def test_a_source_that_moved_refreshes_the_same_pull_request(repo: Repository) -> None:
    repo.publish(repo.report())
    repo.push({"model.safetensors": b"other weights", "README.md": CARD.replace(b"# Tiny", b"# Tiny 2")})
    files = {**reports.MODEL_FILES, "model.safetensors": b"other weights"}
    report = repo.report([reports.cell("xnnpack", content=b"new program"), reports.failed()], files=files)
    contents = {"xnnpack/tiny_xnnpack_fp32.pte": b"new program"}
    done = repo.publish(report, contents)
    assert (done.operation, done.pr_num) == ("updated", 1)
    assert repo.pulls() == [(1, "open")]
    published = {path for path in repo.files(repo.branch) if "/executorch/" in path}
    assert published == {
        "models/tiny/executorch/.gitattributes",
        "models/tiny/executorch/manifest.json",
        "models/tiny/executorch/xnnpack/tiny_xnnpack_fp32.pte",
    }
    assert repo.read("executorch/xnnpack/tiny_xnnpack_fp32.pte", repo.branch) == b"new program"
    assert b"# Tiny 2" in repo.read("README.md", repo.branch)
    assert "the compiler gave up" in repo.description()
    assert repo.there.repo.issues[1].title == f"models/tiny: {message.pr_title(report)}"
    assert repo.publish(report, contents).operation == "unchanged"


def test_files_of_others_below_our_folder_stay(repo: Repository) -> None:
    theirs = {"executorch/theirs.pte": b"x" * 2000, "executorch/.gitattributes": b"*.bin -text"}
    repo.push(dict(theirs))
    repo.publish(repo.report())
    repo.publish(repo.report([reports.cell("portable")]))
    assert repo.read("executorch/theirs.pte", repo.branch) == b"x" * 2000
    assert repo.read("executorch/.gitattributes", repo.branch).splitlines() == [
        b"*.bin -text",
        b"*.pte filter=lfs diff=lfs merge=lfs -text",
    ]
    assert "models/tiny/executorch/xnnpack/tiny_xnnpack_fp32.pte" not in repo.files(repo.branch)


@pytest.mark.parametrize("method", ["merge", "squash"])
@pytest.mark.parametrize("delete", [True, False])
def test_a_merged_one_is_unchanged_and_the_next_source_opens_another(
    repo: Repository, method: str, delete: bool
) -> None:
    report = repo.report()
    repo.publish(report)
    repo.merge(1, method)
    if delete:
        repo.there.delete_branch(repo.branch)
    done = repo.publish(repo.report(seconds=9.0))
    assert (done.operation, done.pr_url, done.revision) == ("unchanged", None, repo.head)
    repo.push({"config.json": b'{"model_type": "llama", "x": 1}'})
    files = {**reports.MODEL_FILES, "config.json": b'{"model_type": "llama", "x": 1}'}
    done = repo.publish(repo.report([reports.cell("portable")], files=files))
    assert (done.operation, done.pr_num) == ("created", 2)
    assert "models/tiny/executorch/xnnpack/tiny_xnnpack_fp32.pte" not in repo.files(repo.branch)
    assert repo.there.log(repo.branch)[1:] == repo.there.log()


def test_one_that_the_owner_closed_stays_closed_for_these_weights(repo: Repository) -> None:
    repo.publish(repo.report())
    repo.there.close(1)
    done = repo.publish(repo.report([reports.cell("portable")]))
    assert (done.operation, done.pr_num) == ("none", 1)
    assert "closed" in done.reason and "reopen it on GitHub" in done.reason
    repo.push({"model.safetensors": b"new weights"})
    files = {**reports.MODEL_FILES, "model.safetensors": b"new weights"}
    assert repo.publish(repo.report(files=files)).operation == "created"
    assert repo.pulls() == [(1, "closed"), (2, "open")]


def test_pull_requests_of_others_are_not_ours_even_with_our_marker(repo: Repository) -> None:
    text = message.pr_description(repo.report())
    owner = repo.client(repo.github.create_user("acme"))
    repo.there.commit({"x.txt": b"x"}, branch=repo.branch)
    body = {"title": "Add ExecuTorch files", "body": text, "head": repo.branch, "base": "main"}
    owner.call("POST", f"/repos/{repo.there.full_name}/pulls", body=body)
    with pytest.raises(PublishFailed, match="commits that are not ptebot's"):
        repo.publish(repo.report())
    assert repo.pulls() == [(1, "open")]
    assert repo.there.files(repo.branch)["x.txt"] == b"x"


def test_another_token_finds_what_the_first_one_opened(repo: Repository) -> None:
    repo.publish(repo.report())
    owner = repo.client(repo.github.create_user("acme"))
    assert repo.publish(repo.report(), client=owner).operation == "unchanged"
    assert repo.publish(repo.report([reports.cell("portable")]), client=owner).operation == "updated"
    assert repo.pulls() == [(1, "open")]
    repo.there.close(1)
    assert repo.publish(repo.report(), client=owner).operation == "none"


def test_an_lfs_server_elsewhere_is_told(repo: Repository) -> None:
    repo.there.commit({".lfsconfig": b"[lfs]\n\turl = https://lfs.example/\n"})
    with pytest.raises(LargeFileRefused, match="another server"):
        repo.publish(repo.report())
    assert repo.writes() == []
    repo.there.commit({".lfsconfig": b"[lfs]\n\tfetchexclude = *.bin\n"})
    assert repo.publish(repo.report()).operation == "created"


def test_a_branch_of_others_is_not_overwritten(repo: Repository) -> None:
    tip = repo.there.commit({"x.txt": b"x"}, branch=repo.branch)
    with pytest.raises(PublishFailed, match=f"{repo.branch} .* not ptebot's"):
        repo.publish(repo.report())
    assert repo.there.head(repo.branch) == tip


def test_a_conflict_is_merged_without_losing_history(repo: Repository) -> None:
    repo.publish(repo.report())
    before = repo.there.head(repo.branch)
    repo.push({"README.md": CARD + b"\nRewritten.\n\nAnd longer at its very end.\n"})
    done = repo.publish(repo.report())
    assert (done.operation, done.pr_num) == ("updated", 1)
    assert repo.pulls() == [(1, "open")]
    card = repo.read("README.md", repo.branch)
    assert b"And longer at its very end." in card and card.count(BEGIN.encode()) == 1
    commit = repo.there.repo.git[str(repo.there.head(repo.branch))]
    assert [str(one) for one in commit.parent_ids] == [before, repo.head]
    repo.github.clear()
    assert repo.publish(repo.report()).operation == "unchanged"
    repo.merge(1)


def test_a_conflict_with_changes_of_others_is_left_to_them(repo: Repository) -> None:
    repo.publish(repo.report())
    repo.there.commit({"notes.txt": b"a reviewer's"}, branch=repo.branch)
    repo.push({"README.md": CARD + b"\nRewritten.\n"})
    with pytest.raises(PublishFailed, match=r"not ptebot's: notes\.txt"):
        repo.publish(repo.report())


def test_a_refresh_keeps_changes_of_others(repo: Repository) -> None:
    repo.publish(repo.report())
    repo.there.commit({"notes.txt": b"a reviewer's"}, branch=repo.branch)
    assert repo.publish(repo.report([reports.cell("portable")])).operation == "updated"
    assert repo.there.files(repo.branch)["notes.txt"] == b"a reviewer's"


def test_what_is_pushed_to_the_branch_meanwhile_is_not_lost(repo: Repository) -> None:
    repo.publish(repo.report())

    def review() -> None:
        repo.there.commit({"notes.txt": b"a reviewer's"}, branch=repo.branch)

    repo.github.meanwhile(r"/git/trees$", review, method="POST")
    assert repo.publish(repo.report([reports.cell("portable")])).operation == "updated"
    assert repo.there.files(repo.branch)["notes.txt"] == b"a reviewer's"
    assert "Edit" in repo.there.log(repo.branch)[1]


def test_a_branch_that_never_stands_still_is_told(repo: Repository) -> None:
    repo.publish(repo.report())
    for number in range(20):
        files: dict[str, bytes | None] = {"notes.txt": str(number).encode()}
        repo.github.meanwhile(
            r"/git/trees$", lambda files=files: repo.there.commit(files, branch=repo.branch), method="POST"
        )
    with pytest.raises(PublishFailed, match="went on so"):
        repo.publish(repo.report([reports.cell("portable")]))


def test_an_upload_tells_how_far_it_is(repo: Repository) -> None:
    content = b"x" * (30 << 20)
    said: list[str] = []
    report = repo.report([reports.cell("xnnpack", content=content)])
    repo.publish(report, {"xnnpack/tiny_xnnpack_fp32.pte": content}, said=said)
    assert [one for one in said if "Git LFS" in one] == [
        f"uploading to Git LFS: {percent}% of 31.5 MB" for percent in range(0, 101, 10)
    ]


def test_another_base(repo: Repository) -> None:
    repo.push({"config.json": b'{"dev": 1}'}, branch="dev")
    files = {**reports.MODEL_FILES, "config.json": b'{"dev": 1}'}
    report = repo.report(files=files)
    with pytest.raises(SourceMoved, match=r"branch main of .* config\.json"):
        repo.publish(report)
    assert repo.publish(report, base="dev").operation == "created"
    pull = repo.there.repo.issues[1].pull
    assert pull is not None and pull.base == "dev"
    with pytest.raises(GitHubNotFound, match="no branch 'nothing'"):
        repo.publish(report, base="nothing")
    assert repo.publish(repo.report(), base="main").pr_num == 2, "each branch has a pull request of its own"
    assert repo.publish(report, base="dev").pr_num == 1
    assert repo.publish(repo.report()).pr_num == 2, "the default branch, named or not, is one"
    assert repo.there.branches() == ["dev", "main", "ptebot/models--tiny", "ptebot/models--tiny@dev"]


def test_several_open_ones_become_one(repo: Repository) -> None:
    repo.publish(repo.report())
    repo.there.commit({"x.txt": b"x"}, branch="dev")
    body = {"title": "Twice", "body": repo.description(), "head": repo.branch, "base": "dev"}
    repo.client().call("POST", f"/repos/{repo.there.full_name}/pulls", body=body)
    assert repo.publish(repo.report()).operation == "unchanged"
    assert repo.pulls() == [(1, "open"), (2, "closed")]
    assert CLOSED in repo.description(2) and "pull request 1" in repo.description(2)


def test_a_dry_run_shows_everything_and_changes_nothing(repo: Repository) -> None:
    report = repo.report()
    for client in (repo.client(), repo.client(None)):
        done = repo.publish(report, dry_run=True, client=client)
        assert (done.operation, done.pr_url) == ("created", None)
        assert done.preview is not None
        assert done.preview.title == f"models/tiny: {message.pr_title(report)}"
        assert [path for path, _ in done.preview.files] == [
            "models/tiny/executorch/.gitattributes",
            "models/tiny/executorch/portable/tiny_portable_fp32.pte",
            "models/tiny/executorch/xnnpack/tiny_xnnpack_fp32.pte",
            f"models/tiny/{PTE}",
            "models/tiny/executorch/quality.svg",
            "models/tiny/executorch/manifest.json",
            "models/tiny/README.md",
        ]
        assert "+## ExecuTorch\n" in done.preview.card_diff and "+---" not in done.preview.card_diff
        assert repo.writes() == []
    repo.publish(report)
    done = repo.publish(repo.report([reports.cell("portable")]), dry_run=True)
    assert (done.operation, done.pr_num) == ("updated", 1)


def test_what_is_not_there_to_be_published(repo: Repository) -> None:
    with pytest.raises(NoGoodCell):
        repo.publish(repo.report([reports.failed()]))
    repo.push({"model.safetensors": b"newer"})
    with pytest.raises(SourceMoved, match=r"model\.safetensors"):
        repo.publish(repo.report())
    with pytest.raises(GitHubNotFound, match="no folder models/nothing"):
        repo.publish(repo.report(), folder="models/nothing")
    with pytest.raises(InvalidInput):
        repo.target(folder="../x")
    with pytest.raises(InvalidInput):
        repo.target(repository="acme")
    assert repo.writes() == []


@pytest.mark.parametrize("card", [b"# T\n```\nnever closed\n", b"# T\n<!-- ptebot:begin -->\n", b"\xff\xfe# T\n"])
def test_a_card_that_cannot_be_edited_opens_nothing(repo: Repository, card: bytes) -> None:
    repo.push({"README.md": card})
    with pytest.raises(CardInvalid):
        repo.publish(repo.report())
    assert repo.writes() == []


def test_a_folder_without_a_card_gets_one(github: RunningGitHub, tmp_path: Path) -> None:
    repo = repository(github, tmp_path, files=dict(reports.MODEL_FILES))
    repo.publish(repo.report())
    assert repo.read("README.md", repo.branch).startswith(BEGIN.encode())


def test_a_file_that_is_not_what_the_report_says_is_not_sent(repo: Repository) -> None:
    report = repo.report()
    with pytest.raises(OutputNotTrusted):
        repo.publish(report, {"xnnpack/tiny_xnnpack_8da4w.pte": b"Xnnpack 8da4w program"})
    assert not repo.pulls() and repo.branch not in repo.there.branches()


# -- before the export ---------------------------------------------------------------------------------------------


def listed(files: dict[str, bytes], folder: Path) -> dict[str, object]:
    from bot.sources import LocalModel

    for name, data in files.items():
        (folder / name).write_bytes(data)
    return dict(LocalModel(folder).tree)


def test_asked_before_the_export(repo: Repository, tmp_path: Path) -> None:
    report = repo.report()
    tree = listed(reports.MODEL_FILES, tmp_path)
    assert repo.target().ask(tree, report.spec, report.toolchain) is None  # type: ignore[arg-type]
    repo.publish(report)
    ended = repo.target().ask(tree, report.spec, report.toolchain)  # type: ignore[arg-type]
    assert ended is not None and (ended.operation, ended.pr_num) == ("unchanged", 1)
    assert repo.target().ask(tree, ExportSpec(max_seq_len=64), report.toolchain) is None  # type: ignore[arg-type]
    repo.there.close(1)
    repo.there.delete_branch(repo.branch)
    ended = repo.target().ask(tree, report.spec, report.toolchain)  # type: ignore[arg-type]
    assert ended is not None and (ended.operation, ended.pr_num) == ("none", 1)


def test_a_checkout_without_lfs_is_told_with_the_remedy(repo: Repository, tmp_path: Path) -> None:
    bare = {name: repo.there.files()[f"models/tiny/{name}"] for name in reports.MODEL_FILES}
    with pytest.raises(InvalidModelDirectory, match=r"model\.safetensors") as caught:
        repo.target().ask(listed(bare, tmp_path), ExportSpec(), {})  # type: ignore[arg-type]
    assert "lfs: true" in (caught.value.advice or "")
    other = listed({**reports.MODEL_FILES, "config.json": b"{}"}, tmp_path)
    with pytest.raises(SourceMoved, match=r"config\.json"):
        repo.target().ask(other, ExportSpec(), {})  # type: ignore[arg-type]


# -- rights, rules, limits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rights", "missing"),
    [
        ({"contents": "read", "pull_requests": "write"}, "contents: write"),
        ({"contents": "write", "pull_requests": "read"}, "pull-requests: write"),
    ],
)
def test_the_missing_right_is_named(repo: Repository, rights: dict[str, str], missing: str) -> None:
    client = repo.client(repo.github.installation_token(repo.there, rights))
    with pytest.raises(GitHubNotAuthorized, match=missing):
        repo.publish(repo.report(), client=client)
    assert repo.pulls() == []


@pytest.mark.parametrize(
    ("rights", "missing"),
    [
        ({"contents": "read", "pull_requests": "write"}, "contents: write"),
        ({"contents": "write", "pull_requests": "read"}, "pull-requests: write"),
        ({"contents": "write", "pull_requests": "write"}, None),
    ],
)
def test_it_is_named_before_the_export(repo: Repository, rights: dict[str, str], missing: str | None) -> None:
    before = repo.there.branches()
    target = repo.target(client=repo.client(repo.github.installation_token(repo.there, rights)))
    if missing is None:
        target.ready()
        repo.there.repo.actions_may_open_pulls = False
        with pytest.raises(GitHubNotAuthorized, match="not permitted"):
            target.ready()
    else:
        with pytest.raises(GitHubNotAuthorized, match=missing):
            target.ready()
    assert repo.pulls() == [] and repo.there.branches() == before


@pytest.mark.parametrize("action", ["drop", 502, 422])
def test_trouble_before_the_export_is_no_reason_to_stop(repo: Repository, action: str | int) -> None:
    repo.github.fail(r"/(git/blobs|pulls)$", action, method="POST", times=2)  # type: ignore[arg-type]
    repo.target().ready()
    assert repo.pulls() == []


def test_tokens_that_are_none(repo: Repository) -> None:
    with pytest.raises(GitHubNotAuthorized, match="without a token"):
        repo.publish(repo.report(), client=repo.client(None))
    with pytest.raises(GitHubNotAuthorized, match="Bad credentials"):
        repo.publish(repo.report(), client=repo.client("ghs_wrongwrongwrong"))


def test_actions_that_may_not_open_pull_requests(repo: Repository) -> None:
    repo.there.repo.actions_may_open_pulls = False
    with pytest.raises(GitHubNotAuthorized) as caught:
        repo.publish(repo.report())
    assert "Actions, General" in (caught.value.advice or "")
    repo.there.repo.actions_may_open_pulls = True
    left = repo.there.head(repo.branch)
    repo.github.clear()
    assert repo.publish(repo.report()).operation == "created"
    assert repo.there.head(repo.branch) == left, "the branch that was left is used"
    assert repo.writes() == ["POST /pulls"]


@pytest.mark.parametrize("rule", ["creation", "update"])
def test_a_protected_branch(repo: Repository, rule: str) -> None:
    if rule == "update":
        repo.publish(repo.report())
    repo.there.protect("ptebot/*", rule)
    with pytest.raises(BranchProtected):
        repo.publish(repo.report([reports.cell("portable")]))


def test_an_archived_repository(repo: Repository) -> None:
    repo.there.repo.archived = True
    with pytest.raises(RepositoryReadOnly):
        repo.publish(repo.report())


def test_a_renamed_repository_is_followed_and_told(repo: Repository) -> None:
    old = repo.there.full_name
    repo.publish(repo.report())
    repo.there.rename(f"{repo.there.repo.name}-renamed")
    said: list[str] = []
    done = repo.publish(repo.report([reports.cell("portable")]), repository=old, said=said)
    assert (done.operation, done.pr_num) == ("updated", 1)
    assert f"{old} is called {repo.there.full_name} now" in said


def test_a_model_at_the_root_of_one_that_was_renamed(github: RunningGitHub, tmp_path: Path) -> None:
    repo = repository(github, tmp_path, folder=".")
    repo.publish(repo.report())
    repo.there.rename(f"{repo.there.repo.name}-renamed")
    assert repo.publish(repo.report()).operation == "unchanged"
    assert repo.pulls() == [(1, "open")]


def test_one_that_is_renamed_meanwhile(repo: Repository) -> None:
    old = repo.there.full_name
    new = f"{repo.there.repo.name}-elsewhere"
    repo.github.meanwhile(r"/git/trees$", lambda: repo.there.rename(new), method="POST")
    assert repo.publish(repo.report(), repository=old).operation == "created"
    assert repo.pulls() == [(1, "open")]


def test_a_repository_that_is_gone(repo: Repository) -> None:
    with pytest.raises(GitHubNotFound):
        repo.publish(repo.report(), repository="acme/nothing-here")


def test_a_limit_that_is_far_is_told(repo: Repository) -> None:
    repo.github.primary_limit(r"/git/trees$", 1800, method="POST")
    with pytest.raises(GitHubRateLimited, match="UTC"):
        repo.publish(repo.report())
    assert repo.publish(repo.report()).operation == "created"


def test_a_limit_that_is_near_is_waited_for(repo: Repository) -> None:
    repo.github.secondary_limit(r"/pulls$", 0, method="POST")
    assert repo.publish(repo.report()).operation == "created"
    assert repo.pulls() == [(1, "open")]


def test_a_file_beyond_the_plans_limit(repo: Repository) -> None:
    repo.there.repo.lfs.max_file = 20
    with pytest.raises(LargeFileRefused, match=r"tiny_portable_fp32\.pte \(21 bytes\).*limit is 20 bytes") as caught:
        repo.publish(repo.report())
    assert "storage: release" in (caught.value.advice or "")
    assert repo.pulls() == [] and repo.branch not in repo.there.branches()


@pytest.mark.parametrize("status", [403, 507, 422])
def test_a_full_storage(repo: Repository, status: int) -> None:
    repo.there.repo.lfs.quota, repo.there.repo.lfs.quota_status = 30, status
    with pytest.raises(LargeFileRefused, match="budget"):
        repo.publish(repo.report())


def test_things_that_are_no_folders_and_no_files(github: RunningGitHub, tmp_path: Path) -> None:
    repo = repository(github, tmp_path)
    repo.push({"executorch": b"a file"})
    with pytest.raises(UnsafeRepository, match="no folder"):
        repo.publish(repo.report())


def test_a_github_that_is_away(repo: Repository) -> None:
    repo.github.fail(rf"/repos/{repo.there.full_name}$", 503, times=50)
    with pytest.raises(GitHubUnreachable, match="503"):
        repo.publish(repo.report())
