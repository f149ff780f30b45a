"""Adapters to be retired, because texts that they learnt from were erased; an index with all that eligibility asks."""

import sqlalchemy as sa
from alembic import op

revision = "0040"
down_revision = "0030"


def upgrade() -> None:
    op.create_table(
        "retirement",
        sa.Column("adapter", sa.String(), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["adapter"], ["adapter.name"], name=op.f("fk_retirement_adapter")),
        sa.PrimaryKeyConstraint("adapter", name=op.f("pk_retirement")),
    )
    op.drop_index("ix_message_window", "message")
    op.create_index("ix_message_window", "message", ["channel", "sent_at", "member", "provenance", "key"])
