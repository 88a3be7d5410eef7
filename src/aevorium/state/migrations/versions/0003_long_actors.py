"""Actors as long as an issuer may name a person: 255 characters, and what stands before them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Widens the columns; SQLite heeds no length."""
    if op.get_bind().dialect.name != "postgresql":
        return
    for table in ("jobs", "studies"):
        op.alter_column(
            table, "actor", existing_type=sa.String(200), type_=sa.String(300), existing_nullable=False
        )  # fmt: skip


def downgrade() -> None:
    """There is no way back: what people did stays on record."""
    raise NotImplementedError
