"""The tables that the server began with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "ptebot_jobs",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("repo_id", sa.String(200), nullable=False),
        sa.Column("sha", sa.String(40), nullable=False),
        sa.Column("asked", sa.JSON, nullable=False),
        sa.Column("asker", sa.JSON, nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("fraction", sa.Float),
        sa.Column("worker", sa.String(200)),
        sa.Column("reason", sa.Text),
        sa.Column("failure", sa.JSON),
        sa.Column("operation", sa.String(20)),
        sa.Column("pr_url", sa.Text),
        sa.Column("pr_num", sa.Integer),
        sa.Column("reply_id", sa.String(64)),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("started_at", sa.Float),
        sa.Column("ended_at", sa.Float),
    )
    op.create_index("ptebot_jobs_by_state", "ptebot_jobs", ["state", "created_at"])
    op.create_index("ptebot_jobs_by_repo", "ptebot_jobs", ["repo_id", "created_at"])
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "ptebot_events",
        sa.Column("number", number, primary_key=True, autoincrement=True),
        sa.Column("job_id", sa.String(32), nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("backend", sa.Text),
        sa.Column("precision", sa.Text),
        sa.Column("fraction", sa.Float),
        sa.Column("message", sa.Text, nullable=False),
    )
    op.create_index("ptebot_events_by_job", "ptebot_events", ["job_id", "number"])
    op.create_table(
        "ptebot_results",
        sa.Column("job_id", sa.String(32), primary_key=True),
        sa.Column("part", sa.String(64), primary_key=True),
        sa.Column("report", sa.Text, nullable=False),
    )
    op.create_table(
        "ptebot_deliveries",
        sa.Column("key", sa.String(200), primary_key=True),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("repo_id", sa.String(200), nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
        sa.Column("received_at", sa.Float, nullable=False),
        sa.Column("handled_at", sa.Float),
        sa.Column("outcome", sa.Text),
    )
    op.create_index("ptebot_deliveries_waiting", "ptebot_deliveries", ["handled_at", "received_at"])
    op.create_table(
        "ptebot_workers",
        sa.Column("id", sa.String(200), primary_key=True),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("started_at", sa.Float, nullable=False),
        sa.Column("beat_at", sa.Float, nullable=False),
        sa.Column("version", sa.String(50), nullable=False),
    )
    op.create_table(
        "ptebot_leases",
        sa.Column("repo_id", sa.String(200), primary_key=True),
        sa.Column("job_id", sa.String(32), nullable=False),
        sa.Column("worker", sa.String(200), nullable=False),
        sa.Column("token", sa.String(32), nullable=False),
    )
    op.create_table(
        "ptebot_sealed",
        sa.Column("job_id", sa.String(32), primary_key=True),
        sa.Column("token", sa.LargeBinary, nullable=False),
    )
