"""``storage: release``: the files beside the tree, linked from the card, never twice, never taken away."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bot.errors import GitHubRefused, LargeFileRefused, OutputNotTrusted
from bot.publish.github import names, release
from bot.publish.markdown import address
from exporter import report as manifests
from tests.bot import reports
from tests.bot.publish.github.repositories import Repository, repository
from tests.localgithub.testing import RunningGitHub


@pytest.fixture
def repo(github: RunningGitHub, tmp_path: Path) -> Repository:
    return repository(github, tmp_path, storage="release")


def assets(repo: Repository) -> dict[str, bytes]:
    (made,) = repo.there.repo.releases.values()
    return {one.name: one.path.read_bytes() for one in made.assets}


def links(repo: Repository, rev: str | None = None) -> list[str]:
    """Names of the files that the card links to."""
    return re.findall(
        r"\]\(http[^)]*/releases/download/[^)]*/([^)/]+)\)", repo.read("README.md", rev or repo.branch).decode()
    )


def test_files_on_a_release_and_links_in_the_card(repo: Repository) -> None:
    report = repo.report()
    done = repo.publish(report)
    assert (done.operation, done.pr_num) == ("created", 1)
    (made,) = repo.there.repo.releases.values()
    assert (made.tag, made.name) == ("ptebot-models--tiny", "ExecuTorch files of models/tiny")
    assert made.prerelease and not made.draft
    files = assets(repo)
    assert sorted(files.values()) == [b"portable fp32 program", b"xnnpack 8da4w program", b"xnnpack fp32 program"]
    assert sorted(links(repo)) == sorted(files)
    shown = {"models/tiny/executorch/manifest.json", "models/tiny/executorch/quality.svg"}
    assert repo.files(repo.branch) - repo.files() == shown
    assert manifests.loads(repo.read("executorch/manifest.json", repo.branch)) == report
    card = repo.read("README.md", repo.branch).decode()
    page = f"{repo.github.server_url}/{repo.there.full_name}/releases/tag/ptebot-models--tiny"
    assert f"attached to the release [`ptebot-models--tiny`]({page})" in card
    assert "Start with `tiny_xnnpack_fp32-" in card and "](executorch)" not in card
    assert "gh release download ptebot-models--tiny --pattern tiny_" in card
    assert "attached to the release `ptebot-models--tiny`" in repo.description()
    for one in made.assets:
        url = f"{repo.github.server_url}/{repo.there.full_name}/releases/download/ptebot-models--tiny/{one.name}"
        assert f"]({url})" in card


def test_the_same_again_is_unchanged(repo: Repository) -> None:
    repo.publish(repo.report())
    repo.github.clear()
    assert repo.publish(repo.report(seconds=9.0)).operation == "unchanged"
    assert repo.writes() == []
    repo.merge(1)
    assert repo.publish(repo.report()).operation == "unchanged"


def test_a_refresh_keeps_the_files_of_merged_cards(repo: Repository) -> None:
    repo.publish(repo.report())
    repo.merge(1)
    before = assets(repo)
    repo.push({"model.safetensors": b"other weights"})
    files = {**reports.MODEL_FILES, "model.safetensors": b"other weights"}
    report = repo.report([reports.cell("xnnpack", content=b"new program")], files=files)
    done = repo.publish(report, {"xnnpack/tiny_xnnpack_fp32.pte": b"new program"})
    assert (done.operation, done.pr_num) == ("created", 2)
    after = assets(repo)
    assert before.items() < after.items() and b"new program" in after.values()
    (linked,) = links(repo)
    assert after[linked] == b"new program"
    assert set(links(repo, "main")) <= set(after)


def test_a_release_that_was_deleted_is_made_again(repo: Repository) -> None:
    repo.publish(repo.report())
    repo.there.repo.releases.clear()
    done = repo.publish(repo.report())
    assert (done.operation, done.pr_num) == ("updated", 1)
    assert len(assets(repo)) == 3


def test_a_broken_upload_is_replaced(repo: Repository) -> None:
    report = repo.report()
    repo.publish(report)
    (made,) = repo.there.repo.releases.values()
    broken = made.assets[0]
    broken.path.write_bytes(b"half")
    broken.size, broken.digest = 4, "0" * 64
    assert repo.publish(report).operation == "updated"
    assert b"half" not in assets(repo).values() and len(assets(repo)) == 3


def test_an_upload_that_broke_off_is_replaced(repo: Repository) -> None:
    """GitHub keeps such a one under its name, in the state ``starter``."""
    report = repo.report()
    repo.publish(report)
    (made,) = repo.there.repo.releases.values()
    lost = made.assets.pop(0)
    repo.there.break_off_upload(made.tag, lost.name)
    made.assets[-1].size, made.assets[-1].digest = lost.size, lost.digest
    assert repo.publish(report).operation == "updated"
    assert len(assets(repo)) == 3 and b"portable fp32 program" in assets(repo).values()


def test_from_lfs_to_a_release(github: RunningGitHub, tmp_path: Path) -> None:
    """What a refusal of Git LFS advises."""
    repo = repository(github, tmp_path)
    repo.publish(repo.report())
    repo.storage = "release"
    assert repo.publish(repo.report()).operation == "updated"
    assert not {path for path in repo.files(repo.branch) if path.endswith(".pte")}
    assert len(links(repo)) == 3
    assert repo.publish(repo.report()).operation == "unchanged"


def test_two_models_have_a_release_each(repo: Repository) -> None:
    repo.publish(repo.report())
    other = Repository(repo.github, repo.there, repo.token, repo.scratch, "models/other", "release")
    other.push(dict(reports.MODEL_FILES))
    other.publish(other.report())
    tags = sorted(one.tag for one in repo.there.repo.releases.values())
    assert tags == ["ptebot-models--other", "ptebot-models--tiny"]


def test_a_dry_run_attaches_nothing(repo: Repository) -> None:
    done = repo.publish(repo.report(), dry_run=True)
    assert done.preview is not None and "/releases/download/" in done.preview.card_diff
    assert [path for path, _ in done.preview.files] == [
        "models/tiny/executorch/quality.svg",
        "models/tiny/executorch/manifest.json",
        "models/tiny/README.md",
    ]
    assert repo.writes() == [] and not repo.there.repo.releases


def test_releases_that_cannot_be_changed(repo: Repository) -> None:
    repo.github.fail(
        r"/assets$", 422, method="POST", times=-1, body={"message": "Cannot upload assets to an immutable release."}
    )
    with pytest.raises(GitHubRefused, match="immutable") as caught:
        repo.publish(repo.report())
    assert "storage: lfs" in (caught.value.advice or "")


def test_a_file_beyond_the_limit(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "LARGEST_ASSET", 21)
    with pytest.raises(LargeFileRefused, match=r"tiny_portable_fp32-.*\(21 bytes\)"):
        repo.publish(repo.report())
    assert not repo.there.repo.releases and not repo.pulls()


def test_a_file_that_is_not_what_the_report_says_does_not_stay(repo: Repository) -> None:
    with pytest.raises(OutputNotTrusted):
        repo.publish(repo.report(), {"xnnpack/tiny_xnnpack_8da4w.pte": b"Xnnpack 8da4w program"})
    assert b"Xnnpack 8da4w program" not in assets(repo).values()
    assert not repo.pulls()


@pytest.mark.parametrize(
    "url",
    ["https://evil.example/upload", "http://127.0.0.1.evil.example/", "", "ftp://127.0.0.1/x", "https://127.0.0.1/"],
)
def test_the_token_goes_to_no_other_host(repo: Repository, url: str) -> None:
    shelf = release.Shelf(repo.client(), "t")
    with pytest.raises(GitHubRefused):
        shelf._address({"upload_url": url})
    assert shelf._address({"upload_url": f"{repo.github.upload_url}/x{{?name,label}}"}).endswith("/x")


def test_names_of_assets_are_plain_and_tell_versions_apart() -> None:
    one = reports.cell(file="xnnpack/tiny model+v2_xnnpack.pte")
    assert re.fullmatch(r"[A-Za-z0-9._-]+\.pte", names.asset(one))
    assert names.asset(one) != names.asset(reports.cell(file=one.file, content=b"other"))
    url = names.asset_url("https://github.com/acme/tiny", "ptebot-a", one)
    assert address("a.pte", url) == f"[`a.pte`]({url})"
