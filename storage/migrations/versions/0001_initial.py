"""The first schema, with the ledgers protected by triggers: what is written there stays as it was written."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

APPEND_ONLY = ("consent_event", "audit_event")
ADAPTER_FACTS = ("name", "voice", "run_id", "base", "base_digest", "digest", "created_at")


def upgrade() -> None:
    _create_tables()
    if op.get_bind().dialect.name == "postgresql":
        _protect_on_postgresql()
    else:
        _protect_on_sqlite()


def _protect_on_sqlite() -> None:
    for table in APPEND_ONLY:
        for action in ("UPDATE", "DELETE"):
            _refuse_on_sqlite(f"{table}_no_{action.lower()}", action, table, f"{table} is append-only")
    _refuse_on_sqlite("adapter_no_delete", "DELETE", "adapter", "adapter names are never reused")
    facts = ", ".join(ADAPTER_FACTS)
    _refuse_on_sqlite("adapter_no_update", f"UPDATE OF {facts}", "adapter", "adapters are immutable")


def _refuse_on_sqlite(name: str, action: str, table: str, why: str) -> None:
    op.execute(f"CREATE TRIGGER {name} BEFORE {action} ON {table} BEGIN SELECT RAISE(ABORT, '{why}'); END")


def _protect_on_postgresql() -> None:
    op.execute(
        """
        CREATE FUNCTION nocap_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '% of % refused: %', TG_OP, TG_TABLE_NAME, TG_ARGV[0]
                USING ERRCODE = 'integrity_constraint_violation';
        END $$
        """
    )
    for table in APPEND_ONLY:
        _refuse_on_postgresql(f"{table}_no_change", "UPDATE OR DELETE OR TRUNCATE", table, f"{table} is append-only")
    _refuse_on_postgresql("adapter_no_delete", "DELETE OR TRUNCATE", "adapter", "adapter names are never reused")
    facts = ", ".join(ADAPTER_FACTS)
    _refuse_on_postgresql("adapter_no_update", f"UPDATE OF {facts}", "adapter", "adapters are immutable")


def _refuse_on_postgresql(name: str, action: str, table: str, why: str) -> None:
    op.execute(
        f"CREATE TRIGGER {name} BEFORE {action} ON {table} FOR EACH STATEMENT EXECUTE FUNCTION nocap_refuse('{why}')"
    )


def _create_tables() -> None:
    op.create_table(
        "adapter",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("voice", sa.String(), nullable=False),
        sa.Column("run_id", sa.String(), nullable=True),
        sa.Column("base", sa.String(), nullable=False),
        sa.Column("base_digest", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_adapter")),
    )
    op.create_index(op.f("ix_adapter_voice"), "adapter", ["voice"], unique=False)
    op.create_table(
        "audit_event",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_event")),
    )
    op.create_index(op.f("ix_audit_event_at"), "audit_event", ["at"], unique=False)
    op.create_table(
        "channel",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("platform", sa.String(), nullable=False),
        sa.Column("label", sa.LargeBinary(), nullable=True),
        sa.Column("voice", sa.String(), nullable=False),
        sa.Column("mode", sa.String(), nullable=False),
        sa.Column("collect", sa.Boolean(), nullable=False),
        sa.Column("duels", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_channel")),
    )
    op.create_index(op.f("ix_channel_voice"), "channel", ["voice"], unique=False)
    op.create_table(
        "consent_event",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("member", sa.String(), nullable=False),
        sa.Column("channel", sa.String(), nullable=False),
        sa.Column("purpose", sa.String(), nullable=False),
        sa.Column("granted", sa.Boolean(), nullable=False),
        sa.Column("policy_version", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_consent_event")),
    )
    op.create_index("ix_consent_lookup", "consent_event", ["member", "channel", "purpose", "id"], unique=False)
    op.create_table(
        "deployment",
        sa.Column("voice", sa.String(), nullable=False),
        sa.Column("current", sa.String(), nullable=False),
        sa.Column("previous", sa.String(), nullable=True),
        sa.Column("canary", sa.String(), nullable=True),
        sa.Column("canary_share", sa.Float(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("voice", name=op.f("pk_deployment")),
    )
    op.create_table(
        "duel",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("channel", sa.String(), nullable=False),
        sa.Column("voice", sa.String(), nullable=False),
        sa.Column("prompt_member", sa.String(), nullable=False),
        sa.Column("prompt_key", sa.String(), nullable=True),
        sa.Column("provenance", sa.String(), nullable=False),
        sa.Column("prompt", sa.LargeBinary(), nullable=True),
        sa.Column("left_adapter", sa.String(), nullable=False),
        sa.Column("right_adapter", sa.String(), nullable=False),
        sa.Column("left_text", sa.LargeBinary(), nullable=True),
        sa.Column("right_text", sa.LargeBinary(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_duel")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_duel_prompt_key"), "duel", ["prompt_key"], unique=False)
    op.create_index(op.f("ix_duel_prompt_member"), "duel", ["prompt_member"], unique=False)
    op.create_index(op.f("ix_duel_voice"), "duel", ["voice"], unique=False)
    op.create_table(
        "identity",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("key_check", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_identity")),
    )
    op.create_table(
        "lease",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_lease")),
    )
    op.create_table(
        "message",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("channel", sa.String(), nullable=False),
        sa.Column("member", sa.String(), nullable=False),
        sa.Column("provenance", sa.String(), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("text", sa.LargeBinary(), nullable=False),
        sa.Column("reply_to", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_message")),
        sa.UniqueConstraint("key", name=op.f("uq_message_key")),
    )
    op.create_index("ix_message_member", "message", ["member"], unique=False)
    op.create_index("ix_message_window", "message", ["channel", "sent_at"], unique=False)
    op.create_table(
        "reply",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("channel", sa.String(), nullable=False),
        sa.Column("voice", sa.String(), nullable=False),
        sa.Column("adapter", sa.String(), nullable=False),
        sa.Column("prompt_member", sa.String(), nullable=False),
        sa.Column("prompt_key", sa.String(), nullable=True),
        sa.Column("prompt", sa.LargeBinary(), nullable=True),
        sa.Column("text", sa.LargeBinary(), nullable=True),
        sa.Column("provenance", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reply")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_reply_adapter"), "reply", ["adapter"], unique=False)
    op.create_index(op.f("ix_reply_at"), "reply", ["at"], unique=False)
    op.create_index(op.f("ix_reply_channel"), "reply", ["channel"], unique=False)
    op.create_index(op.f("ix_reply_prompt_key"), "reply", ["prompt_key"], unique=False)
    op.create_index(op.f("ix_reply_prompt_member"), "reply", ["prompt_member"], unique=False)
    op.create_table(
        "run",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("voice", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("stage", sa.String(), nullable=True),
        sa.Column("trigger", sa.String(), nullable=False),
        sa.Column("as_of", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("pid", sa.Integer(), nullable=True),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("incumbent", sa.String(), nullable=False),
        sa.Column("challenger", sa.String(), nullable=True),
        sa.Column("permission_reference", sa.String(), nullable=True),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("cost", sa.JSON(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_run")),
    )
    op.create_index(op.f("ix_run_state"), "run", ["state"], unique=False)
    op.create_index(op.f("ix_run_voice"), "run", ["voice"], unique=False)
    op.create_index(
        "ux_run_active",
        "run",
        ["voice"],
        unique=True,
        sqlite_where=sa.text("state IN ('queued', 'running')"),
        postgresql_where=sa.text("state IN ('queued', 'running')"),
    )
    op.create_table(
        "slang_term",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("voice", sa.String(), nullable=False),
        sa.Column("term", sa.String(), nullable=False),
        sa.Column("gloss", sa.String(), nullable=True),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("score", sa.Float(), nullable=False),
        sa.Column("first_seen", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_seen", sa.DateTime(timezone=True), nullable=True),
        sa.Column("freshness", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_slang_term")),
        sa.UniqueConstraint("voice", "term", name=op.f("uq_slang_term_voice_term")),
    )
    op.create_table(
        "tombstone",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_tombstone")),
    )
    op.create_table(
        "voice",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("system_prompt", sa.String(), nullable=False),
        sa.Column("lexicon", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_voice")),
    )
    op.create_table(
        "duel_vote",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("duel_id", sa.Integer(), nullable=False),
        sa.Column("member", sa.String(), nullable=False),
        sa.Column("choice", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["duel_id"], ["duel.id"], name=op.f("fk_duel_vote_duel_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_duel_vote")),
        sa.UniqueConstraint("duel_id", "member", name=op.f("uq_duel_vote_duel_id_member")),
    )
    op.create_index(op.f("ix_duel_vote_member"), "duel_vote", ["member"], unique=False)
    op.create_table(
        "feedback",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("reply_id", sa.Integer(), nullable=False),
        sa.Column("member", sa.String(), nullable=False),
        sa.Column("vote", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["reply_id"], ["reply.id"], name=op.f("fk_feedback_reply_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_feedback")),
        sa.UniqueConstraint("reply_id", "member", name=op.f("uq_feedback_reply_id_member")),
    )
    op.create_index(op.f("ix_feedback_at"), "feedback", ["at"], unique=False)
    op.create_index(op.f("ix_feedback_member"), "feedback", ["member"], unique=False)
    op.create_table(
        "gate_result",
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("gate", sa.String(), nullable=False),
        sa.Column("verdict", sa.String(), nullable=False),
        sa.Column("statistic", sa.Float(), nullable=True),
        sa.Column("lower", sa.Float(), nullable=True),
        sa.Column("upper", sa.Float(), nullable=True),
        sa.Column("threshold", sa.String(), nullable=False),
        sa.Column("evidence", sa.Integer(), nullable=False),
        sa.Column("evidence_needed", sa.Integer(), nullable=False),
        sa.Column("sentence", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_gate_result_run_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "gate", name=op.f("pk_gate_result")),
    )
    op.create_table(
        "run_source",
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("message_key", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("member", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_run_source_run_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "message_key", "role", name=op.f("pk_run_source")),
    )
    op.create_index("ix_run_source_member", "run_source", ["member"], unique=False)
    op.create_index("ix_run_source_message", "run_source", ["message_key"], unique=False)
    op.create_table(
        "slang_count",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("term_id", sa.Integer(), nullable=False),
        sa.Column("week", sa.DateTime(timezone=True), nullable=False),
        sa.Column("uses", sa.Integer(), nullable=False),
        sa.Column("members", sa.Integer(), nullable=False),
        sa.Column("messages", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["term_id"], ["slang_term.id"], name=op.f("fk_slang_count_term_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_slang_count")),
        sa.UniqueConstraint("term_id", "week", name=op.f("uq_slang_count_term_id_week")),
    )
