"""ptebot itself in a container with the engine's socket: exports run beside it, and nothing of it reaches them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bot.sandbox import container_place
from bot.sandbox.sibling import SiblingExecutor
from tests.bot.sandbox import docker_runs
from tests.bot.sandbox.docker_runs import SECRET
from tests.engine import DockerEngine
from tests.exporter.models import tiny_model

ASK = """
import json, sys
from pathlib import Path
from bot.sandbox.docker import DockerExecutor
from bot.sandbox.sibling import SiblingExecutor
image = sys.argv[1]
found = {"docker": DockerExecutor.available(image), "sibling": SiblingExecutor.available(image)}
"""
EXPORT = (
    ASK
    + """
import docker, os
from bot import export_process
from bot.sandbox.call import Conditions, Limits, Writes
from bot.sandbox.containers import PREFIX
from exporter import spec as specs
from bot.errors import OutputNotTrusted, SandboxUnavailable
from tests.bot.sandbox.docker_runs import script, run

def look(_):
    if "about" not in found:
        found["about"] = docker.from_env().containers.get(PREFIX + "beside").attrs

executor = SiblingExecutor(image)
asked = {"backends": ["portable"], "precisions": ["fp32"], "max_seq_len": 32, "rehearse": False}
report = export_process.run_export(
    specs.parse(asked), Path("/data/model"), Path("/data/work/out"), on_progress=look,
    conditions=Conditions(executor=executor, limits=Limits(memory_bytes=4 << 30, output_bytes=64 << 20), name="beside"))
found["cells"] = [cell.status.value for cell in report.cells]
found["owners"] = sorted({path.stat().st_uid for path in Path("/data/work/out").rglob("*")})

fill = "import sys\\nwhile True: open(sys.argv[1], 'ab').write(bytes(1 << 20))"
ran = run(executor, script(Path("/data/code"), fill, Writes(Path("/data/work/filled")), output_bytes=20 << 20))
found["filled"] = ran.exit.too_much_output
try:
    run(executor, script(Path("/data/code"), "import os, sys; os.symlink('/data', sys.argv[1])",
                         Writes(Path("/data/work/link"))))
except OutputNotTrusted:
    found["link"] = "refused"
found["there"] = sorted(path.name for path in Path("/data/work").iterdir())
found["left"] = [path.name for path in Path("/data").glob("ptebot-run-*")]
"""
)


@pytest.fixture
def volume(docker_engine: DockerEngine) -> Iterator[str]:
    name = f"ptebot-tests-{uuid.uuid4().hex[:8]}"
    docker_engine.run("volume", "create", name)
    yield name
    docker_engine.run("volume", "rm", name)


def inside(docker: DockerEngine, code: str, *options: str) -> dict[str, Any]:
    """What ``code``, as ptebot in a container with the engine's socket, leaves in ``found``."""
    whole = f"{code}\nprint(json.dumps(found))\n"
    socket = docker.host.removeprefix("unix://")
    given = ["--rm", "--network=none", "--volume", f"{socket}:/var/run/docker.sock", "--env", f"HF_TOKEN={SECRET}"]
    # The tests' own modules; ptebot is the image's.
    given += ["--volume", f"{docker_runs.ROOT}/tests:/tests/tests:ro", "--env", "PYTHONPATH=/tests"]
    given += ["--env", "OMP_NUM_THREADS=1", "--workdir=/tmp", "--entrypoint", "/opt/ptebot/bin/python", *options]
    done = docker.run("run", *given, docker.image, "-P", "-c", whole, docker.image, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_an_export_beside_ptebots_own_container(docker_engine: DockerEngine, volume: str, tmp_path: Path) -> None:
    """Its data lie in a volume, whose name on the host it does not know."""
    model = tiny_model("llama", tmp_path / "model", num_hidden_layers=1)
    mounts = ["--volume", f"{volume}:/data", "--volume", f"{model}:/data/model:ro"]
    found = inside(docker_engine, EXPORT, *mounts)
    assert found["sibling"] is None
    assert "rung sibling" in found["docker"]
    assert (found["cells"], found["owners"]) == (["ran"], [0])
    assert found["filled"] is True
    assert (found["link"], found["there"], found["left"]) == ("refused", ["out"], [])
    about = found["about"]
    assert SECRET not in json.dumps(about)
    assert sorted((one["Destination"], one["RW"]) for one in about["Mounts"]) == [("/in", False), ("/out", True)]
    assert all(volume in one["Source"] for one in about["Mounts"]), "what is mounted lies in the volume"
    assert about["HostConfig"]["NetworkMode"] == "none"
    assert docker_runs.containers(docker_engine) == []


def test_without_a_shared_folder_it_says_what_to_do(docker_engine: DockerEngine) -> None:
    found = inside(docker_engine, ASK)
    assert found["sibling"] == "The Docker engine cannot reach the folders of this container."
    assert docker_runs.containers(docker_engine) == []


def test_outside_of_a_container_there_is_no_sibling(docker_engine: DockerEngine) -> None:
    why = SiblingExecutor.available(docker_engine.image, base_url=docker_engine.host)
    assert why == "ptebot runs in no container of the Docker engine that answers."


OWN, OTHER = "ab" * 32, "cd" * 32


@pytest.mark.parametrize(
    ("said", "ids"),
    [
        (f"560 540 8:1 /var/lib/docker/containers/{OWN}/hostname /etc/hostname rw - ext4 /dev/sda rw\n", [OWN]),
        (f"560 540 8:1 /var/lib/docker/containers/{OTHER}/hostname /mnt/x rw - ext4 /dev/sda rw\n", []),
        (f"560 540 8:1 /containers/{OTHER}/hosts /x rw\n561 540 8:1 /containers/{OWN}/hosts /etc/hosts rw\n", [OWN]),
        ("22 1 8:1 / / rw - ext4 /dev/sda rw\n", []),
        ("", []),
    ],
)
def test_which_container_is_our_own(tmp_path: Path, said: str, ids: list[str]) -> None:
    path = tmp_path / "mountinfo"
    path.write_text(said)
    assert container_place._ids((str(path), str(tmp_path / "absent"))) == ids


@pytest.mark.parametrize("said", [f"5:pids:/docker/{OWN}\n", f"0::/system.slice/docker-{OWN}.scope\n"])
def test_which_container_is_our_own_as_cgroups_say(tmp_path: Path, said: str) -> None:
    path = tmp_path / "cgroup"
    path.write_text(said)
    assert container_place._ids((str(path),)) == [OWN]


@pytest.mark.parametrize(
    ("about", "why"),
    [
        ({"OSType": "linux", "SecurityOptions": ["name=seccomp,profile=default"]}, None),
        ({"OSType": "windows"}, "Linux"),
        ({"SecurityOptions": ["name=rootless"]}, "rootless"),
        ({"SecurityOptions": ["name=userns"]}, "userns"),
    ],
)
def test_engines_whose_users_are_others(about: dict[str, Any], why: str | None) -> None:
    class Client:
        def info(self) -> dict[str, Any]:
            return about

    said = container_place.strange_users(Client())
    assert said is None if why is None else why in (said or "")
