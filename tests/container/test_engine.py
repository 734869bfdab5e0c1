"""The tools that make the engine and the image: shared by those who need it at once, and clear where they cannot."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.engine import DockerEngine
from tools import engine, image


def test_the_next_user_gets_the_same_engine_and_does_not_end_it(docker_engine: DockerEngine) -> None:
    with engine.engine() as again:
        assert again.host == docker_engine.host
    assert docker_engine.run("version", check=False).returncode == 0


def test_an_engine_that_answers_is_taken(docker_engine: DockerEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", docker_engine.host)
    with engine.engine() as found:
        assert (found.host, found.own) == (docker_engine.host, False)


def test_without_an_engine_and_without_rights_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(engine.NoEngine, match="as root"), engine.engine():
        pass


def test_a_client_with_buildkit_goes_before_one_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, version, plugin in (("new", "28.2.2", 1), ("old", "20.10.24+dfsg1", 1), ("plugin", "29.0.0", 0)):
        program = tmp_path / name / "docker"
        program.parent.mkdir()
        program.write_text(
            f'#!/bin/sh\n[ "$1" = buildx ] && {{ [ {plugin} = 0 ] && echo buildx; exit {plugin}; }}\necho {version}\n'
        )
        program.chmod(0o755)
    for order, best in ((("new", "old"), "old"), (("new", "plugin", "old"), "plugin"), (("old", "plugin"), "old")):
        monkeypatch.setenv("PATH", os.pathsep.join(f"{tmp_path}/{name}" for name in order))
        assert engine._best_client("unix:///nowhere") == f"{tmp_path}/{best}/docker"


def test_a_build_that_fails_shows_its_log(docker_engine: DockerEngine) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)docker build ended with 1.*nothing-here"):
        image._docker_build(docker_engine, "ptebot:broken", {"BASE_IMAGE": "localhost:1/nothing-here:x"})


def test_packages_are_collected_again_only_where_their_names_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image, "ROOT", tmp_path)
    monkeypatch.setattr(image, "STATE", tmp_path)
    extras = "[project.optional-dependencies]\nopenvino = []\nkubernetes = []\notel = []\n"
    project = f"[project]\ndependencies = []\n{extras}[build-system]\nrequires = []\n"
    (tmp_path / "pyproject.toml").write_text(project)
    (tmp_path / "constraints.txt").write_text("pip==0.0.0-none\n")
    with pytest.raises(RuntimeError, match="pip wheel ended"):
        image._collect(tmp_path / "wheels")
    assert not (tmp_path / "wheels" / "collected-for").exists(), "what is not whole is made again"
    with image._served(tmp_path) as first, image._served(tmp_path) as second:
        assert first != second, "a port that is taken is left alone"
    with image._served(tmp_path) as again:
        assert again == second, "the same address lets Docker take its layers again"
