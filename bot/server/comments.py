"""A comment that may be a command: asked of the Hub, its author's rights too, then done and answered. Stages 1 and 6.

In: a delivery that names a comment. Out: what came of it, in a line. Text, author and rights are the Hub's to say,
never the payload's. Who may not give commands is told so once in a discussion, and only for what is a whole command:
strangers could make the bot talk otherwise.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from huggingface_hub import HfApi

from bot import choices
from bot.errors import HubUnreachable, InvalidConfig
from bot.fetch import Resolved, resolve
from bot.hubapi import asking
from bot.publish import hub as publishing
from bot.publish.markdown import one_line
from bot.replies import discussion_text
from bot.replies import status as statuses
from bot.replies.discussion import Discussion, events, refusal_marker, reply_marker
from bot.server import members
from bot.server.actions import Actions
from bot.server.planning import read_config
from bot.server.records import LIVE, PRIORITIES, Asked, Asker, Delivery, JobRecord
from bot.server.settings import Settings
from bot.server.store import Store
from bot.server.watched import Watched
from bot.triggers import comments
from bot.triggers.comments import Command
from bot.triggers.request import Overrides
from exporter.errors import PtebotError

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}")
"""An account's; it also stands in a marker."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Comment:
    """A comment as the Hub's API gives it."""

    id: str
    text: str
    author: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.author["name"])


class Comments:
    """Handles deliveries of comments; what passes by itself is raised, to be tried again."""

    def __init__(self, settings: Settings, store: Store, actions: Actions, api: HfApi) -> None:
        self._settings, self._store, self._actions, self._api = settings, store, actions, api
        self._watched = Watched(settings.watch)
        self._token = settings.token.get_secret_value() if settings.token else None

    def handle(self, delivery: Delivery) -> str:
        """Do what a comment asks for: the job's id, or what else came of it.

        Raises:
            HubUnreachable, DatabaseUnavailable: it may be tried again, and then goes on where it was.
            PtebotError: it cannot be done.
        """
        num, comment_id = int(delivery.data["discussion"]), str(delivery.data["comment_id"])
        if self._token is None:
            return "without a token nothing can be answered"
        with asking("asking who the token belongs to", self._api):
            me = self._api.whoami(cache=True)
        if delivery.data.get("author_id") == me.get("id"):
            return "the comment is our own"
        found = find(events(self._api, delivery.repo_id, num), comment_id)
        if isinstance(found, str):
            return found
        if found.name == me.get("name"):
            return "the comment is our own"
        command = comments.parse(found.text)
        if command is None:
            return f"the comment does not begin with {comments.CALL}"
        return self._command(delivery.repo_id, num, found, command)

    def _command(self, repo_id: str, num: int, comment: Comment, command: Command) -> str:
        main = resolve(repo_id, "main", endpoint=self._settings.endpoint, token=self._token)
        if not self._watched.follows(repo_id, main.repo_id):
            return f"{repo_id} is {main.repo_id} now, which is not watched"
        place = Discussion(self._api, main.repo_id, num, public_url=self._settings.public_url)
        if not members.may_command(self._api, main.repo_id, comment.author):
            return self._refuse(place, comment, command)
        if self._off(main):
            return ".ptebot.yml says `comments: false`"
        marker = reply_marker(comment.id)
        if command.verb == "export":
            return self._export(main, num, place, comment, command)
        if command.verb == "status":
            host = publishing.HubHost(self._api, main.repo_id)
            live = self._store.jobs(states=LIVE, repo_id=main.repo_id)
            place.tell(marker, discussion_text.status(statuses.ask(host, main.repo_id), live))
            return f"status for {comment.name}"
        place.tell(marker, discussion_text.help_text(command.problem))
        return f"help for {comment.name}"

    def _refuse(self, place: Discussion, comment: Comment, command: Command) -> str:
        """One answer to an account in a discussion, however many commands it gives."""
        marker = refusal_marker(comment.name)
        if command.problem is None and not place.has(marker):
            place.tell(marker, discussion_text.refusal())
        return f"{comment.name} may not give commands"

    def _export(self, main: Resolved, num: int, place: Discussion, comment: Comment, command: Command) -> str:
        wrong = _not_here(command.overrides, main)
        if wrong is not None:
            place.tell(reply_marker(comment.id), discussion_text.help_text(wrong))
            return f"help for {comment.name}"
        asked = Asked(repo_id=main.repo_id, sha=main.revision, options=_options(command.overrides), again=comment.id)
        there = self._earlier(main.repo_id, comment.id)
        if there is not None:
            asked = there.asked
        asker = Asker(trigger="comment", name=comment.name, discussion=num, comment_id=comment.id)
        # The reply goes first: once the job is there, its steps look for this one and edit it.
        reply_id = None
        if there is None:
            queued = JobRecord(
                id=asked.id, asked=asked, asker=asker, state="queued", priority=PRIORITIES[asker.trigger]
            )
            reply_id = self._queued(place, queued)
        job, _ = self._actions.submit(asked, asker)
        if reply_id is not None and job.reply_id is None:
            self._store.update(job.id, reply_id=reply_id)
        return job.id

    def _queued(self, place: Discussion, job: JobRecord) -> str | None:
        """Tell that it waits. That nothing can be said (a locked discussion) is no reason not to do it."""
        try:
            return place.say(job, {})
        except HubUnreachable:
            raise
        except PtebotError as error:
            log.warning("no reply: %s", one_line(error.what, 300))
            return None

    def _earlier(self, repo_id: str, comment_id: str) -> JobRecord | None:
        """The job of this comment, where a process that was killed had come so far: main may have moved since."""
        jobs = self._store.jobs(repo_id=repo_id, limit=100)
        return next((job for job in jobs if job.asker.comment_id == comment_id), None)

    def _off(self, main: Resolved) -> bool:
        try:
            return not read_config(main, endpoint=self._settings.endpoint, token=self._token).comments
        except InvalidConfig:
            return False  # the job, or nothing, tells what is wrong with it


def find(listed: list[dict[str, Any]], comment_id: str) -> Comment | str:
    """The comment among a discussion's events, or why it is none to act on."""
    event = next((one for one in listed if one.get("id") == comment_id and one.get("type") == "comment"), None)
    if event is None:
        return "the discussion has no such comment"
    author, data = event.get("author"), event.get("data")
    name = author.get("name") if isinstance(author, dict) else None
    if not isinstance(author, dict) or not isinstance(name, str) or not NAME.fullmatch(name):
        return "the Hub does not say who wrote the comment"
    if not isinstance(data, dict) or data.get("hidden") is not False:
        return "the comment is hidden"
    latest = data.get("latest")
    raw = latest.get("raw") if isinstance(latest, dict) else None
    if not isinstance(raw, str):
        return "the comment has no text"
    if _others(name, data):
        return "somebody else edited the comment"
    return Comment(id=comment_id, text=raw, author=author)


def _others(name: str, data: Mapping[str, Any]) -> bool:
    """Whether the text as it stands is not, or not only, its author's."""
    latest, editors = data.get("latest"), data.get("editors")
    by = latest.get("author") if isinstance(latest, dict) else None
    named = [by.get("name")] if isinstance(by, dict) else []
    return any(one != name for one in [*named, *(editors if isinstance(editors, list) else [])])


def _not_here(asked: Overrides, main: Resolved) -> str | None:
    """What a command asks for that a discussion cannot give; None where nothing is."""
    if asked.model is not None and asked.model.lower() != main.repo_id.lower():
        return "A command in a discussion is about its own repository."
    if asked.revision not in (None, "main", main.revision):
        return "The main branch is exported, as it is now."
    return None


def _options(asked: Overrides) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in choices.FIELDS:
        if (value := getattr(asked, name, None)) is not None:
            found[name] = list(value) if isinstance(value, tuple) else value
    return found
