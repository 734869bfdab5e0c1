"""Jobs know whether their repository is private: pages that everybody may see leave those out.

What is known of older jobs is nothing, so they count as private.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("ptebot_jobs", sa.Column("private", sa.Boolean, nullable=False, server_default=sa.true()))
