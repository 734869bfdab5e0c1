"""``ptebot serve`` and ``ptebot jobs`` as processes: a push in, a real export, a pull request out; a kill, a stop."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from bot.localhub.testing import RunningHub, running_hub
from tests.exporter.models import tiny_model

SECRET = "a-secret-of-some-length"
PATIENCE = 240.0


@pytest.fixture(scope="module")
def hub() -> Iterator[RunningHub]:
    with running_hub() as made:
        yield made


def environment(hub: RunningHub, token: str, **more: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HF_ENDPOINT": hub.endpoint,
        "HF_TOKEN": token,
        "PTEBOT_WEBHOOK_SECRET": SECRET,
        "PTEBOT_WATCH": "acme",
        "PTEBOT_BACKENDS": "xnnpack",
        "PTEBOT_PRECISIONS": "fp32",
        "PTEBOT_HEARTBEAT": "1",
        "OMP_NUM_THREADS": "1",
        **more,
    }


class Server:
    """A running ``ptebot serve``."""

    def __init__(self, env: dict[str, str], folder: Path, *args: str) -> None:
        self.log_path = folder / f"serve-{time.monotonic_ns()}.log"
        self.env, self.folder = env, folder
        command = [sys.executable, "-m", "bot.cli", "serve", "--port", "0", "--data", str(folder / "data"), *args]
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                command, env=env, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.fullmatch(r"Listening: (http://\S+)\n", line)
        assert found, f"{line!r}\n{self.log}"
        self.address = found[1]

    @property
    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8")

    def get(self, path: str) -> tuple[int, bytes]:
        with urllib.request.urlopen(f"{self.address}{path}", timeout=30) as reply:
            return reply.status, reply.read()

    def jobs(self, *args: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "bot.cli", "jobs", *args, "--json", "--data", str(self.folder / "data")],
            env=self.env, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        data: dict[str, Any] = json.loads(done.stdout)
        return {**data, "exit_code": done.returncode}


@contextmanager
def serving(env: dict[str, str], folder: Path) -> Iterator[Server]:
    server = Server(env, folder)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait()


def until(condition: Callable[[], Any], server: Server) -> Any:
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert server.process.poll() is None and time.monotonic() < end, server.log
        time.sleep(0.1)
    return found


def kept(folder: Path) -> Any:
    """The one job as the store has it, read beside the server."""
    from bot.server.store import Store, open_engine

    store = Store(open_engine(f"sqlite:///{folder / 'data' / 'ptebot.sqlite'}"))
    found = store.jobs()
    store.close()
    return found[0] if found else None


def ended(folder: Path) -> Any:
    job = kept(folder)
    return job if job is not None and not job.live else None


def test_a_push_is_exported_through_a_kill_and_a_restart(hub: RunningHub, tmp_path: Path) -> None:
    owner = HfApi(endpoint=hub.endpoint, token=hub.create_user("acme"))
    env = environment(hub, hub.create_user("ptebot"))
    owner.create_repo("acme/tiny")
    with serving(env, tmp_path) as server:
        owner.create_webhook(
            url=f"{server.address}/webhooks/hub",
            watched=[{"type": "user", "name": "acme"}],
            domains=["repo", "discussion"],
            secret=SECRET,
        )
        owner.upload_folder(repo_id="acme/tiny", folder_path=str(tiny_model("llama", tmp_path / "model")))
        until(lambda: (job := kept(tmp_path)) is not None and job.stage.startswith(("lower", "trace", "load")), server)
        os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait()
    with serving(env, tmp_path) as server:
        job = until(lambda: ended(tmp_path), server)
        assert job.state == "passed", server.log
        (pull,) = [one for one in owner.get_repo_discussions("acme/tiny") if one.is_pull_request]
        assert (pull.author, job.pr_url) == ("ptebot", pull.url)
        assert json.loads(server.get("/readyz")[1])["ready"] is True
        assert b"acme/tiny" in server.get("/")[1]
        assert 'ptebot_pull_requests_total{operation="created"} 1.0' in server.get("/metrics")[1].decode()

        shown = server.jobs("show", job.id[:10])
        assert shown["job"]["state"] == "passed" and shown["report"]["cells"][0]["backend"] == "xnnpack"
        assert [one["id"] for one in server.jobs("list", "--state", "passed")["jobs"]] == [job.id]
        assert server.jobs("cancel", job.id)["error"]["class"] == "NotOfThisState"
        assert server.jobs("submit", "acme/tiny")["job"]["id"] == job.id
        assert server.jobs("show", "ffffff")["exit_code"] == 91

        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=60) == 0, server.log
        for secret in (SECRET, env["HF_TOKEN"]):
            assert secret not in server.log


def test_without_a_secret_nothing_starts(hub: RunningHub, tmp_path: Path) -> None:
    env = environment(hub, "hf_x")
    del env["PTEBOT_WEBHOOK_SECRET"]
    done = subprocess.run(
        [sys.executable, "-m", "bot.cli", "serve", "--data", str(tmp_path / "data")],
        env=env, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 90 and "PTEBOT_WEBHOOK_SECRET" in done.stderr
    assert not (tmp_path / "data").exists()


def test_check_tries_and_starts_nothing(hub: RunningHub, tmp_path: Path) -> None:
    env = environment(hub, hub.create_user("ptebot"))
    command = [sys.executable, "-m", "bot.cli", "serve", "--check", "--json", "--data", str(tmp_path / "data")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=120)
    found = json.loads(done.stdout)
    assert (done.returncode, found["ok"]) == (0, True), found
    assert env["HF_TOKEN"] not in done.stdout + done.stderr
    wrong = subprocess.run(
        command, env={**env, "HF_TOKEN": "hf_wrong"}, capture_output=True, text=True, check=False, timeout=120
    )
    assert wrong.returncode == 1 and json.loads(wrong.stdout)["ok"] is False
