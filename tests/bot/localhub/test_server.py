"""The command: its first line, its refusals, its files' modes; and git clone from it."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from huggingface_hub import CommitOperationAdd, HfApi

from bot.localhub import server
from bot.localhub.cli import localhub_command
from bot.localhub.errors import InvalidHubData, PortTaken, UnsafeHost
from bot.localhub.testing import RunningHub
from tests.bot.localhub.test_restart import process


def test_json_line_token_and_modes(tmp_path: Path) -> None:
    tokens = []
    for _ in range(2):
        with process(tmp_path / "hub") as (running, endpoint, token):
            api = HfApi(endpoint=endpoint, token=token)
            assert api.whoami()["name"] == "admin"
            assert endpoint.startswith("http://127.0.0.1:")
            tokens.append(token)
            running.terminate()
            rest, stderr = running.communicate(timeout=15)
            assert rest == "", "with --json nothing but the one line goes to stdout"
            assert "for demos and tests" in stderr
            assert token not in stderr
    assert tokens[0] == tokens[1]
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "hub").iterdir()}
    assert modes["admin-token"] == 0o600
    assert stat.S_IMODE((tmp_path / "hub").stat().st_mode) == 0o700
    assert token.encode() not in (tmp_path / "hub/hub.sqlite3").read_bytes()


def test_without_json_a_person_is_told_where_the_token_is(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bot.localhub", "--data", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        lines = [running.stdout.readline() for _ in range(3)]
        running.terminate()
    text = "".join(lines)
    assert "for demos and tests" in text
    assert str(tmp_path / "admin-token") in text
    assert (tmp_path / "admin-token").read_text().strip() not in text


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])  # noqa: S104
def test_other_hosts_are_refused_unless_allowed(tmp_path: Path, host: str) -> None:
    result = CliRunner().invoke(localhub_command, ["--data", str(tmp_path / "x"), "--host", host])
    assert result.exit_code == UnsafeHost.exit_code
    assert "--allow-remote" in result.output
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1", "[::1]"])
def test_loopback_hosts(host: str) -> None:
    assert server.is_loopback(host)


def test_a_taken_port_and_foreign_data_are_told_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(localhub_command, ["--data", str(tmp_path / "hub"), "--port", port])
    assert result.exit_code == PortTaken.exit_code
    assert port in result.output
    (tmp_path / "hub.sqlite3").write_text("no database at all" * 100)
    result = CliRunner().invoke(localhub_command, ["--data", str(tmp_path)])
    assert result.exit_code == InvalidHubData.exit_code


def test_git_clones_a_public_repository(alice: HfApi, hub: RunningHub, repo: str, tmp_path: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    data = os.urandom(5000)
    files = {"a.txt": b"words", "m.pte": data}
    alice.create_commit(repo, [CommitOperationAdd(*item) for item in files.items()], commit_message="x")
    for suffix in ("", ".git"):
        target = tmp_path / f"clone{suffix}"
        run_git("clone", "--quiet", f"{hub.endpoint}/{repo}{suffix}", str(target))
        assert (target / "a.txt").read_bytes() == b"words"
        assert (target / "m.pte").read_text().startswith("version https://git-lfs")
    pr = alice.create_commit(repo, [CommitOperationAdd("b.txt", b"2")], commit_message="pr", create_pr=True)
    run_git("-C", str(target), "fetch", "--quiet", "origin", "refs/pr/1")
    assert run_git("-C", str(target), "rev-parse", "FETCH_HEAD").strip() == pr.oid
    run_git("-C", str(target), "pull", "--quiet")
    pushed = run_git("-C", str(target), "push", f"{hub.endpoint}/{repo}", "HEAD:refs/heads/evil", check=False)
    assert pushed is None


def test_git_needs_a_token_for_a_private_repository(alice: HfApi, hub: RunningHub, tmp_path: Path) -> None:
    repo = alice.create_repo("alice/clone-private", private=True, exist_ok=True).repo_id
    assert run_git("clone", "--quiet", f"{hub.endpoint}/{repo}", str(tmp_path / "no"), check=False) is None
    address = hub.endpoint.replace("http://", f"http://alice:{alice.token}@")
    run_git("clone", "--quiet", f"{address}/{repo}", str(tmp_path / "yes"))
    assert (tmp_path / "yes/.gitattributes").is_file()


def test_git_requests_that_are_none(repo: str, http) -> None:
    assert http.get(f"/{repo}/info/refs").status_code == 403
    assert http.get(f"/{repo}/info/refs?service=git-receive-pack").status_code == 403
    for body, headers in ((b"garbage", {}), (b"not gzip", {"Content-Encoding": "gzip"}), (b"", {})):
        reply = http.post(f"/{repo}/git-upload-pack", content=body, headers=headers)
        assert reply.status_code in (200, 400)
        assert b"PACK" not in reply.content


def run_git(*arguments: str, check: bool = True) -> str | None:
    """git's output; None when it fails (and ``check`` is off). It asks nobody for a password, and knows no LFS."""
    # Debian's git-lfs puts its filter into the system's configuration, and clones would hold files, not pointers.
    environment = os.environ | {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
    }
    done = subprocess.run(["git", *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout if done.returncode == 0 else None
