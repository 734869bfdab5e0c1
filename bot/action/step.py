"""One step of a job: an event in; exports, pull requests, and everyone told. Stages 1 to 6.

However it ends, the end is told everywhere that a person or a later step looks: log, annotations, summary, outputs.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

from bot import config, githubapi, sources
from bot.action import inputs, progress, telling
from bot.action.changed import changed_files
from bot.action.commands import Log
from bot.action.files import Leaving
from bot.action.inputs import Inputs
from bot.action.perform import Scene, perform
from bot.action.work import Work, plan
from bot.cli import TERMINATED, Terminated
from bot.errors import InvalidEvent
from bot.triggers import github
from bot.triggers.request import Ignored, Request
from exporter.errors import OutputNotEmpty

CANCELLED = TERMINATED
MAX_EVENT_BYTES = 32 << 20
"""GitHub's own limit for a webhook's payload is 25 MB."""


def run(env: Mapping[str, str], log: Log) -> int:
    """Do one step; its exit code. Everything that can go wrong is told, nothing is raised."""
    told = telling.Telling(env, log)
    try:
        _step(env, log, told)
    except Terminated:
        told.cancelled()
    except Exception as error:
        told.failed(error)
    return told.end()


def _step(env: Mapping[str, str], log: Log, told: telling.Telling) -> None:
    given = inputs.read(env)
    told.workspace = given.workspace
    request = _event(env)
    if isinstance(request, Ignored):
        told.ignored(request.reason)
        return
    told.why = request.why
    owners = config.load(given.config_path, required=given.config_required)
    client = githubapi.connect(given.github_token, api_url=env.get("GITHUB_API_URL") or githubapi.API_URL)
    works = plan(request, given, owners, lambda origin: changed_files(client, origin, log))
    if isinstance(works, Ignored):
        told.ignored(works.reason)
        return
    _check_output(given)
    _perform(works, request, given, env, log, client, told)


def _perform(
    works: tuple[Work, ...],
    request: Request,
    given: Inputs,
    env: Mapping[str, str],
    log: Log,
    client: githubapi.Client,
    told: telling.Telling,
) -> None:
    with tempfile.TemporaryDirectory(prefix="ptebot-", ignore_cleanup_errors=True) as scratch:
        for number, work in enumerate(works, 1):
            if len(works) > 1:
                log.say(f"Model {number} of {len(works)}: {work.model}")
            with progress.grouped(log) as show:
                scene = Scene(
                    given=given,
                    env=env,
                    request=request,
                    log=log,
                    show=show,
                    client=client,
                    root=Path(scratch),
                    leaving=Leaving(given.workspace, given.output_path),
                )
                told.add(perform(work, scene))


def _check_output(given: Inputs) -> None:
    """The output folder has to be free before any work starts."""
    try:
        sources.check_output(given.output_path)
    except OutputNotEmpty:
        raise OutputNotEmpty(
            f"The folder {given.output} of the workspace is not empty.",
            remedy="Name another folder in the input `output`, or check out a clean workspace first.",
        ) from None


def _event(env: Mapping[str, str]) -> Request | Ignored:
    name, path = env.get("GITHUB_EVENT_NAME"), env.get("GITHUB_EVENT_PATH")
    if not name or not path:
        raise InvalidEvent("GITHUB_EVENT_NAME or GITHUB_EVENT_PATH is not set.")
    try:
        with Path(path).open("rb") as file:
            text = file.read(MAX_EVENT_BYTES + 1)
        if len(text) > MAX_EVENT_BYTES:
            raise InvalidEvent(f"The event's payload is larger than {MAX_EVENT_BYTES:,} bytes.")
        payload = json.loads(text)
    except OSError as error:
        raise InvalidEvent(f"The event's payload cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError):
        raise InvalidEvent("The event's payload is not JSON.") from None
    return github.read(name, payload, env)
