"""What is in the image, and what is not."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.engine import DockerEngine
from tools.engine import ROOT
from tools.image import default_base

MOST_BYTES = 1.6e9
"""A runner pulls it for every job; torch and OpenVINO alone are 0.7 GB."""
PYTHON = "/opt/ptebot/bin/python"


@pytest.fixture(scope="module")
def about(docker_engine: DockerEngine) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker_engine.run("image", "inspect", docker_engine.image).stdout)[0]
    return found


def inside(docker: DockerEngine, *command: str, user: str = "0:0") -> str:
    """What a command says in a fresh container without a network."""
    options = ["--rm", "--network=none", f"--user={user}", "--env=HOME=/tmp", "--workdir=/tmp"]
    return docker.run("run", *options, "--entrypoint", command[0], docker.image, *command[1:]).stdout


def test_it_is_what_the_runner_wants(about: dict[str, Any]) -> None:
    config = about["Config"]
    assert config["User"] == "", "the runner demands root"
    assert config["Entrypoint"] == [PYTHON, "-I", "-u", "/opt/ptebot/entrypoint.py"]
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert config["Labels"]["org.opencontainers.image.source"].startswith("https://github.com/")
    assert about["Size"] < MOST_BYTES, f"{about['Size'] / 1e9:.2f} GB"


def test_the_default_base_has_a_digest_and_stands_once() -> None:
    assert re.fullmatch(r"debian:bookworm-slim@sha256:[0-9a-f]{64}", default_base())
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert "# syntax" not in text, "the runner's builder must not have to fetch another one"
    assert len(re.findall(r"sha256:", text)) == 1


def test_no_cache_and_no_installer_is_left(docker_engine: DockerEngine) -> None:
    script = """
find /root/.cache /tmp /var/lib/apt/lists /var/cache/apt/archives /var/log /build -type f ! -name lock 2>/dev/null
find / -xdev '(' -name '*.deb' -o -name '*.whl' -o -name '*.a' -size +1M ')' -not -path '*/ensurepip/*'
ls -d /opt/ptebot/lib/python3*/site-packages/pip /opt/ptebot/lib/python3*/site-packages/torch/include 2>/dev/null
ls -d /opt/ptebot/app/tests /opt/ptebot/.git 2>/dev/null
true
"""
    assert inside(docker_engine, "/bin/sh", "-c", script).split() == []


def test_versions_are_those_of_the_constraints(docker_engine: DockerEngine) -> None:
    code = "from importlib.metadata import distributions as d; [print(x.name, x.version) for x in d()]"
    pinned: dict[str, str] = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        name, _, version = line.partition("==")
        pinned[_folded(name)] = version
    found = dict(line.split() for line in inside(docker_engine, PYTHON, "-c", code).splitlines())
    assert found["torch"].endswith("+cpu")
    assert not [name for name in found if name.startswith("nvidia")]
    differing = {
        name: version
        for name, version in found.items()
        if _folded(name) != "ptebot" and pinned.get(_folded(name)) != version.removesuffix("+cpu")
    }
    assert differing == {}


def _folded(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_account_for_exports_can_export_and_change_nothing(docker_engine: DockerEngine) -> None:
    # /tmp, /var/tmp and /run/lock are anyone's on every Debian.
    script = """
id
find / -xdev '(' -path /proc -o -path /sys -o -path /dev -o -path /tmp -o -path /var/tmp -o -path /run/lock ')' \
    -prune -o -writable -not -type l -print
ptebot doctor --json
"""
    said = inside(docker_engine, "/bin/sh", "-c", script, user="ptebot-export")
    assert said.startswith("uid=10001(ptebot-export) gid=10001(ptebot-export) groups=10001(ptebot-export)\n{")
    backends = json.loads(said.partition("\n")[2])["backends"]
    assert {one["name"]: one["available"] for one in backends} == {"portable": True, "xnnpack": True, "openvino": True}


def test_the_health_check_says_that_it_is_well(docker_engine: DockerEngine, about: dict[str, Any]) -> None:
    kind, *command = about["Config"]["Healthcheck"]["Test"]
    assert kind == "CMD"
    assert "All good" in inside(docker_engine, *command)
    broken = ["-c", "rm -r /opt/ptebot/lib/python3*/site-packages/torchao-*; ptebot doctor --quick; echo rc=$?"]
    assert inside(docker_engine, "/bin/sh", *broken).endswith("rc=1\n")


def test_a_workflow_cannot_bring_its_own_modules(docker_engine: DockerEngine) -> None:
    """The working directory and PYTHONPATH are the repository's."""
    script = "mkdir bot; echo 'print(\"taken over\")' | tee bot/__init__.py sitecustomize.py > json.py; " + " ".join(
        ["GITHUB_ACTIONS=true", *json.loads(docker_engine.run(
            "image", "inspect", "--format", "{{json .Config.Entrypoint}}", docker_engine.image).stdout)]
    )  # fmt: skip
    said = inside(docker_engine, "/bin/sh", "-c", f"export PYTHONPATH=/tmp; {script}; true")
    assert "taken over" not in said
    assert "::error" in said, "it ran, and missed its event"
