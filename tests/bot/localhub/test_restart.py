"""What is kept when the server stops, and what stays whole when it is killed in the middle of a commit."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pygit2
import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from bot.localhub.database import Database
from bot.localhub.errors import InvalidHubData
from bot.localhub.hub import open_hub
from bot.localhub.repos import RefUpdate
from bot.localhub.testing import running_hub


def put(api: HfApi, repo: str, path: str, data: bytes, **options: object):
    return api.create_commit(repo, [CommitOperationAdd(path, data)], commit_message=f"put {path}", **options)  # type: ignore[arg-type]


@contextlib.contextmanager
def process(data: Path) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    command = [sys.executable, "-m", "bot.localhub", "--data", str(data), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            if not line:
                server.kill()
                raise AssertionError(f"the server did not start: {server.communicate()[1]}")
            first = json.loads(line)
            yield server, first["endpoint"], first["token"]
        finally:
            server.kill()


def test_everything_survives_a_restart(tmp_path: Path) -> None:
    large = os.urandom(100_000)
    with running_hub(tmp_path / "hub") as hub:
        token, admin = hub.create_user("alice", {"club": "write"}), hub.token
        alice = HfApi(endpoint=hub.endpoint, token=token)
        repo = alice.create_repo("club/kept", private=True).repo_id
        head = put(alice, repo, "m.safetensors", large).oid
        pr = put(alice, repo, "p.pte", large[::-1], create_pr=True)
        comment = alice.comment_discussion(repo, 1, "remember me")
        hook = alice.create_webhook(url="http://127.0.0.1:9/", watched=[{"type": "model", "name": repo}], secret="s")
    with running_hub(tmp_path / "hub") as hub:
        assert hub.token == admin
        alice = HfApi(endpoint=hub.endpoint, token=token)
        assert [org["name"] for org in alice.whoami()["orgs"]] == ["club"]
        assert (alice.model_info(repo).sha, alice.model_info(repo).private) == (head, True)
        assert Path(alice.hf_hub_download(repo, "m.safetensors", cache_dir=tmp_path)).read_bytes() == large
        path = alice.hf_hub_download(repo, "p.pte", revision="refs/pr/1", cache_dir=tmp_path)
        assert Path(path).read_bytes() == large[::-1]
        events = alice.get_discussion_details(repo, 1).events
        assert [event.id for event in events][-1] == comment.id
        assert events[1].oid == pr.oid  # type: ignore[attr-defined]
        assert alice.get_webhook(hook.id).url == "http://127.0.0.1:9/"
        assert put(alice, repo, "q.txt", b"1", create_pr=True).pr_num == 2


def test_two_servers_never_share_a_directory(tmp_path: Path) -> None:
    with running_hub(tmp_path / "hub"), pytest.raises(InvalidHubData, match="in use"), running_hub(tmp_path / "hub"):
        pass
    with running_hub(tmp_path / "hub"):
        pass


def test_what_is_no_hub_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InvalidHubData):
        open_hub(tmp_path / "file")
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub/hub.sqlite3").write_bytes(b"certainly not a database" * 100)
    with pytest.raises(InvalidHubData, match="not a database"):
        open_hub(tmp_path / "hub")
    newer = tmp_path / "newer"
    open_hub(newer).close()
    database = Database(newer / "hub.sqlite3")
    database.run("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(InvalidHubData, match="99"):
        open_hub(newer)


def test_a_commit_recorded_but_not_published_is_finished_at_the_next_start(tmp_path: Path) -> None:
    """The one moment in which database and git differ: after the transaction, before the refs move."""
    hub = open_hub(tmp_path)
    owner = hub.accounts.create("alice")
    repo = hub.repos.create(owner, "m", owner, private=False)
    git = repo.git()
    head = str(git.commit("main").id)
    from bot.localhub.gitrepo import Change

    new = git.write_commit([head], [Change("a.txt", b"1")], "alice", "recorded")

    def record() -> list[RefUpdate]:
        return [RefUpdate("refs/pr/1", None, new), RefUpdate("refs/heads/main", head, new)]

    class Killed(BaseException):
        pass

    def killed(*_args: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bot.localhub.gitrepo.GitRepo.set_ref", killed)
        with pytest.raises(Killed):
            hub.repos.publish(repo, record)
    assert str(repo.git().commit("main").id) == head
    hub.close()

    again = open_hub(tmp_path)
    found = again.repos.find("alice", "m")
    assert found is not None
    assert dict(found.git().refs("refs/")) == {"refs/pr/1": new, "refs/heads/main": new}
    again.close()


@pytest.mark.parametrize("lock", ["refs/heads/main.lock", "refs/pr/1.lock", "HEAD.lock", "packed-refs.lock"])
def test_a_process_killed_while_it_moves_a_ref_leaves_no_lock(tmp_path: Path, lock: str) -> None:
    """libgit2 renames a lock file to the ref; one left behind would refuse every later commit, and the next start."""
    hub = open_hub(tmp_path)
    owner = hub.accounts.create("alice")
    repo = hub.repos.create(owner, "m", owner, private=False)
    head = str(repo.git().commit("main").id)
    new = repo.git().write_commit([head], [], "alice", "recorded")
    for ref in ("refs/heads/main", "refs/pr/1"):
        values = (repo.id, ref, new)
        hub.database.run("INSERT INTO ref_journal (repo_id, ref, new_oid) VALUES (?, ?, ?)", *values)
    left = repo.directory / "git" / lock
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_text(new[:17])
    hub.close()

    again = open_hub(tmp_path)
    found = again.repos.find("alice", "m")
    assert found is not None
    assert not left.exists()
    assert dict(found.git().refs("refs/")) == {"refs/pr/1": new, "refs/heads/main": new}
    again.close()


def test_leftovers_of_a_killed_process_are_cleared(tmp_path: Path) -> None:
    hub = open_hub(tmp_path)
    owner = hub.accounts.create("alice")
    repo = hub.repos.create(owner, "m", owner, private=False)
    hub.close()
    (tmp_path / "repos" / ("0" * 24) / "git").mkdir(parents=True)
    (repo.directory / "incoming").mkdir()
    (repo.directory / "incoming" / "half").write_bytes(b"x")
    open_hub(tmp_path).close()
    assert [path.name for path in (tmp_path / "repos").iterdir()] == [repo.id]
    assert not (repo.directory / "incoming").exists()


def test_kill_in_the_middle_of_commits_leaves_a_whole_repository(tmp_path: Path) -> None:
    """Commits and pull requests run without pause; the server is killed at odd moments, and started again."""
    data = tmp_path / "hub"
    acknowledged: list[tuple[str, str]] = []
    for round_number in range(3):
        with process(data) as (server, endpoint, token):
            api = HfApi(endpoint=endpoint, token=token)
            api.create_repo("admin/m", exist_ok=True)
            stop = threading.Event()

            def work(worker: int, number: int, endpoint: str, token: str, stop: threading.Event) -> None:
                client = httpx2.Client(base_url=endpoint, headers={"Authorization": f"Bearer {token}"}, trust_env=False)
                for step in range(10_000):
                    name = f"r{number}-w{worker}-{step}.txt"
                    body = f'{{"key":"header","value":{{"summary":"{name}"}}}}\n' + json.dumps(
                        {"key": "file", "value": {"path": name, "content": name}}
                    )
                    query = "?create_pr=1" if worker == 0 else ""
                    try:
                        reply = client.post(
                            f"/api/models/admin/m/commit/main{query}", content=body.encode(),
                            headers={"Content-Type": "application/x-ndjson"},
                        )  # fmt: skip
                    except httpx2.HTTPError:
                        return
                    assert reply.status_code == 200, reply.text
                    acknowledged.append((reply.json()["commitOid"], "pr" if worker == 0 else "main"))
                    if stop.is_set():
                        return

            threads = [
                threading.Thread(target=work, args=(worker, round_number, endpoint, token, stop)) for worker in range(2)
            ]
            for thread in threads:
                thread.start()
            # Some commits are whole by then however slow the machine is; the next ones are hit anywhere.
            wanted, until = len(acknowledged) + 2, time.monotonic() + 30
            while len(acknowledged) < wanted and time.monotonic() < until:
                time.sleep(0.01)
            time.sleep(0.03 * round_number)
            server.send_signal(signal.SIGKILL)
            server.wait(10)
            stop.set()
            for thread in threads:
                thread.join(10)
    assert len(acknowledged) > 5
    with process(data) as (_server, endpoint, token):
        api = HfApi(endpoint=endpoint, token=token)
        on_main = {commit.commit_id for commit in api.list_repo_commits("admin/m")}
        details = [api.get_discussion_details("admin/m", item.num) for item in api.get_repo_discussions("admin/m")]
        refs = {
            ref.ref: ref.target_commit
            for ref in api.list_repo_refs("admin/m", include_pull_requests=True).pull_requests
        }
        in_prs = {event.oid for pr in details for event in pr.events if event.type == "commit"}
        for oid, where in acknowledged:
            assert oid in (in_prs if where == "pr" else on_main), "an acknowledged commit is lost"
        assert {f"refs/pr/{pr.num}" for pr in details} == set(refs), "a pull request without its ref, or the reverse"
        assert set(refs.values()) == in_prs
        put(api, "admin/m", "after.txt", b"it still works")
    (repo,) = (data / "repos").iterdir()
    git = pygit2.Repository(str(repo / "git"))
    for name in git.references:
        for commit in git.walk(git.references[name].target):  # type: ignore[arg-type]
            for entry in commit.tree:
                assert git[entry.id] is not None
    check = subprocess.run(
        ["git", "-C", str(repo / "git"), "fsck", "--strict"], capture_output=True, text=True, check=False
    )
    assert check.returncode == 0, check.stderr
