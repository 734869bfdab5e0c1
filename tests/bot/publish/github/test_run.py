"""``ptebot run --publish github``: the command's way to a repository on GitHub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bot import cli
from exporter import facts
from exporter.spec import ExportSpec
from tests.bot import reports
from tests.bot.publish.github.repositories import Repository


def run(capsys: pytest.CaptureFixture[str], *args: str | Path) -> tuple[int, dict[str, object]]:
    code = cli.run([*map(str, args), "--json"])
    document: dict[str, object] = json.loads(capsys.readouterr().out)
    return code, document


@pytest.fixture
def checkout(repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model's folder on this machine, as CI has it, and GitHub's variables."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name, data in reports.MODEL_FILES.items():
        (folder / name).write_bytes(data)
    monkeypatch.setenv("GITHUB_TOKEN", repo.token)
    monkeypatch.setenv("GITHUB_API_URL", repo.github.api_url)
    monkeypatch.setenv("PTEBOT_STATE", str(tmp_path / "state"))
    return folder


def test_a_repository_that_has_the_files_already(
    repo: Repository, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = repo.publish(repo.report(toolchain=facts.toolchain(), spec=ExportSpec()))
    where = ["--publish", "github", "--repo", repo.there.full_name, "--folder", "models/tiny"]
    code, said = run(capsys, "run", checkout, *where)
    assert code == 0, said
    assert (said["operation"], said["pull_request"], said["report"]) == ("unchanged", made.pr_url, None)


def test_another_model_is_refused_before_any_work(
    repo: Repository, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkout / "config.json").write_text("{}")
    where = ["--publish", "github", "--repo", repo.there.full_name, "--folder", "models/tiny"]
    code, said = run(capsys, "run", checkout, *where)
    assert code == 38, said
    assert "config.json" in str(said["error"])


def test_a_token_without_the_right_is_refused_before_the_export(
    repo: Repository, checkout: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ["--publish", "github", "--repo", repo.there.full_name, "--folder", "models/tiny"]
    monkeypatch.setattr("bot.export_process.run_export", lambda *_, **__: pytest.fail("exported"))
    rights = {"contents": "write", "pull_requests": "read"}
    monkeypatch.setenv("GITHUB_TOKEN", repo.github.installation_token(repo.there, rights))
    code, said = run(capsys, "run", checkout, *where)
    assert code == 72 and "pull-requests: write" in str(said["error"])


@pytest.mark.parametrize(
    ("where", "code"),
    [
        ([], 54),
        (["--repo", "acme"], 80),
        (["--repo", "acme/tiny", "--folder", "../x"], 80),
        (["--repo", "acme/nothing-here"], 71),
    ],
)
def test_where_it_goes_must_be_said(
    checkout: Path, capsys: pytest.CaptureFixture[str], where: list[str], code: int
) -> None:
    assert run(capsys, "run", checkout, "--publish", "github", *where)[0] == code


def test_without_a_token(
    repo: Repository, checkout: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_TOKEN")
    code, said = run(capsys, "run", checkout, "--publish", "github", "--repo", repo.there.full_name)
    assert code == 72, said
