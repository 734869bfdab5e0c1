"""What happens in jobs, to everybody who watches: one look at the database for all, fanned out. Knows no HTTP.

In: the store. Out: for each watcher, ``Message``s in order. Events are read by their number, so it does not matter
which machine wrote them, and whoever comes back names the last number they saw. One task looks, while there is anybody
to look for; a watcher costs a queue, and no thread.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from bot.errors import DatabaseUnavailable
from bot.server.records import LIVE, Event, JobRecord
from bot.server.store import Store
from bot.web import shown, words
from bot.web.view import tidy

SECONDS_BETWEEN_LOOKS = 0.5
PAGE = 500
"""Events that one look takes of one job."""
MOST_BEHIND = 2_000
"""Messages that wait for a slow watcher, before it is let go to come back for them."""
MOST_WATCHERS = 500
OVERVIEW, PUBLIC_OVERVIEW = "all", "public"
"""Channels of the page with all jobs, and without those of private repositories; every other one is a job's id."""
_OVERVIEWS = (OVERVIEW, PUBLIC_OVERVIEW)
MOST_RUNNING = 100
"""Jobs whose progress the overview tells."""
_log = logging.getLogger(__name__)


class TooManyWatchers(Exception):
    """There is no room for one more now. Answered with 503."""


@dataclass(frozen=True)
class Message:
    """One thing for a watcher."""

    kind: str
    """``log``, ``progress``, ``stage``; ``job`` where its state changed; ``refresh``: look at the page again."""
    data: dict[str, Any]
    number: int | None = None
    """Of the event, where it is one."""


@dataclass(eq=False)
class _Watcher:
    queue: asyncio.Queue[Message | None] = field(default_factory=lambda: asyncio.Queue(MOST_BEHIND))
    lost: bool = False

    def give(self, message: Message | None) -> None:
        try:
            self.queue.put_nowait(message)
        except asyncio.QueueFull:
            self.lost = True


@dataclass(eq=False)
class _Channel:
    watchers: set[_Watcher] = field(default_factory=set)
    seen: int | None = None
    """The last event's number that was fanned out; None until the first watcher has caught up."""
    state: Any = None
    """What was fanned out last of the job itself, or of the overview."""


@dataclass(frozen=True)
class _Look:
    """What one channel's look found."""

    events: list[Event]
    record: JobRecord | None = None
    parts: int = 0
    overview: Any = None
    running: tuple[JobRecord, ...] = ()


class Live:
    """Everybody who watches, in one event loop."""

    def __init__(self, store: Store, *, interval: float = SECONDS_BETWEEN_LOOKS, limit: int = MOST_WATCHERS) -> None:
        self._store, self._interval, self._limit = store, interval, limit
        self._channels: dict[str, _Channel] = {}
        self._looking: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = False

    @property
    def watchers(self) -> int:
        return sum(len(channel.watchers) for channel in self._channels.values())

    def join(self, name: str) -> _Watcher:
        """A place at a channel; raises TooManyWatchers. ``messages`` gives it up at its end."""
        if self._stopped or self.watchers >= self._limit:
            raise TooManyWatchers
        watcher = _Watcher()
        channel = self._channels.setdefault(name, _Channel())
        channel.watchers.add(watcher)
        if name not in _OVERVIEWS:
            channel.state = None  # a newcomer has to be told as well
        self._loop = asyncio.get_running_loop()
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_for_all(), name="live pages")
        return watcher

    def leave(self, name: str, watcher: _Watcher) -> None:
        channel = self._channels.get(name)
        if channel is not None:
            channel.watchers.discard(watcher)
            if not channel.watchers:
                del self._channels[name]

    def stop_soon(self) -> None:
        """Let everybody go, for the server's end: from any thread, and from a signal's handler."""
        self._stopped = True
        with suppress(RuntimeError):  # a loop that is closed has nobody
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self.stop)

    def stop(self) -> None:
        """As ``stop_soon``, in the event loop."""
        self._stopped = True
        for channel in self._channels.values():
            for watcher in channel.watchers:
                watcher.lost = True
                watcher.give(None)

    async def messages(
        self, name: str, watcher: _Watcher, after: int, *, patience: float = 15.0
    ) -> AsyncIterator[Message | None]:
        """Everything after the event with that number, until the job ended or the server does.

        Yields None where nothing happened for ``patience`` seconds: a sign of life is due.
        """
        try:
            last = after
            if name not in _OVERVIEWS:
                async for event in self._missed(name, after):
                    last = event.number
                    yield _told(event)
            while not watcher.lost:
                try:
                    message = await asyncio.wait_for(watcher.queue.get(), patience)
                except TimeoutError:
                    yield None
                    continue
                if message is None:
                    return
                if message.number is not None:
                    if message.number <= last:
                        continue
                    last = message.number
                yield message
                if message.kind == "job" and not message.data["live"]:
                    return
        finally:
            self.leave(name, watcher)

    async def _missed(self, job_id: str, after: int) -> AsyncIterator[Event]:
        """Events that were there before this watcher, up to where its channel goes on."""
        channel = self._channels[job_id]
        while True:
            found = await asyncio.to_thread(self._store.events, job_id, after=after, limit=PAGE)
            for event in found:
                after = event.number
                yield event
            if len(found) < PAGE and (channel.seen is None or channel.seen <= after):
                break
        if channel.seen is None:
            channel.seen = after

    async def _look_for_all(self) -> None:
        while self._channels and not self._stopped:
            wanted = {name: channel.seen for name, channel in self._channels.items()}
            try:
                found = await asyncio.to_thread(self._look, wanted)
            except DatabaseUnavailable as error:
                _log.warning("live pages wait for the database: %s", error.what)
                found = {}
            except Exception:  # a defect in one look is no reason to leave everybody without the next
                _log.exception("a look for live pages failed")
                found = {}
            for name, look in found.items():
                if channel := self._channels.get(name):
                    self._fan_out(name, channel, look)
            await asyncio.sleep(self._interval)

    def _look(self, wanted: dict[str, int | None]) -> dict[str, _Look]:
        """In a thread: what is new in each channel."""
        found = {}
        for name, seen in wanted.items():
            if name in _OVERVIEWS:
                public = name == PUBLIC_OVERVIEW
                live = self._store.jobs(states=LIVE, limit=MOST_RUNNING, public=public)
                newest = self._store.jobs(limit=1, public=public)
                counts = sorted(self._store.counts(public=public).items())
                state = [counts, [(one.id, one.state, one.attempt) for one in (*live, *newest)]]
                running = tuple(one for one in live if one.state == "running")
                found[name] = _Look([], overview=json.dumps(state), running=running)
            elif seen is not None:
                record = self._store.job(name)  # before its events: once it has ended, they are all there
                events = self._store.events(name, after=seen, limit=PAGE)
                found[name] = _Look(events, record)
        return found

    @staticmethod
    def _fan_out(name: str, channel: _Channel, look: _Look) -> None:
        messages = [_told(event) for event in look.events]
        if look.events:
            channel.seen = look.events[-1].number
        if name in _OVERVIEWS:
            if channel.state not in (None, look.overview):
                messages.append(Message("refresh", {}))
            channel.state = look.overview
            messages += [Message("progress", _progress_of(one)) for one in look.running]
        elif look.record is None:
            messages.append(Message("job", {"state": "gone", "words": "This job is no more.", "live": False}))
        elif len(look.events) < PAGE:
            state = (look.record.state, look.record.attempt, look.record.pr_url, look.record.operation)
            if state != channel.state:
                channel.state = state
                messages.append(Message("job", _job(look.record)))
        for watcher in channel.watchers:
            for message in messages:
                watcher.give(message)


def _told(event: Event) -> Message:
    data = {
        "at": words.clock(event.at),
        "where": tidy(shown.where(event)),
        "fraction": event.fraction,
        "message": tidy(event.message),
    }
    return Message(event.kind, data, event.number)


def _job(record: JobRecord) -> dict[str, Any]:
    told = words.STATES[record.state]
    return {"state": record.state, "words": f"{told.name}. {told.sentence}", "live": record.live}


def _progress_of(record: JobRecord) -> dict[str, Any]:
    return {"id": record.id, "where": tidy(record.stage), "fraction": record.fraction}


def encode(message: Message | None) -> bytes:
    """As server-sent events go over the wire (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""
    if message is None:
        return b": still here\n\n"
    number = f"id: {message.number}\n" if message.number is not None else ""
    return f"{number}event: {message.kind}\ndata: {json.dumps(message.data)}\n\n".encode()
