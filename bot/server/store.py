"""What the server knows, in SQLite or PostgreSQL: records in, records out, one transaction a call.

Every method may be called from any thread; in an event loop, by ``asyncio.to_thread``. Nothing here knows the job
engine, the Hub or the pages.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from bot.errors import DatabaseUnavailable
from bot.server import tables
from bot.server.records import LIVE, PRIORITIES, Asked, Asker, Delivery, Event, Failure, JobRecord, State, Worker

BUSY_MILLISECONDS = 30_000
"""How long a writer waits for another one on SQLite."""


def open_engine(url: str) -> sa.Engine:
    """A pool of connections to the database; raises DatabaseUnavailable."""
    try:
        parsed = sa.make_url(url)
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.get_backend_name() not in ("sqlite", "postgresql"):
            raise DatabaseUnavailable("The address of the database is neither sqlite:///FILE nor postgresql://...")
        options: dict[str, Any] = {"pool_pre_ping": True}
        if parsed.get_backend_name() == "sqlite":
            options = {"connect_args": {"timeout": BUSY_MILLISECONDS / 1000}}
        engine = sa.create_engine(parsed, **options)
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError) as error:
        raise DatabaseUnavailable(f"The address of the database is not one: {type(error).__name__}.") from None
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _begin_sqlite(connection: sa.Connection) -> None:
    """A writer takes its turn at once; who only reads waits for nobody, and holds nobody up."""
    reads = connection.get_execution_options().get("reads", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _prepare_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # we begin transactions ourselves: sqlite3 would begin them too late to wait
    pragmas = [f"busy_timeout={BUSY_MILLISECONDS}", "synchronous=FULL", "foreign_keys=ON"]
    if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        # Of the file, and for good. Set again, they would wait for whoever writes just then. auto_vacuum comes first:
        # it counts only before anything is written, and WAL writes.
        pragmas += ["auto_vacuum=INCREMENTAL", "journal_mode=WAL"]
    for pragma in pragmas:
        connection.execute(f"PRAGMA {pragma}")


class Store:
    """The server's tables."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self._reader = engine.execution_options(reads=True)
        self._insert = sqlite.insert if engine.dialect.name == "sqlite" else postgresql.insert

    def create(self) -> None:
        """Bring the tables into being; ``bot.server.migrate`` does it for a database that may be older."""
        with self._begin() as connection:
            tables.metadata.create_all(connection)

    def close(self) -> None:
        self.engine.dispose()

    # --- jobs

    def add(self, asked: Asked, asker: Asker) -> tuple[JobRecord, bool]:
        """The job, and whether it is new."""
        row = {
            "id": asked.id,
            "repo_id": asked.repo_id,
            "sha": asked.sha,
            "asked": {"options": asked.options, "again": asked.again},
            "asker": asdict(asker),
            "state": "queued",
            "priority": PRIORITIES[asker.trigger],
            "attempt": 1,
            "stage": "",
            "created_at": time.time(),
        }
        with self._begin() as connection:
            new = self.insert_new(connection, tables.jobs, row)
            found = connection.execute(sa.select(tables.jobs).where(tables.jobs.c.id == asked.id)).one()
        return _job(found), new

    def job(self, job_id: str) -> JobRecord | None:
        with self._read() as connection:
            found = connection.execute(sa.select(tables.jobs).where(tables.jobs.c.id == job_id)).one_or_none()
        return _job(found) if found is not None else None

    def jobs(
        self,
        *,
        states: Sequence[State] | None = None,
        repo_id: str | None = None,
        search: str | None = None,
        limit: int = 50,
        before: float | None = None,
        oldest_first: bool = False,
        public: bool = False,
    ) -> list[JobRecord]:
        """Jobs by the time they were made, the newest first unless told otherwise; ``before`` pages on.

        Args:
            search: a part of the repository's name, in letters of any case.
            public: only those of repositories that everybody may see.
        """
        table = tables.jobs
        query = sa.select(table).limit(limit)
        query = query.order_by(table.c.created_at.asc() if oldest_first else table.c.created_at.desc(), table.c.id)
        if states is not None:
            query = query.where(table.c.state.in_(states))
        if repo_id is not None:
            query = query.where(sa.func.lower(table.c.repo_id) == repo_id.lower())
        if search is not None:
            query = query.where(table.c.repo_id.icontains(search, autoescape=True))
        if before is not None:
            query = query.where(table.c.created_at < before)
        if public:
            query = query.where(table.c.private.is_(False))
        with self._read() as connection:
            return [_job(row) for row in connection.execute(query)]

    def counts(self, *, public: bool = False) -> dict[State, int]:
        """Jobs by state; states that no job has are left out. ``public``: as for ``jobs``."""
        query = sa.select(tables.jobs.c.state, sa.func.count()).group_by(tables.jobs.c.state)
        if public:
            query = query.where(tables.jobs.c.private.is_(False))
        with self._read() as connection:
            return {cast(State, state): count for state, count in connection.execute(query)}

    def update(self, job_id: str, *, only_if: Sequence[State] | None = None, **fields: Any) -> bool:
        """Set columns of a job; whether it was there and in one of the states of ``only_if``."""
        if isinstance(fields.get("failure"), Failure):
            fields["failure"] = asdict(fields["failure"])
        query = sa.update(tables.jobs).where(tables.jobs.c.id == job_id).values(**fields)
        if only_if is not None:
            query = query.where(tables.jobs.c.state.in_(only_if))
        with self._begin() as connection:
            return connection.execute(query).rowcount == 1

    def end(self, job_id: str, state: State, *, reason: str | None = None, failure: Failure | None = None) -> bool:
        """End a live job; whether it was live. What a person signed in with for it goes."""
        fields = {"state": state, "reason": reason, "failure": asdict(failure) if failure else None}
        with self._begin() as connection:
            ended = connection.execute(
                sa.update(tables.jobs)
                .where(tables.jobs.c.id == job_id, tables.jobs.c.state.in_(LIVE))
                .values(**fields, ended_at=time.time(), fraction=None)
            )
            connection.execute(sa.delete(tables.sealed).where(tables.sealed.c.job_id == job_id))
        return ended.rowcount == 1

    # --- what happened in them

    def append(self, events: Iterable[Event]) -> None:
        rows = [{key: value for key, value in asdict(event).items() if key != "number"} for event in events]
        if rows:
            with self._begin() as connection:
                connection.execute(sa.insert(tables.events), rows)

    def events(
        self,
        job_id: str,
        *,
        after: int = 0,
        limit: int = 1000,
        kinds: Sequence[str] | None = None,
        last: bool = False,
    ) -> list[Event]:
        """Events of a job with numbers above ``after``, in order; the first ``limit`` of them, or the ``last``."""
        table = tables.events
        query = sa.select(table).where(table.c.job_id == job_id, table.c.number > after)
        if kinds is not None:
            query = query.where(table.c.kind.in_(kinds))
        with self._read() as connection:
            order = table.c.number.desc() if last else table.c.number
            found = [Event(**row._mapping) for row in connection.execute(query.order_by(order).limit(limit))]
        return found[::-1] if last else found

    def put_report(self, job_id: str, part: str, report: str) -> None:
        """Keep a report as JSON: of one backend under its name, of the whole job under ``''``."""
        query = self._insert(tables.results).values(job_id=job_id, part=part, report=report)
        with self._begin() as connection:
            connection.execute(
                query.on_conflict_do_update(index_elements=["job_id", "part"], set_={"report": query.excluded.report})
            )

    def reports(self, job_id: str) -> dict[str, str]:
        """Reports as JSON, by part."""
        query = sa.select(tables.results.c.part, tables.results.c.report).where(tables.results.c.job_id == job_id)
        with self._read() as connection:
            return {row.part: row.report for row in connection.execute(query)}

    # --- deliveries

    def deliver(self, deliveries: Sequence[Delivery]) -> list[bool]:
        """Keep deliveries until they are handled, all in one transaction; for each, whether it is new."""
        new = []
        with self._begin() as connection:
            for one in deliveries:
                row = {**asdict(one), "received_at": one.received_at or time.time()}
                new.append(self.insert_new(connection, tables.deliveries, row))
        return new

    def waiting(self, limit: int = 100) -> list[Delivery]:
        """Deliveries that are not handled, the oldest first."""
        table = tables.deliveries
        columns = (table.c.key, table.c.kind, table.c.repo_id, table.c.data, table.c.received_at)
        query = sa.select(*columns).where(table.c.handled_at.is_(None)).order_by(table.c.received_at).limit(limit)
        with self._read() as connection:
            return [Delivery(**row._mapping) for row in connection.execute(query)]

    def handled(self, key: str, outcome: str) -> None:
        """``outcome``: the job's id, or why there is none."""
        table = tables.deliveries
        query = sa.update(table).where(table.c.key == key).values(handled_at=time.time(), outcome=outcome[:1000])
        with self._begin() as connection:
            connection.execute(query)

    # --- workers

    def beat(self, worker: Worker) -> None:
        """A worker's sign of life."""
        query = self._insert(tables.workers).values(asdict(worker))
        fields = {name: query.excluded[name] for name in ("host", "started_at", "beat_at", "version")}
        with self._begin() as connection:
            connection.execute(query.on_conflict_do_update(index_elements=["id"], set_=fields))

    def workers(self) -> list[Worker]:
        with self._read() as connection:
            query = sa.select(tables.workers).order_by(tables.workers.c.id)
            return [Worker(**row._mapping) for row in connection.execute(query)]

    # --- tokens of people who signed in

    def seal(self, job_id: str, token: bytes) -> None:
        """Keep an encrypted token until the job ends."""
        query = self._insert(tables.sealed).values(job_id=job_id, token=token)
        with self._begin() as connection:
            connection.execute(
                query.on_conflict_do_update(index_elements=["job_id"], set_={"token": query.excluded.token})
            )

    def sealed(self, job_id: str) -> bytes | None:
        with self._read() as connection:
            query = sa.select(tables.sealed.c.token).where(tables.sealed.c.job_id == job_id)
            found = connection.execute(query).scalar_one_or_none()
        return bytes(found) if found is not None else None

    # --- who is signed in

    def put_session(self, session_id: str, data: bytes, expires_at: float) -> None:
        """Keep an encrypted session; those that are over go."""
        with self._begin() as connection:
            connection.execute(sa.delete(tables.sessions).where(tables.sessions.c.expires_at <= time.time()))
            connection.execute(sa.insert(tables.sessions).values(id=session_id, data=data, expires_at=expires_at))

    def session(self, session_id: str) -> bytes | None:
        """A session that is not over."""
        table = tables.sessions
        query = sa.select(table.c.data).where(table.c.id == session_id, table.c.expires_at > time.time())
        with self._read() as connection:
            found = connection.execute(query).scalar_one_or_none()
        return bytes(found) if found is not None else None

    def drop_session(self, session_id: str) -> None:
        with self._begin() as connection:
            connection.execute(sa.delete(tables.sessions).where(tables.sessions.c.id == session_id))

    # --- for the modules that have tables of their own

    def transaction(self) -> AbstractContextManager[sa.Connection]:
        """One transaction, kept when the block ends well; raises DatabaseUnavailable."""
        return self._begin()

    @property
    def clock(self) -> sa.ColumnElement[float]:
        """The database's time, in seconds since the epoch: the clocks of machines differ."""
        if self.engine.dialect.name == "sqlite":
            return sa.literal_column("((julianday('now') - 2440587.5) * 86400.0)", sa.Float)
        return sa.literal_column("CAST(extract(epoch FROM clock_timestamp()) AS double precision)", sa.Float)

    def insert_new(self, connection: sa.Connection, table: sa.Table, row: Mapping[str, Any]) -> bool:
        """Add the row unless its key is there; whether it was added."""
        key = next(iter(table.primary_key))
        # not rowcount: psycopg's is not kept for an INSERT (SQLAlchemy's preserve_rowcount)
        query = self._insert(table).values(dict(row)).on_conflict_do_nothing().returning(key)
        return connection.execute(query).first() is not None

    def _begin(self) -> AbstractContextManager[sa.Connection]:
        return _in(self.engine)

    def _read(self) -> AbstractContextManager[sa.Connection]:
        return _in(self._reader)


@contextmanager
def _in(engine: sa.Engine) -> Iterator[sa.Connection]:
    try:
        with engine.begin() as connection:
            yield connection
    except (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError) as error:
        what = type(getattr(error, "orig", error)).__name__
        raise DatabaseUnavailable(f"The database does not answer: {what}.") from error


def _job(row: Any) -> JobRecord:
    data = dict(row._mapping)
    asked = Asked(repo_id=data.pop("repo_id"), sha=data.pop("sha"), **data.pop("asked"))
    asker = Asker(**data.pop("asker"))
    failure = data.pop("failure")
    return JobRecord(asked=asked, asker=asker, failure=Failure(**failure) if failure else None, **data)
