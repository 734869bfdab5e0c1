"""Which images exports run in, and when there is no engine."""

from __future__ import annotations

import socket
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker as sdk
import pytest

from bot.errors import SandboxUnavailable
from bot.sandbox.docker import DockerExecutor
from exporter import __version__
from tests.bot.sandbox.docker_runs import run, script
from tests.engine import DockerEngine
from tests.localgithub import debian


def test_which_images_are_taken(docker_engine: DockerEngine) -> None:
    host = docker_engine.host
    whole = docker_engine.run("image", "inspect", "--format", "{{.Id}}", docker_engine.image).stdout.strip()
    assert DockerExecutor.available(whole, base_url=host) is None
    assert DockerExecutor.available(docker_engine.image, base_url=host) is None
    for absent in ("ptebot:nothing-here", "sha256:" + "0" * 64):
        assert "only a digest is pulled" in (DockerExecutor.available(absent, base_url=host) or "")
    absent = f"localhost:1/ptebot@sha256:{'0' * 64}"
    assert "did not do what it was asked" in (DockerExecutor.available(absent, base_url=host) or ""), "it was tried"


REGISTRY = """
version: 0.1
storage: {filesystem: {rootdir: FOLDER}}
http: {addr: "127.0.0.1:PORT"}
"""


@contextmanager
def registry(folder: Path) -> Iterator[str]:
    """Debian's docker-registry; where it listens."""
    debian.command("docker-registry", "docker-registry")
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port = trial.getsockname()[1]
    config = folder / "registry.yml"
    config.write_text(REGISTRY.replace("FOLDER", str(folder / "registry")).replace("PORT", str(port)))
    with subprocess.Popen(["docker-registry", "serve", str(config)], stderr=subprocess.PIPE) as server:
        assert server.stderr
        try:
            for line in server.stderr:
                if b"listening on" in line:
                    break
            threading.Thread(target=server.stderr.read, daemon=True).start()
            yield f"127.0.0.1:{port}"
        finally:
            server.kill()


def test_an_absent_image_is_pulled_by_digest_only(docker_engine: DockerEngine, tmp_path: Path) -> None:
    """The image is a small one of nobody's, so that it can be pulled is all that is seen."""
    empty = tmp_path / "empty.tar"
    with tarfile.open(empty, "w") as tar:
        tar.addfile(tarfile.TarInfo("file"))
    with registry(tmp_path) as place:
        name = f"{place}/small"
        docker_engine.run("import", str(empty), f"{name}:1")
        docker_engine.run("push", f"{name}:1")
        asked = "{{index .RepoDigests 0}}"
        digest = docker_engine.run("image", "inspect", "--format", asked, f"{name}:1").stdout.strip()
        docker_engine.run("rmi", f"{name}:1", digest, check=False)  # some engines remove both names at once
        why = DockerExecutor.available(f"{name}:1", base_url=docker_engine.host)
        assert "only a digest is pulled" in (why or "")
        assert docker_engine.run("image", "inspect", digest, check=False).returncode != 0
        why = DockerExecutor.available(digest, base_url=docker_engine.host)
        assert "cannot start an export" in (why or ""), "it was pulled, and has no ptebot"
        assert docker_engine.run("image", "inspect", digest).returncode == 0
        docker_engine.run("rmi", digest)


def test_an_image_of_another_version_is_told(docker_engine: DockerEngine) -> None:
    client = sdk.DockerClient(base_url=docker_engine.host)
    made = client.containers.create(docker_engine.image)
    try:
        changes = 'LABEL org.opencontainers.image.version="v99.0"'
        labelled = made.commit("ptebot", "other-label", changes=changes)
        assert f"'v99.0'; this is {__version__}" in (
            DockerExecutor.available(labelled.id, base_url=docker_engine.host) or ""
        )
    finally:
        made.remove()
        client.images.remove("ptebot:other-label", force=True)
        client.close()


def test_without_an_engine(tmp_path: Path) -> None:
    nowhere = f"unix://{tmp_path}/docker.sock"
    assert DockerExecutor.available("ptebot:x", base_url=nowhere) == f"No Docker engine answers at {nowhere}."
    with pytest.raises(SandboxUnavailable):
        run(DockerExecutor("ptebot:x", base_url=nowhere), script(tmp_path, ""))
