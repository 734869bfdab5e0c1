"""Ended jobs are found by when they ended, without reading all: retention looks every hour."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_index("ptebot_jobs_by_end", "ptebot_jobs", ["ended_at"])
