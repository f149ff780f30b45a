"""What the chat bots need: their posted answers, reports, and whom they have asked or told already."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "posted",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("reply_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["reply_id"], ["reply.id"], name=op.f("fk_posted_reply_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_posted")),
    )
    op.create_index(op.f("ix_posted_reply_id"), "posted", ["reply_id"], unique=False)
    op.create_table(
        "report",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("channel", sa.String(), nullable=False),
        sa.Column("member", sa.String(), nullable=False),
        sa.Column("reply_id", sa.Integer(), nullable=True),
        sa.Column("reason", sa.LargeBinary(), nullable=True),
        sa.Column("at", moment, nullable=False),
        sa.Column("settled_by", sa.String(), nullable=True),
        sa.Column("settled_at", moment, nullable=True),
        sa.ForeignKeyConstraint(["reply_id"], ["reply.id"], name=op.f("fk_report_reply_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_report")),
        sa.UniqueConstraint("reply_id", "member", name=op.f("uq_report_reply_id_member")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_report_channel"), "report", ["channel"], unique=False)
    op.create_index(op.f("ix_report_member"), "report", ["member"], unique=False)
    op.create_table(
        "consent_ask",
        sa.Column("member", sa.String(), nullable=False),
        sa.Column("channel", sa.String(), nullable=False),
        sa.Column("policy_version", sa.String(), nullable=False),
        sa.Column("at", moment, nullable=False),
        sa.PrimaryKeyConstraint("member", "channel", "policy_version", name=op.f("pk_consent_ask")),
    )
    op.create_table(
        "notice",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("at", moment, nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_notice")),
    )
