"""Votes that were taken back, so that an older one that waited elsewhere does not come after that."""

import sqlalchemy as sa
from alembic import op

revision = "0075"
down_revision = "0040"


def upgrade() -> None:
    op.create_table(
        "withdrawn_vote",
        sa.Column("reply_id", sa.Integer(), nullable=False),
        sa.Column("member", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["reply_id"], ["reply.id"], name=op.f("fk_withdrawn_vote_reply_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("reply_id", "member", name=op.f("pk_withdrawn_vote")),
    )
    op.create_index(op.f("ix_withdrawn_vote_member"), "withdrawn_vote", ["member"], unique=False)
