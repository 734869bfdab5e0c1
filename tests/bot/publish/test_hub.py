"""Publishing against a real Hub on this machine: one pull request per repository, whatever happens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from huggingface_hub import HfApi

from bot.localhub.testing import RunningHub
from bot.publish import message
from bot.publish.quality import PLOT
from bot.publish.splice import BEGIN, current_section
from exporter import report as manifests
from tests.bot import reports
from tests.bot.hubs import CARD, Repository, repository


def test_one_commit_on_one_pull_request(repo: Repository) -> None:
    report = repo.report()
    done = repo.publish(report)
    assert (done.operation, done.pr_num) == ("created", 1)
    assert done.pr_url == f"{repo.hub.endpoint}/{repo.repo_id}/discussions/1"
    assert repo.pulls() == [(1, "open")]
    assert repo.commits("refs/pr/1")[0] == message.pr_title(report)
    assert len(repo.commits("refs/pr/1")) == len(repo.commits("main")) + 1
    assert done.revision == repo.owner.model_info(repo.repo_id, revision="refs/pr/1").sha
    assert repo.files("refs/pr/1") - repo.files() == {
        "executorch/manifest.json",
        "executorch/quality.svg",
        "executorch/portable/tiny_portable_fp32.pte",
        "executorch/xnnpack/tiny_xnnpack_fp32.pte",
        "executorch/xnnpack/tiny_xnnpack_8da4w.pte",
    }
    assert repo.read("executorch/xnnpack/tiny_xnnpack_8da4w.pte", "refs/pr/1") == b"xnnpack 8da4w program"
    assert manifests.loads(repo.read("executorch/manifest.json", "refs/pr/1")) == report
    card = repo.read("README.md", "refs/pr/1").decode()
    section = current_section(card.encode())
    assert section is not None
    owners = card.replace("tags:\n- executorch\n", "").replace(f"\n{section}\n", "")
    assert owners.encode() == CARD
    details = repo.owner.get_discussion_details(repo.repo_id, 1)
    assert (details.title, details.author, details.conflicting_files) == (message.pr_title(report), "ptebot-user", [])
    assert repo.description() == message.pr_description(report)


def test_the_same_again_is_unchanged_and_sends_nothing(repo: Repository) -> None:
    repo.publish(repo.report())
    commits = repo.commits("refs/pr/1")
    repo.hub.traffic.clear()
    done = repo.publish(repo.report(seconds=99.0))
    assert (done.operation, done.pr_num) == ("unchanged", 1)
    assert "already" in done.reason
    assert {one.method for one in repo.hub.traffic if "paths-info" not in one.path} <= {"GET", "HEAD"}
    assert repo.commits("refs/pr/1") == commits


def test_a_source_that_moved_refreshes_the_same_pull_request(repo: Repository) -> None:
    repo.publish(repo.report())
    files = {**reports.MODEL_FILES, "model.safetensors": b"other weights"}
    repo.push({"model.safetensors": b"other weights", "README.md": CARD.replace(b"# Tiny", b"# Tiny 2")})
    report = repo.report([reports.cell("xnnpack", content=b"new program"), reports.failed()], files=files)
    done = repo.publish(report, {"xnnpack/tiny_xnnpack_fp32.pte": b"new program"})
    assert (done.operation, done.pr_num) == ("updated", 1)
    assert repo.pulls() == [(1, "open")]
    published = {path for path in repo.files("refs/pr/1") if path.startswith("executorch/")}
    assert published == {"executorch/manifest.json", "executorch/xnnpack/tiny_xnnpack_fp32.pte"}
    assert repo.read("executorch/xnnpack/tiny_xnnpack_fp32.pte", "refs/pr/1") == b"new program"
    assert b"# Tiny 2" in repo.read("README.md", "refs/pr/1")
    assert repo.description() == message.pr_description(report)
    assert "the compiler gave up" in repo.description()
    details = repo.owner.get_discussion_details(repo.repo_id, 1)
    assert details.title == "Add ExecuTorch files: xnnpack (fp32)" == message.pr_title(report)
    assert not details.conflicting_files
    assert repo.publish(report, {"xnnpack/tiny_xnnpack_fp32.pte": b"new program"}).operation == "unchanged"


def test_files_of_others_below_our_folder_stay(repo: Repository) -> None:
    repo.push({"executorch/theirs.pte": b"theirs", "executorch/xnnpack/notes.txt": b"notes"})
    repo.publish(repo.report())
    repo.publish(repo.report([reports.cell("portable")]))
    below = {path for path in repo.files("refs/pr/1") if path.startswith("executorch/")}
    assert below == {
        "executorch/manifest.json",
        "executorch/portable/tiny_portable_fp32.pte",
        "executorch/theirs.pte",
        "executorch/xnnpack/notes.txt",
    }


def test_the_plot_goes_with_what_the_card_shows(repo: Repository) -> None:
    repo.publish(repo.report())
    first = repo.read(PLOT, "refs/pr/1")
    assert b"xnnpack 8da4w" in first and f"]({PLOT})" in repo.read("README.md", "refs/pr/1").decode()
    worse = reports.cell("xnnpack", "8da4w", quality=reports.measured(0.8, "damaged"), content=b"worse")
    assert repo.publish(repo.report([worse]), {worse.file or "": b"worse"}).operation == "updated"
    second = repo.read(PLOT, "refs/pr/1")
    assert second != first and b"KL 0.8" in second
    assert repo.publish(repo.report([worse]), {worse.file or "": b"worse"}).operation == "unchanged"
    repo.publish(repo.report([reports.cell("portable")]))
    assert PLOT not in repo.files("refs/pr/1"), "nothing was quantized any more"
    assert PLOT not in repo.read("README.md", "refs/pr/1").decode()


def test_a_plot_of_others_stays(repo: Repository) -> None:
    repo.push({PLOT: b"<svg/>"})
    repo.publish(repo.report([reports.cell("portable")]))
    assert repo.read(PLOT, "refs/pr/1") == b"<svg/>"


def test_a_merged_pull_request_is_unchanged_and_the_next_source_opens_another(repo: Repository) -> None:
    report = repo.report()
    repo.publish(report)
    repo.owner.merge_pull_request(repo.repo_id, 1)
    done = repo.publish(repo.report(seconds=9.0))
    assert (done.operation, done.pr_url, done.revision) == ("unchanged", None, repo.head)
    assert "main branch" in done.reason
    repo.push({"config.json": b'{"model_type": "llama", "x": 1}'})
    files = {**reports.MODEL_FILES, "config.json": b'{"model_type": "llama", "x": 1}'}
    done = repo.publish(repo.report([reports.cell("portable")], files=files))
    assert (done.operation, done.pr_num) == ("created", 2)
    assert repo.pulls() == [(1, "merged"), (2, "open")]
    assert "executorch/xnnpack/tiny_xnnpack_fp32.pte" not in repo.files("refs/pr/2")
    card = repo.read("README.md", "refs/pr/2")
    assert card.count(BEGIN.encode()) == 1 and card.count(b"- executorch") == 1


def test_a_pull_request_that_the_owner_closed_stays_closed_for_these_weights(repo: Repository) -> None:
    repo.publish(repo.report())
    repo.owner.change_discussion_status(repo.repo_id, 1, "closed", comment="No, thank you.")
    done = repo.publish(repo.report([reports.cell("portable")]))
    assert (done.operation, done.pr_num) == ("none", 1)
    assert "closed" in done.reason and "reopen" in done.reason
    assert repo.pulls() == [(1, "closed")]
    repo.push({"model.safetensors": b"new weights"})
    files = {**reports.MODEL_FILES, "model.safetensors": b"new weights"}
    assert repo.publish(repo.report(files=files)).operation == "created"
    assert repo.pulls() == [(1, "closed"), (2, "open")]


def test_one_that_was_reopened_is_refreshed(repo: Repository) -> None:
    repo.publish(repo.report())
    repo.owner.change_discussion_status(repo.repo_id, 1, "closed")
    repo.owner.change_discussion_status(repo.repo_id, 1, "open")
    assert repo.publish(repo.report([reports.cell("portable")])).operation == "updated"


def test_pull_requests_of_others_are_not_ours_even_with_our_marker(repo: Repository) -> None:
    text = message.pr_description(repo.report())
    repo.owner.create_pull_request(repo.repo_id, "Add ExecuTorch files", description=text)
    mine = HfApi(endpoint=repo.hub.endpoint, token=repo.bot_token)
    mine.create_pull_request(repo.repo_id, "Something else of the same account", description="no marker")
    assert repo.publish(repo.report()).pr_num == 3


def test_a_card_that_changed_in_the_same_place_gets_a_new_pull_request(repo: Repository) -> None:
    repo.publish(repo.report())
    repo.push({"README.md": CARD.replace(b"Written by its owner.", b"Rewritten.\n\nAnd longer at its very end.")})
    assert repo.owner.get_discussion_details(repo.repo_id, 1).conflicting_files
    done = repo.publish(repo.report())
    assert (done.operation, done.pr_num) == ("created", 2)
    assert repo.pulls() == [(1, "closed"), (2, "open")]
    details = repo.owner.get_discussion_details(repo.repo_id, 2)
    assert not details.conflicting_files
    assert b"Rewritten." in repo.read("README.md", "refs/pr/2")
    assert repo.publish(repo.report()).operation == "unchanged"


def test_a_failed_cell_is_told_beside_the_good_ones(repo: Repository) -> None:
    assert repo.publish(repo.report([reports.cell(), reports.failed()])).operation == "created"
    for text in (repo.description(), repo.read("README.md", "refs/pr/1").decode()):
        assert "the compiler gave up" in text


def test_a_dry_run_shows_everything_and_changes_nothing(repo: Repository) -> None:
    report = repo.report()
    for token in (repo.bot_token, None):
        done = repo.publish(report, dry_run=True, token=token)
        assert (done.operation, done.pr_url) == ("created", None)
        assert done.preview is not None
        assert done.preview.title == message.pr_title(report)
        assert done.preview.description == message.pr_description(report)
        assert done.preview.card_diff.startswith("--- a/README.md\n+++ b/README.md\n")
        assert "+- executorch\n" in done.preview.card_diff and "+## ExecuTorch\n" in done.preview.card_diff
        assert [path for path, _ in done.preview.files][-2:] == ["executorch/manifest.json", "README.md"]
        assert repo.pulls() == []
    repo.publish(report)
    done = repo.publish(repo.report([reports.cell("portable")]), dry_run=True)
    assert (done.operation, done.pr_num) == ("updated", 1)
    assert done.preview is not None
    assert ("executorch/xnnpack/tiny_xnnpack_fp32.pte", None) in done.preview.files
    assert repo.publish(report, dry_run=True).operation == "unchanged"


def test_a_repository_without_a_card_gets_one(hub: RunningHub, tmp_path: Path) -> None:
    repo = repository(hub, tmp_path, dict(reports.MODEL_FILES))
    done = repo.publish(repo.report(), dry_run=True)
    assert done.preview is not None and done.preview.card_diff.startswith("--- /dev/null\n")
    repo.publish(repo.report())
    assert repo.read("README.md", "refs/pr/1").startswith(b"---\ntags:\n- executorch\n---\n\n<!-- ptebot:begin -->")


def test_a_renamed_file_leaves_no_old_one_behind(repo: Repository) -> None:
    repo.publish(repo.report())
    cell = reports.cell("xnnpack")
    renamed = replace(cell, file="xnnpack/renamed_xnnpack_fp32.pte")
    repo.publish(repo.report([renamed]))
    below = {path for path in repo.files("refs/pr/1") if path.endswith(".pte")}
    assert below == {"executorch/xnnpack/renamed_xnnpack_fp32.pte"}


def test_an_open_pull_request_beside_a_main_branch_that_has_the_files(repo: Repository) -> None:
    report = repo.report()
    repo.publish(report)
    names = [path for path in repo.files("refs/pr/1") if path.startswith("executorch/")]
    repo.push({path: repo.read(path, "refs/pr/1") for path in [*names, "README.md"]})
    done = repo.publish(report)
    assert (done.operation, done.pr_num, done.revision) == ("unchanged", None, repo.head)
