"""An index led by time: PostgreSQL read every message to find those of 28 days."""

from alembic import op

revision = "0098"
down_revision = "0075"


def upgrade() -> None:
    op.create_index("ix_message_sent_at", "message", ["sent_at"])
