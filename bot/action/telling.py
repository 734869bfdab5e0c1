"""How a step's end is told: annotations, the job summary, the outputs, the exit code. Stage 6, and the last.

In: what was done, model by model, or why nothing was. Out: what people and later steps read. Several models of one
step are told one after the other; as outputs, the worst status, and lists with a line for each model.
"""

from __future__ import annotations

import html
import json
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bot import speed
from bot.action import outputs, status, summary
from bot.action.annotations import annotate
from bot.action.commands import Log
from bot.action.outputs import Place
from bot.action.status import Ended
from bot.action.summary import Story
from bot.action.workflow_words import in_a_workflow
from bot.errors import Cancelled
from bot.replies.conversation import Conversation
from exporter.errors import PtebotError

if TYPE_CHECKING:
    from bot.action.perform import Done

WORST_FIRST: tuple[status.StepStatus, ...] = ("error", "failed", "partial", "passed", "unchanged", "ignored")
MAX_REPLY = 60_000
"""Bytes: GitHub takes 65,536 characters, and the reply has some more than this."""
OPERATIONS_FIRST = ("created", "updated", "unchanged", "none")


class Telling:
    """What there is to tell of one step; ``end`` tells it, once."""

    def __init__(self, env: Mapping[str, str], log: Log) -> None:
        self._env, self._log = env, log
        self.workspace = Path(env.get("GITHUB_WORKSPACE") or ".")
        self.why = ""
        self._done: list[Done] = []
        self._notes: list[str] = []
        self._alone: Story | None = None

    @property
    def done(self) -> tuple[Done, ...]:
        return tuple(self._done)

    def add(self, done: Done) -> None:
        """One model's end."""
        self._done.append(done)
        for error in (done.story.error, done.story.ended.failure):
            self._known(error)

    def ignored(self, reason: str) -> None:
        self._log.say(f"Nothing to do: {reason}.")
        self._alone = Story(ended=status.ignored(), why=self.why, ignored=reason)

    def failed(self, error: Exception) -> None:
        """Nothing could be done at all, or no more of it."""
        self._known(error)
        self._alone = Story(ended=status.broken(error), why=self.why, error=error)

    def _known(self, error: BaseException | None) -> None:
        """A failure in the words of a workflow; of a defect of ours, where it happened."""
        if isinstance(error, PtebotError):
            in_a_workflow(error, self.workspace)
        elif error is not None:
            self._log.say("".join(traceback.format_exception(error)))

    def cancelled(self) -> None:
        error = Cancelled("The job was cancelled; what was running is ended, and nothing is half published.")
        self._alone = Story(ended=status.broken(error), why=self.why, error=error)

    @property
    def stories(self) -> tuple[Story, ...]:
        """Every end, in the order in which they came."""
        return (*(done.story for done in self._done), *((self._alone,) if self._alone else ()))

    def ended(self) -> Ended:
        """The whole step's end: the worst of its models'."""
        return min(
            (story.ended for story in self.stories),
            key=lambda ended: (-bool(ended.exit_code), WORST_FIRST.index(ended.status)),
            default=status.ignored(),
        )

    def note(self, text: str) -> None:
        """Something that a person should know, in the summary."""
        self._notes.append(text)

    def brief(self, limit: int) -> str:
        """Every end as Markdown of at most ``limit`` characters, for a reply or a check."""
        each = limit // max(len(self.stories), 1) - 1
        return "\n".join(summary.brief(story, limit=each) for story in self.stories)

    def end(self, conversation: Conversation | None = None) -> int:
        """Tell everything; the step's exit code.

        Args:
            conversation: where the request came from, if it has not been answered yet.
        """
        ended = self.ended()
        answer = partial(self._answer, conversation, ended) if conversation is not None else lambda: None
        ways: list[tuple[str, Callable[[], None]]] = [
            ("answer could not be given", answer),
            ("failure could not be shown", self._annotate),
            ("summary could not be written", self._summary),
            ("outputs could not be written", self._outputs),
        ]
        if ended.exit_code == Cancelled.exit_code:
            # The runner waits some seconds only: what needs no network goes first.
            ways.append(ways.pop(0))
        code = ended.exit_code
        for what, tell in ways:
            try:
                tell()
            except OSError as error:
                self._log.error(f"The {what}", error.strerror or type(error).__name__)
                code = code or PtebotError.exit_code
            except Exception as error:
                # A defect of ours must not keep the other ways from being gone.
                self._known(error)
                self._log.error(f"The {what}", f"{type(error).__name__}. {PtebotError.remedy}")
                code = code or PtebotError.exit_code
        return code

    def _annotate(self) -> None:
        for story in self.stories:
            annotate(self._log, story.ended, story.report, story.error)

    def _answer(self, conversation: Conversation, ended: Ended) -> None:
        first = next((story.published.pr_url for story in self.stories if story.published), None)
        conversation.finish(
            not ended.exit_code,
            self._log.hide(self.brief(MAX_REPLY)),
            title=self._log.hide(html.unescape(" ".join(summary.title(story) for story in self.stories))),
            url=first,
            conclusion="cancelled" if ended.exit_code == Cancelled.exit_code else None,
        )
        for done in self._done:
            if (published := done.story.published) is not None and done.work.folder is None:
                conversation.link_back(model=done.work.model, operation=published.operation, url=published.pr_url)

    def _summary(self) -> None:
        for number, story in enumerate(self.stories):
            notices = (*story.notices, *(self._notes if number == 0 else ()))
            summary.write(self._env, replace(story, notices=notices), self._log.hide)

    def _outputs(self) -> None:
        outputs.write(self._env, {name: self._log.hide(value) for name, value in self.values().items()})

    def values(self) -> dict[str, str]:
        """Every output."""
        each = [
            outputs.values(
                story.ended,
                Place(
                    workspace=self.workspace,
                    out_dir=done.folder if done else None,
                    manifest=done.manifest if done else None,
                ),
                report=story.report,
                published=story.published,
                error=story.error,
                extra={
                    "event": self._env.get("GITHUB_EVENT_NAME", ""),
                    "why": self.why,
                    "subject": story.subject,
                    "speeds": speed.as_data(done.speeds) if done and done.speeds else None,
                },
            )
            for story, done in zip(self.stories, [*self._done, None], strict=False)
        ]
        return each[0] if len(each) == 1 else self._together(each)

    def _together(self, each: list[dict[str, str]]) -> dict[str, str]:
        ended = self.ended()
        operations = [one["pr-operation"] for one in each]
        single = {
            "status": ended.status,
            "pr-operation": min(operations, key=OPERATIONS_FIRST.index, default="none"),
            **{name: "\n".join(filter(None, (one[name] for one in each))) for name in ("pr-url", "report", "manifest")},
        }
        document: dict[str, Any] = {
            "version": outputs.RESULT_VERSION,
            "event": self._env.get("GITHUB_EVENT_NAME", ""),
            "why": self.why,
            **{name.replace("-", "_"): value for name, value in single.items()},
            "exit_code": ended.exit_code,
            "models": [json.loads(one["result"]) for one in each],
        }
        text = json.dumps(document, ensure_ascii=True, separators=(",", ":"))
        if len(text) > outputs.MAX_RESULT:
            document["models"] = [{**one, "cells": [], "truncated": True} for one in document["models"]]
            text = json.dumps(document, ensure_ascii=True, separators=(",", ":"))
        return {**single, "result": text}
