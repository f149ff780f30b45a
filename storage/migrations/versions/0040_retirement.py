"""Adapters to be retired, because texts that they learnt from were erased."""

import sqlalchemy as sa
from alembic import op

revision = "0040"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "retirement",
        sa.Column("adapter", sa.String(), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["adapter"], ["adapter.name"], name=op.f("fk_retirement_adapter")),
        sa.PrimaryKeyConstraint("adapter", name=op.f("pk_retirement")),
    )
