"""Server-sent events: everything once and in order, from the store, whoever wrote it; to as many as there is room."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from bot.server.records import Event, JobRecord
from bot.server.store import Store
from bot.web import live as living
from bot.web.live import OVERVIEW, PUBLIC_OVERVIEW, Live, Message, TooManyWatchers, encode
from tests.bot.web.jobs import NASTY, job
from tests.bot.web.signing_in import Site, open_store, running_site

PATIENCE = 20.0
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with running_site(tmp_path) as running:
        yield running


def write(store: Store, one: JobRecord, *messages: str, kind: Any = "log") -> None:
    store.append([Event(job_id=one.id, at=time.time(), kind=kind, message=message) for message in messages])


async def take(live: Live, name: str, count: int, after: int = 0) -> list[Message]:
    """The next messages of a new watcher, signs of life aside."""
    watcher = live.join(name)
    found: list[Message] = []
    async with asyncio.timeout(PATIENCE):
        async for message in live.messages(name, watcher, after):
            if message is not None:
                found.append(message)
            if len(found) == count:
                break
    live.leave(name, watcher)
    return found


def texts(messages: list[Message]) -> list[str]:
    return [message.data["message"] for message in messages if message.kind == "log"]


async def test_what_was_and_what_comes(store: Store) -> None:
    one, other = job(store, state="running"), job(store, "acme/other", "running")
    write(store, one, "a", "b")
    write(store, other, "not mine")
    live = Live(store, interval=0.01)
    watching = asyncio.create_task(take(live, one.id, 5))
    await asyncio.to_thread(write, store, one, "c", "d")
    messages = await watching
    assert sorted(texts(messages)) == ["a", "b", "c", "d"] and texts(messages) == sorted(texts(messages))
    assert [message.kind for message in messages].count("job") == 1
    live.stop()


async def test_going_on_after_the_last_seen(store: Store) -> None:
    one = job(store, state="running")
    write(store, one, "a", "b", "c")
    second = store.events(one.id)[1].number
    live = Live(store, interval=0.01)
    messages = await take(live, one.id, 1, after=second)
    assert texts(messages) == ["c"] and messages[0].number == second + 1
    live.stop()


async def test_many_watchers_each_get_everything_once(store: Store) -> None:
    """Some come early, some late, some in between; the job writes all the while, and then ends."""
    one = job(store, state="running")
    total = 1500
    live = Live(store, interval=0.002)

    async def watch(delay: float, after: int) -> list[Message]:
        await asyncio.sleep(delay)
        watcher = live.join(one.id)
        async with asyncio.timeout(PATIENCE):
            return [found async for found in live.messages(one.id, watcher, after) if found is not None]

    def work() -> None:
        for place in range(0, total, 50):
            write(store, one, *(str(number) for number in range(place, place + 50)))
        store.end(one.id, "passed")

    watching = [asyncio.create_task(watch(place * 0.01, 0)) for place in range(20)]
    await asyncio.to_thread(work)
    watching.append(asyncio.create_task(watch(0, 0)))
    for messages in await asyncio.gather(*watching):
        assert texts(messages) == [str(number) for number in range(total)]
        assert messages[-1].kind == "job" and messages[-1].data["state"] == "passed"
    assert live.watchers == 0


async def test_nothing_is_lost_between_what_was_and_what_comes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """One watcher has read and does not know it yet; another reads further, and the channel goes on from there."""
    one = job(store, state="running")
    write(store, one, "a")
    has_read, may_know = threading.Event(), threading.Event()
    real = store.events

    def held_up(*args: Any, **options: Any) -> list[Event]:
        found = real(*args, **options)
        if not has_read.is_set():
            has_read.set()
            may_know.wait(PATIENCE)
        return found

    monkeypatch.setattr(store, "events", held_up)
    live = Live(store, interval=0.01)
    slow = asyncio.create_task(take(live, one.id, 3))
    await asyncio.to_thread(has_read.wait, PATIENCE)
    write(store, one, "b")
    quick = asyncio.create_task(take(live, one.id, 3))
    async with asyncio.timeout(PATIENCE):
        while live._channels[one.id].seen is None:
            await asyncio.sleep(0)
    may_know.set()
    write(store, one, "c")
    assert texts(await slow)[:2] == ["a", "b"] and texts(await quick)[:2] == ["a", "b"]
    live.stop()


async def test_a_job_that_ended_ends_its_stream_for_newcomers_too(store: Store) -> None:
    one = job(store, state="running")
    live = Live(store, interval=0.01)
    first = live.join(one.id)
    stream = live.messages(one.id, first, 0)
    told = {"state": "running", "words": "Running. It is being worked on.", "live": True}
    assert await anext(stream) == Message("job", told)
    store.end(one.id, "failed")
    assert [message.data["state"] for message in await take(live, one.id, 9)] == ["failed"]
    assert [message.data["state"] for message in await take(live, one.id, 9)] == ["failed"]
    assert [message.data["state"] for message in await take(live, "0" * 32, 9)] == ["gone"]
    live.stop()


async def test_the_overview_tells_of_changes(store: Store) -> None:
    one = job(store, state="running", stage="plan", fraction=0.1)
    live = Live(store, interval=0.01)
    watcher = live.join(OVERVIEW)
    stream = live.messages(OVERVIEW, watcher, 0)
    first = await anext(stream)
    assert first == Message("progress", {"id": one.id, "where": "plan", "fraction": 0.1})
    job(store, "acme/new")
    async with asyncio.timeout(PATIENCE):
        while (message := await anext(stream)) is None or message.kind != "refresh":
            pass
    await stream.aclose()
    assert live.watchers == 0


async def test_the_overview_of_everybody_tells_of_no_private_model(store: Store) -> None:
    job(store, "acme/secret", "running", private=True, stage="of the secret")
    seen = job(store, "acme/seen", "running", stage="plan")
    live = Live(store, interval=0.01)
    public, whole = await asyncio.gather(take(live, PUBLIC_OVERVIEW, 3), take(live, OVERVIEW, 4))
    assert {message.data["id"] for message in public} == {seen.id}
    assert {message.data["where"] for message in whole} == {"plan", "of the secret"}
    live.stop()


async def test_a_sign_of_life_where_nothing_happens(store: Store) -> None:
    one = job(store, state="running")
    live = Live(store, interval=0.01)
    watcher = live.join(one.id)
    stream = live.messages(one.id, watcher, 0, patience=0.05)
    async with asyncio.timeout(PATIENCE):
        while await anext(stream) is not None:
            pass
    await stream.aclose()


async def test_a_slow_watcher_is_let_go(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(living, "MOST_BEHIND", 5)
    one = job(store, state="running")
    live = Live(store, interval=0.01)
    watcher = live.join(one.id)
    stream = live.messages(one.id, watcher, 0)
    await anext(stream)
    write(store, one, *map(str, range(50)))
    async with asyncio.timeout(PATIENCE):
        while not watcher.lost:
            await asyncio.sleep(0)
        assert len([message async for message in stream]) <= 5
    assert live.watchers == 0


async def test_only_so_many(store: Store) -> None:
    live = Live(store, limit=3)
    places = [live.join(name) for name in ("a", "a", "b")]
    with pytest.raises(TooManyWatchers):
        live.join("c")
    live.leave("a", places[0])
    live.join("c")
    live.stop()
    with pytest.raises(TooManyWatchers):
        live.join("d")


async def test_a_database_that_is_away_for_a_while(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from bot.errors import DatabaseUnavailable

    one = job(store, state="running")
    live = Live(store, interval=0.01)
    looked = threading.Event()
    real = store.job

    def away(job_id: str) -> JobRecord | None:
        if not looked.is_set():
            looked.set()
            raise DatabaseUnavailable("away")
        return real(job_id)

    monkeypatch.setattr(store, "job", away)
    assert [message.kind for message in await take(live, one.id, 1)] == ["job"] and looked.is_set()
    live.stop()


def parse(text: str) -> list[tuple[str, str, Any]]:
    """Event streams as a browser reads them: id, kind, data."""
    found = []
    for block in text.split("\n\n"):
        fields: dict[str, str] = {}
        for line in block.split("\n"):
            name, _, value = line.partition(":")
            if name:
                assert name not in fields, block
                fields[name] = value.removeprefix(" ")
        if "data" in fields:
            found.append((fields.get("id", ""), fields.get("event", ""), json.loads(fields["data"])))
    return found


def test_hostile_texts_make_no_events_of_their_own() -> None:
    for text in NASTY:
        written = encode(Message("log", {"message": text}, 7)).decode()
        assert parse(written) == [("7", "log", {"message": text})] and written.isascii()


def test_a_stream_over_http_ends_with_its_job(site: Site) -> None:
    one = job(site.store, state="running")
    write(site.store, one, *NASTY)
    numbers = [str(event.number) for event in site.store.events(one.id)]
    got = ""
    headers = {"Last-Event-ID": numbers[2]}
    with httpx2.stream("GET", f"{site.url}/jobs/{one.id}/events?after=1", headers=headers, timeout=PATIENCE) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert reply.headers["cache-control"] == "no-store" and reply.headers["x-accel-buffering"] == "no"
        for piece in reply.iter_text():
            got += piece
            if '"running"' in piece:
                site.store.end(one.id, "passed")
    events = parse(got)
    assert [number for number, kind, _ in events if kind == "log"] == numbers[3:]
    assert [kind for _, kind, _ in events][-2:] == ["job", "end"] and events[-2][2]["live"] is False
    assert "\u202e" not in json.dumps([data for *_, data in events], ensure_ascii=False)


@pytest.mark.parametrize("told", ["", "x", "-1", "1" * 50, "\u0663", "1.5"])
def test_strange_numbers_begin_at_the_beginning(site: Site, told: str) -> None:
    one = job(site.store, state="passed")
    write(site.store, one, "a")
    reply = httpx2.get(f"{site.url}/jobs/{one.id}/events", params={"after": told}, timeout=PATIENCE)
    assert [kind for _, kind, _ in parse(reply.text)] == ["log", "job", "end"]


def test_no_thread_for_each_who_watches_and_no_more_than_there_is_room(site: Site) -> None:
    one = job(site.store, state="running")
    inside = site.app.state.site.live
    inside._limit = 40
    before = threading.active_count()
    with httpx2.Client(timeout=PATIENCE, limits=httpx2.Limits(max_connections=None)) as client:
        asked = client.build_request("GET", f"{site.url}/jobs/{one.id}/events")
        replies = [client.send(asked, stream=True) for _ in range(40)]
        assert {reply.status_code for reply in replies} == {200} and inside.watchers == 40
        refused = client.get(f"{site.url}/events")
        assert refused.status_code == 503 and refused.headers["retry-after"] == "30"
        assert client.get(f"{site.url}/jobs/{one.id}").status_code == 200
        assert threading.active_count() - before < 20
        for reply in replies:
            reply.close()
        deadline = time.monotonic() + PATIENCE
        while inside.watchers and time.monotonic() < deadline:
            write(site.store, one, "so that it is noticed who has gone")
        assert inside.watchers == 0


def test_the_servers_end_lets_everybody_go(tmp_path: Path) -> None:
    with running_site(tmp_path) as site:
        one = job(site.store, state="running")
        with httpx2.stream("GET", f"{site.url}/jobs/{one.id}/events", timeout=PATIENCE) as reply:
            pieces = reply.iter_text()
            while '"running"' not in next(pieces):
                pass
            site.app.state.site.live.stop_soon()
            rest = "".join(pieces)
    assert "event: end" not in rest
