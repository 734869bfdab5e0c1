"""One step with a container action: run, read, and cancelled as the runner does it."""

from __future__ import annotations

import json
import os
import secrets as random
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import yaml

from tests.runner import files, inputs
from tests.runner.commands import Command, Masks, Reader
from tests.runner.job import Job

RUNNER_UID = 1001
"""Who owns the workspace on GitHub's machines."""
SIGINT_SECONDS, SIGTERM_SECONDS = 7.5, 2.5
"""ProcessInvoker's patience after each signal, before it kills."""


class Docker(Protocol):
    """What ``tests.engine.docker_engine`` gives."""

    host: str
    client: str
    image: str


@dataclass(kw_only=True)
class Result:
    """What is left of a step."""

    exit_code: int
    conclusion: str
    """success, failure or cancelled."""
    log: str
    """As the container wrote it, both streams by line as they came."""
    masked_log: str
    """As a person sees it on GitHub."""
    commands: list[Command]
    """The workflow commands that were obeyed, in order."""
    outputs: dict[str, str]
    summary: str | None
    env_changes: dict[str, str]
    state: dict[str, str]
    path_changes: list[str]
    errors: list[str]
    """Complaints of the runner itself."""
    warnings: list[str]
    container: str
    """The name it had."""
    left: list[str]
    """What lies in the runner's temporary folder and in HOME behind the step."""
    seconds: float

    def annotations(self, level: str) -> list[Command]:
        return [command for command in self.commands if command.name == level]


class Running:
    """A step on its way."""

    def __init__(self, docker: Docker, name: str, process: subprocess.Popen[bytes], reader: Reader) -> None:
        self.docker, self.name, self.process, self.reader = docker, name, process, reader
        self.cancelled = False
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._follow, args=(stream,), daemon=True)
            for stream in (process.stdout, process.stderr)
            if stream is not None
        ]
        for thread in self._threads:
            thread.start()

    def _follow(self, stream: IO[bytes]) -> None:
        with open(stream.fileno(), encoding="utf-8", errors="replace", newline=None, closefd=False) as text:
            for line in text:
                with self._lock:
                    self.reader.line(line.rstrip("\n"))

    def wait_for(self, text: str, timeout: float = 120) -> None:
        """Until the log has it."""
        until = time.monotonic() + timeout
        while not any(text in line for line in list(self.reader.raw)):
            if self.process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"{text!r} never came:\n" + "\n".join(self.reader.raw))
            time.sleep(0.05)

    def cancel(self) -> None:
        """What a person's Cancel does: SIGINT, then SIGTERM, then SIGKILL to ``docker run``, which hands on the two."""
        self.cancelled = True
        for number, patience in ((signal.SIGINT, SIGINT_SECONDS), (signal.SIGTERM, SIGTERM_SECONDS)):
            with suppress(ProcessLookupError):
                self.process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(patience)
                return
        self.process.kill()

    def stop(self) -> None:
        """``docker stop``: SIGTERM, and after ten seconds SIGKILL."""
        self.cancelled = True
        _docker(self.docker, "stop", self.name)

    def wait(self, timeout: float) -> int:
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            _docker(self.docker, "kill", self.name)
            raise AssertionError("The step does not end:\n" + "\n".join(self.reader.raw)) from None
        for thread in self._threads:
            thread.join(10)
        return code


def run_action(
    docker: Docker,
    action_yml: Path,
    *,
    workspace: Path,
    job: Job,
    with_: Mapping[str, object] | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 600,
) -> Result:
    """Run the step to its end.

    Args:
        docker: the engine, with the action's image.
        action_yml: the action.
        workspace: GITHUB_WORKSPACE; everything in it is given to the runner's user first.
        with_: the step's ``with``; values may look up ``${{ secrets.NAME }}``.
        env: the step's ``env``, likewise.
        timeout: in seconds; a longer step is killed and fails the test.
    """
    with start_action(docker, action_yml, workspace=workspace, job=job, with_=with_, env=env) as (running, result):
        running.wait(timeout)
        return result()


@contextmanager
def start_action(
    docker: Docker,
    action_yml: Path,
    *,
    workspace: Path,
    job: Job,
    with_: Mapping[str, object] | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[tuple[Running, Any]]:
    """The step while it runs, and a function that gives its ``Result`` once it has ended."""
    action = yaml.safe_load(action_yml.read_text(encoding="utf-8"))
    github = job.context()
    contexts = {"github": github, "secrets": job.secrets, "env": dict(env or {})}
    masks = Masks()
    for secret in [*job.secrets.values(), job.token, *(job.id_token or ())[1:]]:
        masks.add(secret)
    given, warnings = inputs.environment(action.get("inputs") or {}, with_ or {}, contexts)
    home = Path(tempfile.mkdtemp(prefix="ptebot-runner-"))
    try:
        folders = {name: home / name for name in ("_temp", "_github_home", "_github_workflow", "_runner_file_commands")}
        for folder in folders.values():
            folder.mkdir()
        (folders["_github_workflow"] / "event.json").write_text(json.dumps(job.event), encoding="utf-8")
        suffix = random.token_hex(8)
        for kind in files.NAMES.values():
            (folders["_runner_file_commands"] / f"{kind}_{suffix}").touch()
        _give(home)
        _give(workspace)
        variables = {
            **{name: inputs.evaluate(value, contexts) for name, value in (env or {}).items()},
            **{name: inputs.evaluate(value, contexts) for name, value in (action["runs"].get("env") or {}).items()},
            **given,
            **job.variables(github, suffix),
        }
        name = f"ptebot_{suffix}"
        command = _command(docker, action, name, variables, workspace, folders)
        start = time.monotonic()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "DOCKER_HOST": docker.host, **variables},
            start_new_session=True,
        )
        running = Running(docker, name, process, Reader(masks))

        def result() -> Result:
            code = running.wait(60)
            return _result(running, code, folders, suffix, warnings, time.monotonic() - start)

        try:
            yield running, result
        finally:
            _docker(docker, "rm", "--force", name)
            process.wait(30)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _command(
    docker: Docker,
    action: Mapping[str, Any],
    name: str,
    variables: Mapping[str, str],
    workspace: Path,
    folders: Mapping[str, Path],
) -> list[str]:
    mounts = {
        docker.host.removeprefix("unix://"): "/var/run/docker.sock",
        folders["_temp"]: "/github/runner_temp",
        folders["_github_home"]: "/github/home",
        folders["_github_workflow"]: "/github/workflow",
        folders["_runner_file_commands"]: "/github/file_commands",
        workspace: "/github/workspace",
    }
    # The runner gives the container a network of its own; the host's lets it reach servers on loopback here.
    command = [docker.client, "run", "--name", name, "--workdir", "/github/workspace", "--rm", "--network", "host"]
    for variable in variables:
        command += ["-e", variable]
    command += ["-e", "GITHUB_ACTIONS=true", "-e", "CI=true"]
    for here, there in mounts.items():
        command += ["-v", f"{here}:{there}"]
    if action["runs"].get("entrypoint"):
        command += ["--entrypoint", action["runs"]["entrypoint"]]
    return [*command, docker.image, *map(str, action["runs"].get("args") or ())]


def _result(
    running: Running, code: int, folders: Mapping[str, Path], suffix: str, warnings: list[str], seconds: float
) -> Result:
    reader = running.reader
    broken, complaints = list(reader.errors), list[str]()
    outputs = dict(reader.outputs)
    texts = {kind: folders["_runner_file_commands"] / f"{kind}_{suffix}" for kind in files.NAMES.values()}

    def read(kind: str) -> dict[str, str]:
        try:
            return files.pairs(texts[kind].read_text(encoding="utf-8"))
        except files.InvalidFile as error:
            broken.append(f"Unable to process file command '{kind}' successfully: {error}")
            return {}

    summary: str | None = None
    try:
        summary = files.summary(texts["step_summary"])
    except files.InvalidFile as error:
        complaints.append(str(error))
    outputs |= read("set_output")
    state, changes = read("save_state"), read("set_env")
    left = [
        str(path.relative_to(folders[name].parent))
        for name in ("_temp", "_github_home")
        for path in sorted(folders[name].rglob("*"))
    ]
    conclusion = "cancelled" if running.cancelled else "failure" if code or broken else "success"
    return Result(
        exit_code=code,
        conclusion=conclusion,
        log="\n".join(reader.raw),
        masked_log="\n".join(reader.log),
        commands=reader.commands,
        outputs=outputs,
        summary=None if summary is None else reader.masks.hide(summary),
        env_changes=changes,
        state=state,
        path_changes=files.paths(texts["add_path"].read_text(encoding="utf-8")),
        errors=[*broken, *complaints],
        warnings=warnings,
        container=running.name,
        left=left,
        seconds=round(seconds, 1),
    )


def _give(folder: Path) -> None:
    """To the runner's user, where we may."""
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, RUNNER_UID, RUNNER_UID, follow_symlinks=False)


def _docker(docker: Docker, *args: str) -> None:
    environment = {**os.environ, "DOCKER_HOST": docker.host}
    subprocess.run([docker.client, *args], env=environment, capture_output=True, check=False)
