"""The demo's stage: a local Hub as a child process, an example model on it, answers from the files offered.

In: a directory for the Hub's data and the name of an example. Out: a Hub that answers, a repository with the
model in it, and, for a model that speaks, what the files of the pull request say to one question. The job
between them is the same that ``ptebot run`` does.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from huggingface_hub import CommitOperationAdd

from bot import leash
from bot.errors import DemoFailed, RunnerFailed
from bot.hubapi import asking, connect

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
NOT_THE_MODEL = (".py", ".in")
"""What of an example's directory an owner would not upload: the scripts and templates that made the model."""
START_SECONDS = 60.0
QUESTION = "What is the capital of France? Answer in one sentence."


@dataclass(frozen=True, kw_only=True)
class Example:
    """A model for the demo."""

    title: str
    prepare: Callable[[Callable[[str], None]], Path]
    """Gives the model's directory; told a function that says what happens."""
    backends: tuple[str, ...]
    precisions: tuple[str, ...]
    max_seq_len: int
    speaks: bool
    """Whether an answer of it means something."""


def _sample(say: Callable[[str], None]) -> Path:
    directory = EXAMPLES / "sample-model"
    if not (directory / "config.json").is_file():
        raise DemoFailed(
            f"The sample model is not in {directory}.", remedy="Run the demo from a clone of ptebot's repository."
        )
    return directory


def _smollm2(say: Callable[[str], None]) -> Path:
    return Path(_script("make_model").make(progress=say))


EXAMPLE_MODELS = {
    "sample": Example(
        title="a small model trained on Python's standard library",
        prepare=_sample,
        backends=("portable", "xnnpack", "openvino"),
        precisions=("fp32", "8da4w"),
        max_seq_len=256,
        speaks=False,
    ),
    "smollm2": Example(
        title="SmolLM2-135M-Instruct",
        prepare=_smollm2,
        backends=("xnnpack",),
        precisions=("fp32", "8da4w"),
        max_seq_len=512,
        speaks=True,
    ),
}
"""To add an example: a line here, and a directory below examples/."""


@dataclass(frozen=True, kw_only=True)
class LocalHub:
    """A Hub that answers."""

    endpoint: str
    token: str = field(repr=False)
    users: dict[str, str] = field(default_factory=dict, repr=False)
    """Tokens of the accounts that were asked for, by name."""


@contextmanager
def local_hub(data: Path, port: int = 0, users: tuple[str, ...] = ()) -> Iterator[LocalHub]:
    """A Hub on this machine for the time of a ``with`` block, in a child that ends with this process.

    Raises:
        DemoFailed: it did not start.
    """
    data.mkdir(parents=True, exist_ok=True)
    log = data / "localhub.log"
    hub_itself = ["bot.cli", "localhub", "--json", "--data", str(data)]
    hub_itself += [word for name in users for word in ("--user", name)]
    command = [sys.executable, "-m", "bot.leash", leash.NETWORK, *hub_itself]
    # No one's token or login gets into the Hub's process, nor a proxy between it and us.
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}
    with log.open("wb") as stderr:
        hub = subprocess.Popen(
            [*command, "--port", str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=kept,
            start_new_session=True,
        )
    try:
        yield _first_words(hub, log)
    finally:
        # The leash: the child's process group ends when this end of the pipe closes.
        for stream in (hub.stdin, hub.stdout):
            if stream:
                stream.close()
        hub.wait()


def _first_words(hub: subprocess.Popen[bytes], log: Path) -> LocalHub:
    """The endpoint and the token from the Hub's first line."""
    assert hub.stdout  # noqa: S101 - for the type checker: it was asked for
    watchdog = threading.Timer(START_SECONDS, hub.kill)
    watchdog.start()
    try:
        line = hub.stdout.readline()
    finally:
        watchdog.cancel()
    try:
        said = json.loads(line)
        return LocalHub(endpoint=said["endpoint"], token=said["token"], users=said["users"])
    except (ValueError, KeyError, TypeError):
        told = log.read_text(encoding="utf-8", errors="replace").strip()[-2000:]
        raise DemoFailed(
            f"The local Hub did not start within {START_SECONDS:.0f} s: {told or 'it said nothing'}"
        ) from None


def upload(hub: LocalHub, directory: Path, name: str) -> str:
    """The example in a repository of its own on ``hub``, as its owner would upload it; gives its id.

    Raises:
        PtebotError: as the Hub answers.
    """
    api = connect(hub.endpoint, hub.token)
    with asking(f"uploading {name}", api):
        owner = str(api.whoami()["name"])
        repo_id = f"{owner}/{name}"
        api.create_repo(repo_id, exist_ok=True)
        files = sorted(path for path in directory.iterdir() if path.suffix not in NOT_THE_MODEL and path.is_file())
        api.create_commit(
            repo_id,
            [CommitOperationAdd(path_in_repo=path.name, path_or_fileobj=path) for path in files],
            commit_message=f"Upload {name}",
        )
    return repo_id


@dataclass(frozen=True, kw_only=True)
class Said:
    """One answer to the question."""

    by: str
    text: str
    stopped_by: str
    """``eos``: it ended by itself; ``length``: it had to be stopped; or what else ended it."""


def answers(hub: LocalHub, repo_id: str, revision: str, files: list[str], model_dir: Path, into: Path) -> list[Said]:
    """What transformers and each file of the pull request say to ``QUESTION``, greedily.

    Args:
        files: paths in the repository at ``revision``; they are downloaded, as anyone would.

    Raises:
        RunnerFailed: ExecuTorch's LLM runner gave no answer.
    """
    api = connect(hub.endpoint, hub.token)
    said: list[Said] = []
    for path in files:
        with asking(f"downloading {path}", api):
            local = Path(api.hf_hub_download(repo_id, path, revision=revision, local_dir=into))
        found = _ask(local, model_dir, reference=not said)
        if "eager" in found:
            said.append(_said("transformers, eager float32", found["eager"]))
        said.append(_said(path, found["runner"]))
    return said


def _said(by: str, answer: dict[str, Any]) -> Said:
    return Said(by=by, text=answer["text"], stopped_by=answer["stopped_by"])


def _ask(file: Path, model_dir: Path, *, reference: bool) -> dict[str, Any]:
    """The answers that examples/smollm2/ask.py prints; in a process of its own, which keeps torch out of this one."""
    command = [sys.executable, str(_example_file("ask")), str(file), str(model_dir), QUESTION]
    done = subprocess.run(
        [*command, "--reference"] if reference else command, check=False, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise RunnerFailed(f"{file.name}: {done.stderr.strip()[-600:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _example_file(name: str) -> Path:
    """A script of examples/smollm2."""
    path = EXAMPLES / "smollm2" / f"{name}.py"
    if not path.is_file():
        raise DemoFailed(f"{path} is missing.", remedy="Run the demo from a clone of ptebot's repository.")
    return path


def _script(name: str) -> ModuleType:
    """A script of examples/smollm2 as a module."""
    spec = importlib.util.spec_from_file_location(f"ptebot_example_{name}", _example_file(name))
    if spec is None or spec.loader is None:
        raise DemoFailed(f"{name}.py cannot be read as a module.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module
