"""One step of a job: an event in; exports, pull requests, and everyone told. Stages 1 to 6.

However it ends, the end is told everywhere that a person or a later step looks: log, annotations, summary, outputs.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from bot import config, githubapi, sources
from bot.action import inputs, progress, telling
from bot.action.commands import Log
from bot.action.files import Leaving
from bot.action.inputs import Inputs
from bot.action.perform import Scene, perform, target_of
from bot.action.work import Work, plan
from bot.cli import TERMINATED, Terminated
from bot.config import Config
from bot.errors import InvalidConfig, InvalidEvent
from bot.export_process import OnProgress, Progress
from bot.githubapi import Client
from bot.replies import status
from bot.replies.changed import changed_files
from bot.replies.conversation import Conversation
from bot.triggers import github
from bot.triggers.request import Ignored, Request
from bot.triggers.select import opted_out
from exporter.errors import OutputNotEmpty

CANCELLED = TERMINATED
MAX_EVENT_BYTES = 32 << 20
"""GitHub's own limit for a webhook's payload is 25 MB."""


def run(env: Mapping[str, str], log: Log) -> int:
    """Do one step; its exit code. Everything that can go wrong is told, nothing is raised."""
    told = telling.Telling(env, log)
    step = _Step(env, log, told)
    try:
        step.run()
    except Terminated:
        told.cancelled()
    except Exception as error:
        told.failed(error)
    try:
        return told.end(step.conversation)
    except Terminated:
        # In the middle of an answer that GitHub is slow to take: what needs no network is told at least.
        told.cancelled()
        return told.end()


class _Step:
    """What a step learns on its way."""

    def __init__(self, env: Mapping[str, str], log: Log, told: telling.Telling) -> None:
        self._env, self._log, self._told = env, log, told
        self.conversation: Conversation | None = None
        """Whom the end is told to; None where nobody waits for an answer (any more)."""

    def run(self) -> None:
        env, told = self._env, self._told
        given = inputs.read(env)
        told.workspace = given.workspace
        request = _event(env)
        if isinstance(request, Ignored):
            told.ignored(request.reason)
            return
        told.why = request.why
        client = githubapi.connect(given.github_token, api_url=env.get("GITHUB_API_URL") or githubapi.API_URL)
        talk = Conversation(
            client if given.github_token else None,
            request.origin,
            run_url=_run_url(env),
            warn=self._warn if request.origin.comment_id is not None else self._log.say,
        )
        try:
            owners = config.load(given.config_path, required=given.config_required)
        except InvalidConfig:
            self.conversation = talk if talk.allowed() else None
            raise
        if (reason := opted_out(owners, request)) is not None:
            told.ignored(reason)
        elif not talk.allowed():
            reason = f"{request.origin.actor} may not write to {request.origin.repository}"
            if not given.github_token:
                reason = "without a github-token nobody can be asked for, so that no comment is a command"
            talk.refuse(reason)
            told.ignored(reason)
        elif request.verb == "help":
            talk.help(request)
            told.ignored((request.problem or "help was asked for").rstrip("."))
        else:
            self.conversation = talk
            self._export(request, given, owners, client, talk)

    def _export(self, request: Request, given: Inputs, owners: Config, client: Client, talk: Conversation) -> None:
        works = plan(request, given, owners, lambda origin: changed_files(client, origin))
        if isinstance(works, Ignored):
            self._told.ignored(works.reason)
            if request.origin.comment_id is None:
                self.conversation = None  # a push that touches no model leaves no trace on its commit
            return
        scene_of = partial(
            Scene,
            given=given,
            env=self._env,
            request=request,
            log=self._log,
            client=client,
            leaving=Leaving(given.workspace, given.output_path),
        )
        if request.verb == "status":
            self._status(works, scene_of(root=Path()), talk)
            return
        _check_output(given)
        talk.start()
        with tempfile.TemporaryDirectory(prefix="ptebot-", ignore_cleanup_errors=True) as scratch:
            scene = scene_of(root=Path(scratch))
            for number, work in enumerate(works, 1):
                if len(works) > 1:
                    self._log.say(f"Model {number} of {len(works)}: {work.model}")
                with progress.grouped(self._log) as show:
                    self._told.add(perform(work, scene, partial(_both, show, talk)))

    def _status(self, works: tuple[Work, ...], scene: Scene, talk: Conversation) -> None:
        """What is published of each model: looked at, never changed."""
        talk.start("Looking at what is published.")
        told = [status.ask(target_of(work, scene).host(), work.model) for work in works]
        talk.finish(True, "\n".join(told))
        self.conversation = None
        self._told.ignored("the status was asked for, and is told in the reply")

    def _warn(self, text: str) -> None:
        """What could not be said to whoever gave a command."""
        self._log.warning("The comment could not be answered", text)
        self._told.note(text)


def _both(show: OnProgress, talk: Conversation, item: Progress) -> None:
    """To the log, and now and then to whoever waits for an answer."""
    show(item)
    talk.progress(progress.heading(item) + (f": {item.message}" if item.message else ""))


def _run_url(env: Mapping[str, str]) -> str | None:
    """This run's page on GitHub."""
    server, repository, number = (env.get(f"GITHUB_{name}") for name in ("SERVER_URL", "REPOSITORY", "RUN_ID"))
    return f"{server}/{repository}/actions/runs/{number}" if server and repository and number else None


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
