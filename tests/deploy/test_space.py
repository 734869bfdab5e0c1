"""The Space: what the Hub reads of it, what it tells people to set, and the container as the Hub starts it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from huggingface_hub import SpaceCard
from huggingface_hub.repocard import metadata_load

from bot.localhub import server as binding
from bot.localhub.testing import RunningHub, running_hub
from bot.server.settings import Settings
from bot.web.oauth import OPENS_PULL_REQUESTS, WANTED
from exporter import __version__
from tests.engine import DockerEngine

SPACE = Path(__file__).resolve().parents[2] / "deploy" / "space"
README = (SPACE / "README.md").read_text(encoding="utf-8")
DOCKERFILE = (SPACE / "Dockerfile").read_text(encoding="utf-8")
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
# https://huggingface.co/docs/hub/spaces-config-reference, without what is for other SDKs.
KNOWN = {
    "title": str, "emoji": str, "colorFrom": str, "colorTo": str, "sdk": str, "app_port": int, "base_path": str,
    "fullWidth": bool, "header": str, "short_description": str, "models": list, "datasets": list, "tags": list,
    "thumbnail": str, "pinned": bool, "hf_oauth": bool, "hf_oauth_scopes": list, "hf_oauth_expiration_minutes": int,
    "hf_oauth_authorized_org": (str, list), "disable_embedding": bool, "startup_duration_timeout": str,
    "custom_headers": dict, "suggested_hardware": str, "license": str,
}  # fmt: skip
HOST = "acme-ptebot.hf.space"
SECRET = "w" * 40


def front_matter() -> dict[str, Any]:
    found = metadata_load(SPACE / "README.md")
    assert isinstance(found, dict)
    return found


def test_the_hub_can_read_its_front_matter() -> None:
    data = front_matter()
    assert set(data) <= set(KNOWN)
    assert all(isinstance(value, KNOWN[name]) for name, value in data.items())
    assert data["sdk"] == "docker" and data["hf_oauth"] is True
    assert {data["colorFrom"], data["colorTo"]} <= COLOURS
    assert len(data["short_description"]) <= 60 and not data["emoji"].isascii()
    assert 1 <= data["hf_oauth_expiration_minutes"] <= 43200
    assert SpaceCard.load(SPACE / "README.md").data.to_dict()["app_port"] == 7860
    with running_hub() as hub:  # as the Hub does before it takes a README
        reply = httpx2.post(f"{hub.endpoint}/api/validate-yaml", json={"content": README, "repoType": "space"})
    assert reply.status_code == 200 and reply.json()["errors"] == []


def test_it_asks_for_what_a_pull_request_takes_and_no_more() -> None:
    scopes = front_matter()["hf_oauth_scopes"]
    assert scopes == [OPENS_PULL_REQUESTS] and set(scopes) <= set(WANTED)


def test_its_words_name_settings_that_there_are() -> None:
    named = set(re.findall(r"\bPTEBOT_[A-Z_]+", README + DOCKERFILE)) - {"PTEBOT_IMAGE"}
    assert named >= {"PTEBOT_WATCH", "PTEBOT_WEBHOOK_SECRET", "PTEBOT_PUBLIC_PAGES", "PTEBOT_DATA"}
    assert {name.removeprefix("PTEBOT_").lower() for name in named} <= set(Settings.model_fields)
    hubs = set(re.findall(r"`((?:OAUTH|OPENID|SPACE)_[A-Z_]+)`", README))
    assert hubs == {"SPACE_HOST", "OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET", "OAUTH_SCOPES", "OPENID_PROVIDER_URL"}


def test_ports_and_versions_agree() -> None:
    port = str(front_matter()["app_port"])
    assert f"EXPOSE {port}" in DOCKERFILE and f'"--port", "{port}"]' in DOCKERFILE and f":{port}/healthz" in DOCKERFILE
    assert f"ghcr.io/ptebot/ptebot:v{__version__}\n" in DOCKERFILE


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, SPACE / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.fixture(scope="module")
def image(docker_engine: DockerEngine) -> str:
    tag = "ptebot-space:tests"
    docker_engine.run(
        "build", "--network=host", f"--build-arg=PTEBOT_IMAGE={docker_engine.image}", f"--tag={tag}", str(SPACE)
    )
    return tag


@contextmanager
def started(docker: DockerEngine, image: str, hub: RunningHub, port: int) -> Iterator[str]:
    """A container with what the Hub sets on a Space, and what its owner has to."""
    client_id, secret = hub.register_app(f"https://{HOST}/oauth/callback")
    variables = {
        "SPACE_HOST": HOST, "SPACE_ID": "acme/ptebot", "OAUTH_CLIENT_ID": client_id, "OAUTH_CLIENT_SECRET": secret,
        "OAUTH_SCOPES": "openid profile write-discussions", "OPENID_PROVIDER_URL": hub.endpoint,
        "HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.create_user("ptebot-user"), "PTEBOT_WATCH": "acme",
        "PTEBOT_WEBHOOK_SECRET": SECRET, "PTEBOT_SECRET_KEY": "k" * 40, "PTEBOT_ADMIN_TOKEN": "t" * 40,
    }  # fmt: skip
    given = [f"--env={name}={value}" for name, value in variables.items()]
    options = ["--detach", "--network=host", "--cap-drop=ALL", "--security-opt=no-new-privileges", *given]
    command = ["serve", "--host", "127.0.0.1", "--port", str(port)]  # as the image's own, but for this machine
    name = docker.run("run", *options, image, *command).stdout.strip()
    try:
        yield name
    finally:
        docker.run("rm", "--force", name)


def _wait(docker: DockerEngine, name: str, address: str) -> None:
    """Until it says that it listens; its log is an error if it ends before."""
    with subprocess.Popen(
        [docker.client, "logs", "--follow", name],
        env=docker.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as following:
        assert following.stdout is not None
        said = []
        for line in following.stdout:
            said.append(line)
            if address in line:
                following.terminate()
                return
    raise AssertionError("".join(said))


def test_it_runs_as_the_hub_runs_it(docker_engine: DockerEngine, image: str) -> None:
    listener = binding.bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    listener.close()
    with running_hub() as hub, started(docker_engine, image, hub, port) as name:
        _wait(docker_engine, name, f"127.0.0.1:{port}")
        inside = docker_engine.run("exec", name, "id", "-u").stdout.strip()
        assert inside == "1000"
        base, ours = f"http://127.0.0.1:{port}", {"Host": HOST, "Accept": "text/html"}
        assert httpx2.get(f"{base}/healthz").status_code == 200
        page = httpx2.get(f"{base}/", headers=ours)
        assert page.status_code == 200 and f"frame-ancestors 'self' {hub.endpoint}" in str(page.headers)
        assert httpx2.get(f"{base}/", headers={"Host": "evil.example"}).status_code == 400
        away = httpx2.get(f"{base}/oauth/start", headers=ours)
        query = parse_qs(urlsplit(away.headers["location"]).query)
        assert away.headers["location"].startswith(f"{hub.endpoint}/oauth/authorize?")
        assert query["redirect_uri"] == [f"https://{HOST}/oauth/callback"]
        unsigned = httpx2.post(f"{base}/webhooks/hub", headers={"Host": HOST}, json={})
        assert unsigned.status_code == 401
        for n in range(12):  # nobody said that a proxy is there, so nobody may say who they are
            guess = {**ours, "Authorization": "Bearer guess", "X-Forwarded-For": f"192.0.2.{n}"}
            status = httpx2.get(f"{base}/", headers=guess).status_code
        assert status == 429
        log = docker_engine.run("logs", name)
        assert SECRET not in log.stdout + log.stderr and "k" * 40 not in log.stdout + log.stderr
        docker_engine.run("stop", "--time=20", name)
        state = docker_engine.run("inspect", "--format={{.State.ExitCode}}", name).stdout.strip()
        assert state in ("0", "143")
