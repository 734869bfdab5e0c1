"""A worker that is killed, an engine that goes away: who comes next finds the container and its output."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot.errors import SandboxUnavailable
from bot.sandbox.call import Writes
from bot.sandbox.containers import LABEL, OWNER_LABEL, PREFIX
from bot.sandbox.docker import DockerExecutor
from bot.sandbox.leftovers import sweep_leftovers
from tests.bot.sandbox import docker_runs
from tests.bot.sandbox.docker_runs import TOKEN, Door, Parent, Ran, run, script
from tests.engine import DockerEngine


def _left_by_a_kill(docker_engine: DockerEngine, name: str, code: str, place: Path) -> str:
    """What a process said whose worker was killed with signal 9 afterwards."""
    parent = Parent(docker_engine, name, code, place)
    said = parent.line()
    parent.kill()
    return said


def _again(docker_engine: DockerEngine, executor: DockerExecutor, place: Path, name: str, code: str = TOKEN) -> Ran:
    """The same call, by another process than that which was killed; what it waits for is there."""

    def go(_: str) -> None:
        docker_runs.let_go(docker_engine, name)

    return run(executor, script(place, code, Writes(place / "made"), name=name), on_line=go)


MAKES = TOKEN + "open(sys.argv[1], 'w').write('whole')\n"


def test_after_a_kill_the_same_container_is_found(
    docker_engine: DockerEngine, executor: DockerExecutor, tmp_path: Path
) -> None:
    said = _left_by_a_kill(docker_engine, "killed", MAKES, tmp_path)
    assert docker_runs.about(docker_engine, "killed")["State"]["Running"]
    ran = _again(docker_engine, executor, tmp_path, "killed", MAKES)
    assert (ran.exit.code, ran.lines) == (0, [said, "over"])
    assert (tmp_path / "made").read_text() == "whole"


def test_what_ended_while_nobody_looked_is_collected(
    docker_engine: DockerEngine, executor: DockerExecutor, tmp_path: Path
) -> None:
    said = _left_by_a_kill(docker_engine, "ended", MAKES, tmp_path)
    docker_runs.let_go(docker_engine, "ended")
    assert docker_engine.run("wait", PREFIX + "ended").stdout.strip() == "0"
    ran = run(executor, script(tmp_path, MAKES, Writes(tmp_path / "made"), name="ended"))
    assert ran.lines == [said, "over"]
    assert (tmp_path / "made").read_text() == "whole"


@pytest.mark.parametrize("kind", ["other inputs", "other limits", "killed", "its folder went"])
def test_a_container_that_is_of_no_use_is_replaced(
    docker_engine: DockerEngine, executor: DockerExecutor, tmp_path: Path, kind: str
) -> None:
    said = _left_by_a_kill(docker_engine, "stale", TOKEN, tmp_path)
    code, limits = TOKEN, {}
    if kind == "other inputs":
        code += "# another\n"
    elif kind == "other limits":
        limits = {"processes": 99}
    elif kind == "killed":
        docker_engine.run("kill", PREFIX + "stale")
    else:
        there = docker_runs.folder(docker_engine, "stale")
        docker_engine.run("kill", PREFIX + "stale")
        there.rename(tmp_path / "elsewhere")

    def go(line: str) -> None:
        docker_runs.let_go(docker_engine, "stale")

    ran = run(executor, script(tmp_path, code, Writes(tmp_path / "made"), name="stale", **limits), on_line=go)
    assert ran.exit.code == 0
    assert ran.lines[0].startswith("begun")
    assert ran.lines[0] != said


def test_a_container_whose_owner_lives_is_not_taken(
    docker_engine: DockerEngine, executor: DockerExecutor, tmp_path: Path
) -> None:
    parent = Parent(docker_engine, "held", TOKEN, tmp_path)
    said = parent.line()
    with pytest.raises(SandboxUnavailable, match="runs held already"):
        run(executor, script(tmp_path, TOKEN, Writes(tmp_path / "made"), name="held"))
    assert sweep_leftovers(0, base_url=docker_engine.host) == []
    assert docker_runs.about(docker_engine, "held")["State"]["Running"]
    parent.kill()
    assert _again(docker_engine, executor, tmp_path, "held").lines[0] == said


def test_an_engine_that_goes_away_is_told_and_its_container_found_again(
    docker_engine: DockerEngine, executor: DockerExecutor, tmp_path: Path
) -> None:
    said: list[str] = []
    with Door(docker_engine) as door:

        def shut(line: str) -> None:
            said.append(line)
            door.shut()

        call = script(tmp_path, MAKES, Writes(tmp_path / "made"), name="cut")
        with pytest.raises(SandboxUnavailable, match="engine"):
            run(DockerExecutor(docker_engine.image, base_url=door.host), call, on_line=shut)
    assert docker_runs.about(docker_engine, "cut")["State"]["Running"]
    assert _again(docker_engine, executor, tmp_path, "cut", MAKES).lines == [*said, "over"]


def test_what_nobody_comes_back_for_is_swept(
    docker_engine: DockerEngine, executor: DockerExecutor, tmp_path: Path
) -> None:
    _left_by_a_kill(docker_engine, "left", TOKEN, tmp_path)
    assert sweep_leftovers(base_url=docker_engine.host) == [], "it is not old enough"
    assert sweep_leftovers(0, base_url=docker_engine.host) == ["ptebot-left"]


def test_a_name_that_is_anothers_is_left_alone(
    docker_engine: DockerEngine, executor: DockerExecutor, tmp_path: Path
) -> None:
    docker_engine.run("create", "--name", "ptebot-theirs", docker_engine.image)
    try:
        with pytest.raises(SandboxUnavailable, match="not of ptebot"):
            run(executor, script(tmp_path, TOKEN, name="theirs"))
    finally:
        docker_engine.run("rm", "ptebot-theirs")
    with pytest.raises(ValueError, match="no name"):
        run(executor, script(tmp_path, TOKEN, name="../x"))


def test_what_is_left_of_the_same_owner_under_another_name_ends_first(
    docker_engine: DockerEngine, executor: DockerExecutor, tmp_path: Path
) -> None:
    """A newer commit's export has another name: nobody would ask for the older one's again."""
    for owner in ("acme-tiny", "acme-other"):
        labels = [f"--label={OWNER_LABEL}={owner}", f"--label={LABEL}=left"]
        name, image = f"--name={PREFIX}left-of-{owner}", docker_engine.image
        docker_engine.run("run", "--detach", name, *labels, "--network=none", "--entrypoint=/bin/sleep", image, "600")
    ended = run(executor, script(tmp_path, "print('new')", Writes(tmp_path / "made"), name="newer", owner="acme-tiny"))
    assert ended.lines == ["new"]
    left = docker_engine.run("ps", "--all", "--format={{.Names}}").stdout.split()
    assert f"{PREFIX}left-of-acme-tiny" not in left and f"{PREFIX}left-of-acme-other" in left
    docker_engine.run("rm", "--force", f"{PREFIX}left-of-acme-other")
