"""The Action's door: what GitHub's runner starts in the container; an environment in, an exit code out. Stage 1.

Before anything else is printed, every secret of the environment is masked and taken out of it, and everything that
this process prints from then on goes through a log in which no text can be a command to the runner. A cancelled job
sends SIGINT, then SIGTERM: both unwind, so that children and half-written files go and the end is still told.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

from bot.action import stdio
from bot.action.commands import Log
from bot.action.inputs import INPUTS
from bot.action.step import CANCELLED, run
from bot.cli import Terminated

SECRET_VARIABLES = (
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
    "ACTIONS_RUNTIME_TOKEN",
    "GITHUB_TOKEN",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
)
"""What a job may carry besides the inputs that are secrets; to keep another one out of every log, add it."""


def main() -> int:
    """Run one step of a job."""
    env = dict(os.environ)
    log = Log(sys.stdout, on_github=env.get("GITHUB_ACTIONS") == "true", debug=env.get("RUNNER_DEBUG") == "1")
    for name in _secret_names():
        log.mask(env.get(name))
        os.environ.pop(name, None)
    with stdio.taken_over(log):
        signal.signal(signal.SIGTERM, _terminate)
        signal.signal(signal.SIGINT, _terminate)
        try:
            return run(env, log)
        except Terminated:
            # A second wish for the end, in the middle of telling the first.
            return CANCELLED


def _secret_names() -> list[str]:
    inputs = [f"INPUT_{one.name.upper()}" for one in INPUTS if one.secret]
    return [*SECRET_VARIABLES, *inputs, *(name.replace("-", "_") for name in inputs)]


def _terminate(number: int, frame: FrameType | None) -> None:
    """Unwind once; what follows in the runner's patience of some seconds is telling and cleaning up."""
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    raise Terminated
