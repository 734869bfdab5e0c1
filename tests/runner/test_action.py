"""The emulated runner with a real container: what the container finds, and what is read behind it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.engine import DockerEngine
from tests.runner import Job, Result, run_action, start_action
from tests.runner.action import RUNNER_UID

PUSH = {"ref": "refs/heads/main", "after": "a" * 40, "repository": {"full_name": "acme/tiny", "owner": {"id": 5}}}
AS_ROOT = os.geteuid() == 0


def action(folder: Path, script: str) -> Path:
    """An action whose container runs a script of the shell (which itself drops variables with a hyphen)."""
    folder.mkdir(exist_ok=True)
    lines = ["name: t", "inputs:", "  model-id: {default: d}", "  tok: {default: '${{ github.token }}'}", "runs:"]
    lines += ["  using: docker", "  image: Dockerfile", "  entrypoint: /bin/sh"]
    (folder / "action.yml").write_text("\n".join([*lines, "  args:", "    - -c", "    - |"]), encoding="utf-8")
    with (folder / "action.yml").open("a", encoding="utf-8") as file:
        file.write("".join(f"\n      {line}" for line in script.splitlines()))
    return folder / "action.yml"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    path = tmp_path / "workspace"
    path.mkdir()
    return path


def run(docker: DockerEngine, tmp_path: Path, script: str, job: Job | None = None, **options: object) -> Result:
    chosen = {"workspace": tmp_path / "workspace", "job": job or Job(event_name="push", event=PUSH), **options}
    return run_action(docker, action(tmp_path / "action", script), timeout=60, **chosen)  # type: ignore[arg-type]


def test_what_the_container_finds(docker_engine: DockerEngine, workspace: Path, tmp_path: Path) -> None:
    script = """
id -u; pwd; stat -c %u .; echo "home=$HOME"; tr '\\0' '\\n' < /proc/1/environ
cat "$GITHUB_EVENT_PATH"; echo; ls /github; test -S /var/run/docker.sock && echo socket
"""
    job = Job(event_name="push", event=PUSH, secrets={"HF": "hf_secret"}, id_token=("http://127.0.0.1/t", "idt0ken"))
    found = run(docker_engine, tmp_path, script, job, with_={"model-id": "${{ secrets.HF }}"}, env={"MINE": "1"})
    assert found.conclusion == "success", found.masked_log
    lines = found.log.splitlines()
    assert lines[0] == "0"
    assert lines[1] == "/github/workspace"
    assert lines[2] == str(RUNNER_UID if AS_ROOT else os.getuid())
    wanted = {
        "home=/github/home", "MINE=1", "INPUT_MODEL-ID=hf_secret", f"INPUT_TOK={job.token}", "CI=true", "socket",
        "GITHUB_ACTIONS=true", "GITHUB_REPOSITORY=acme/tiny", "GITHUB_REF_NAME=main", f"GITHUB_SHA={'a' * 40}",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN=idt0ken", "GITHUB_EVENT_NAME=push", "file_commands", "runner_temp",
    }  # fmt: skip
    assert wanted <= set(lines)
    assert not any(line.startswith("GITHUB_TOKEN=") for line in lines)
    assert '"ref": "refs/heads/main"' in found.log
    for secret in ("hf_secret", job.token, "idt0ken"):
        assert secret not in found.masked_log


def test_what_is_read_behind_it(docker_engine: DockerEngine, workspace: Path, tmp_path: Path) -> None:
    script = """
printf 'a=1\\nb<<X\\ntwo\\nlines\\nX\\n' >> "$GITHUB_OUTPUT"; echo 'E=f' >> "$GITHUB_ENV"; echo /x >> "$GITHUB_PATH"
echo S=t >> "$GITHUB_STATE"; echo '# Done tok3n' >> "$GITHUB_STEP_SUMMARY"
echo '::add-mask::tok3n'; echo '::error title=T::wrong' >&2; touch made "$HOME/left"; exit 3
"""
    found = run(docker_engine, tmp_path, script)
    assert (found.exit_code, found.conclusion) == (3, "failure")
    assert found.outputs == {"a": "1", "b": "two\nlines"}
    assert (found.env_changes, found.state, found.path_changes) == ({"E": "f"}, {"S": "t"}, ["/x"])
    assert found.summary == "# Done ***\n"
    assert [(one.data, one.properties) for one in found.annotations("error")] == [("wrong", {"title": "T"})]
    assert (workspace / "made").stat().st_uid == 0
    assert found.left == ["_github_home/left"]


def test_files_that_the_runner_refuses(docker_engine: DockerEngine, workspace: Path, tmp_path: Path) -> None:
    broken = run(docker_engine, tmp_path, 'echo "no pair" >> "$GITHUB_OUTPUT"')
    assert (broken.exit_code, broken.conclusion) == (0, "failure")
    large = run(docker_engine, tmp_path, 'head -c 1048577 /dev/zero | tr "\\0" x >> "$GITHUB_STEP_SUMMARY"')
    assert (large.conclusion, large.summary) == ("success", None)
    assert "supports content up to a size of 1024k" in large.errors[0]


def test_cancelling_interrupts_first_and_then_insists(
    docker_engine: DockerEngine, workspace: Path, tmp_path: Path
) -> None:
    script = "trap 'echo told; exit 9' INT; trap '' TERM; echo up; while :; do sleep 0.1; done"
    job = Job(event_name="push", event=PUSH)
    with start_action(docker_engine, action(tmp_path / "a", script), workspace=workspace, job=job) as (running, result):
        running.wait_for("up")
        running.cancel()
        ended = result()
    assert (ended.exit_code, ended.conclusion) == (9, "cancelled")
    assert "told" in ended.log
    assert ended.container not in docker_engine.run("ps", "--all", "--format", "{{.Names}}").stdout
