"""Jobs and workflows made to agree, on both kinds of database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from bot.errors import JobNotFound
from bot.server.records import Asked, Asker
from bot.workflow.names import MOST_RECOVERIES, workflow_id
from tests.bot.workflow.doing import Place, until

Start = Callable[..., Place]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ptebot.sqlite'}"
    return str(request.getfixturevalue("postgres_url"))


def test_a_kill_between_the_two_tables_is_mended(start: Start, url: str) -> None:
    here = start(url)
    name = f"mend-{here.store.engine.dialect.name}"
    asked = Asked(repo_id=f"acme/{name}", sha=here.repository(name))
    lost, _ = here.store.add(asked, Asker(trigger="webhook"))  # killed before it was enqueued
    here.queue.mend()
    assert here.ended(lost.id).state == "passed"

    here.executor.go_on.clear()
    here.executor.begun.clear()
    job = here.submit(name, here.push(name, {"config.json": b'{"a": 1}'}))
    until(here.executor.begun.is_set, "the export")
    here.store.end(job.id, "cancelled", reason="killed before its workflow was stopped")
    here.queue.mend()
    until(lambda: here.executor.stopped == 1, "the end of the export")
    assert here.queue._listed(status=["PENDING", "ENQUEUED"]) == []


def test_what_kills_its_process_again_and_again_is_given_up(start: Start, url: str) -> None:
    here = start(url)
    name = f"poison-{here.store.engine.dialect.name}"
    here.executor.go_on.clear()
    job = here.submit(name, here.repository(name))
    until(here.executor.begun.is_set, "the export")
    table = here.queue._client._sys_db.tables.workflow_status
    given_up = sa.update(table).where(table.c.workflow_uuid == workflow_id(job.id, 1))
    with here.queue._client._sys_db.engine.begin() as connection:
        connection.execute(given_up.values(status="MAX_RECOVERY_ATTEMPTS_EXCEEDED"))
    here.queue.mend()
    ended = here.ended(job.id)
    assert ended.state == "error" and ended.failure is not None
    assert f"{MOST_RECOVERIES} times" in ended.failure.what
    until(lambda: here.executor.stopped == 1, "the end of the export")


def test_forgetting_takes_every_attempt(start: Start) -> None:
    here = start()
    job = here.submit("forget", here.repository("forget"))
    here.ended(job.id)
    here.queue.retry(job.id, by="ada")
    here.ended(job.id)
    until(lambda: here.replies[-1] == (job.id, "unchanged"), "the last step")
    until(lambda: {one.status for one in here.queue._listed(prefix=job.id)} == {"SUCCESS"}, "both ends")
    assert len(here.queue._listed(prefix=job.id)) == 2
    here.queue.forget([job.id])
    assert here.queue._listed(prefix=job.id) == []


def test_jobs_that_nobody_has(start: Start) -> None:
    here = start()
    for do in (here.queue.cancel, here.queue.retry, here.queue.resume):
        with pytest.raises(JobNotFound):
            do("0" * 32, by="ada")


def test_a_token_without_anything_to_seal_it_is_refused(start: Start) -> None:
    here = start()
    here.queue._seal = None
    asked = Asked(repo_id="acme/x", sha="1" * 40)
    with pytest.raises(ValueError, match="seal"):
        here.queue.submit(asked, Asker(trigger="form"), token="hf_x")
