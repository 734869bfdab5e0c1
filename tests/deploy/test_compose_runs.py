"""The services of compose.yaml as Compose would start them, in the real image on a real engine.

Debian has no Compose plugin, so the keys that the services use are given to the engine one by one; a key that this does
not know fails the test.
"""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from bot.localhub import server as binding
from bot.localhub.testing import running_hub
from tests.engine import DockerEngine

SERVICES: dict[str, Any] = yaml.safe_load(
    (Path(__file__).resolve().parents[2] / "deploy" / "compose" / "compose.yaml").read_text(encoding="utf-8")
)["services"]
SECRET = "w" * 40
VOLUME = "ptebot-compose-test"
ELSEWHERE = {
    *("image", "env_file", "environment", "command", "entrypoint", "volumes", "ports", "depends_on", "healthcheck"),
}
"""Given by name, or of no meaning here."""
IGNORED = {"restart", "logging", "stop_grace_period", "mem_limit"}


def options(service: dict[str, Any], env: dict[str, str]) -> list[str]:
    """What `docker run` takes for a service, but for its image and words."""
    given = [f"--volume={VOLUME}:/data", f"--entrypoint={service['entrypoint'][0]}"]
    known = {name: "2" if value.startswith("$") else value for name, value in service.get("environment", {}).items()}
    given += [f"--env={name}={value}" for name, value in {**known, **env}.items()]
    for key, value in service.items():
        if key in ("tmpfs", "cap_drop", "cap_add", "security_opt"):
            given += [f"--{key.replace('_', '-')}={one}" for one in value]
        elif key in ("init", "read_only"):
            given.append(f"--{key.replace('_', '-')}={str(value).lower()}")
        elif key == "user":
            given.append(f"--user={value}")
        elif key == "pids_limit":
            given.append(f"--pids-limit={value}")
        elif key == "network_mode":
            given.append(f"--network={value}")
        else:
            assert key in ELSEWHERE | IGNORED, key
    # The engine of the tests has no networks of its own.
    return given if "network_mode" in service else [*given, "--network=host"]


@pytest.fixture
def volume(docker_engine: DockerEngine) -> Iterator[None]:
    """As the service `volume` leaves it."""
    docker_engine.run("volume", "create", VOLUME)
    try:
        service = SERVICES["volume"]
        words = [docker_engine.image, *service["entrypoint"][1:]]
        for _ in range(2):  # each start runs it again
            docker_engine.run("run", "--rm", *options(service, {}), *words)
        yield
    finally:
        docker_engine.run("volume", "rm", "--force", VOLUME)


@contextmanager
def serving(docker: DockerEngine, port: int, env: dict[str, str]) -> Iterator[str]:
    """The service `ptebot` on a port of this machine; its container."""
    words = [str(port) if word == "8080" else word for word in SERVICES["ptebot"]["command"]]
    name = docker.run("run", "--detach", *options(SERVICES["ptebot"], env), docker.image, *words).stdout.strip()
    try:
        yield name
    finally:
        docker.run("rm", "--force", name)


def wait(docker: DockerEngine, name: str, word: str) -> None:
    """Until its log has a word."""
    command = [docker.client, "logs", "--follow", name]
    pipe, out = subprocess.PIPE, subprocess.STDOUT
    with subprocess.Popen(command, env=docker.environment, stdout=pipe, stderr=out, text=True) as following:
        assert following.stdout is not None
        said = []
        for line in following.stdout:
            said.append(line)
            if word in line:
                following.terminate()
                return
    raise AssertionError("".join(said))


def test_the_server_runs_with_no_more_than_compose_gives_it(
    docker_engine: DockerEngine, volume: None, tmp_path: Path
) -> None:
    listener = binding.bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    listener.close()
    with running_hub() as hub:
        env = {
            **{"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.create_user("ptebot-user"), "PTEBOT_WATCH": "acme"},
            **{"PTEBOT_WEBHOOK_SECRET": SECRET, "PTEBOT_METRICS_TOKEN": "m" * 40, "PTEBOT_LEAST_DISK": "1MB"},
        }
        with serving(docker_engine, port, env) as name:
            wait(docker_engine, name, "Listening: ")
            base = f"http://127.0.0.1:{port}"
            ready = httpx2.get(f"{base}/readyz", timeout=30)
            assert ready.status_code == 200, ready.text
            assert httpx2.get(f"{base}/metrics").status_code == 401
            check = [word.replace("8080", str(port)) for word in SERVICES["ptebot"]["healthcheck"]["test"][1:]]
            docker_engine.run("exec", name, *check)
            tried = docker_engine.run("exec", name, "ptebot", "serve", "--check").stdout
            assert "exports run behind: landlock" in tried and "bad " not in tried
            docker_engine.run("exec", name, "ptebot", "backup", "--out", "/data/backup.db")
            docker_engine.run("cp", f"{name}:/data/backup.db", str(tmp_path / "backup.db"))
            with closing(sqlite3.connect(tmp_path / "backup.db")) as copy:
                assert copy.execute("SELECT count(*) FROM ptebot_jobs").fetchone() == (0,)
            refused = docker_engine.run("exec", name, "ptebot", "restore", "/data/backup.db", check=False)
            assert refused.returncode == 97 and "lives on this database" in refused.stdout + refused.stderr
            docker_engine.run("stop", "--time=40", name)
            state = docker_engine.run("inspect", "--format={{.State.ExitCode}}", name).stdout.strip()
            log = docker_engine.run("logs", name)
            assert state == "0", log.stderr
            assert SECRET not in log.stdout + log.stderr and env["HF_TOKEN"] not in log.stdout + log.stderr
