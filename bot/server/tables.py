"""The server's own tables, beside those of the job engine in the same database.

To change a table: change it here, and add a step below ``bot/server/migrations/versions``; a test holds the two alike.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    true,
)

metadata = MetaData()
_ROWID = BigInteger().with_variant(Integer, "sqlite")
"""SQLite counts up columns of exactly this type only."""

jobs = Table(
    "ptebot_jobs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("repo_id", String(200), nullable=False),
    Column("sha", String(40), nullable=False),
    Column("asked", JSON, nullable=False),
    Column("asker", JSON, nullable=False),
    Column("state", String(20), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("stage", Text, nullable=False),
    Column("fraction", Float),
    Column("worker", String(200)),
    Column("reason", Text),
    Column("failure", JSON),
    Column("operation", String(20)),
    Column("private", Boolean, nullable=False, server_default=true()),
    Column("pr_url", Text),
    Column("pr_num", Integer),
    Column("reply_id", String(64)),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("ended_at", Float),
    Index("ptebot_jobs_by_state", "state", "created_at"),
    Index("ptebot_jobs_by_repo", "repo_id", "created_at"),
    Index("ptebot_jobs_by_end", "ended_at"),
)

events = Table(
    "ptebot_events",
    metadata,
    Column("number", _ROWID, primary_key=True, autoincrement=True),
    Column("job_id", String(32), nullable=False),
    Column("at", Float, nullable=False),
    Column("kind", String(10), nullable=False),
    Column("stage", Text, nullable=False),
    Column("backend", Text),
    Column("precision", Text),
    Column("fraction", Float),
    Column("message", Text, nullable=False),
    Index("ptebot_events_by_job", "job_id", "number"),
)

results = Table(
    "ptebot_results",
    metadata,
    Column("job_id", String(32), primary_key=True),
    Column("part", String(64), primary_key=True),
    Column("report", Text, nullable=False),
)
"""Reports as JSON: of each backend under its name, of the whole job under ``''``."""

deliveries = Table(
    "ptebot_deliveries",
    metadata,
    Column("key", String(200), primary_key=True),
    Column("kind", String(10), nullable=False),
    Column("repo_id", String(200), nullable=False),
    Column("data", JSON, nullable=False),
    Column("received_at", Float, nullable=False),
    Column("handled_at", Float),
    Column("outcome", Text),
    Index("ptebot_deliveries_waiting", "handled_at", "received_at"),
)

workers = Table(
    "ptebot_workers",
    metadata,
    Column("id", String(200), primary_key=True),
    Column("host", Text, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("beat_at", Float, nullable=False),
    Column("version", String(50), nullable=False),
)

leases = Table(
    "ptebot_leases",
    metadata,
    Column("repo_id", String(200), primary_key=True),
    Column("job_id", String(32), nullable=False),
    Column("worker", String(200), nullable=False),
    Column("token", String(32), nullable=False),
)
"""Who may export a repository now."""

sealed = Table(
    "ptebot_sealed",
    metadata,
    Column("job_id", String(32), primary_key=True),
    Column("token", LargeBinary, nullable=False),
)
"""Tokens of people who signed in, encrypted; gone when their job ends."""

sessions = Table(
    "ptebot_sessions",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("data", LargeBinary, nullable=False),
    Column("expires_at", Float, nullable=False),
    Index("ptebot_sessions_by_end", "expires_at"),
)
"""Who is signed in: under the hash of what their browser keeps, encrypted."""
