"""The tables. Texts are encrypted at rest (`EncryptedText`); people, chats and messages are keyed pseudonyms.

Every moment is stored in UTC and comes back aware. Schema changes go through `storage/migrations`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, Column, DateTime, Index, LargeBinary, UniqueConstraint, text
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field, SQLModel

# Every constraint has a name, so that later migrations can find it on both databases.
SQLModel.metadata.naming_convention = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class EncryptedText(TypeDecorator[str]):
    """Text as AES-256-GCM bytes; the keyring hangs on the engine's dialect (see `Database.open`)."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> bytes | None:
        return None if value is None else dialect.nocap_keyring.encrypt(value)  # type: ignore[attr-defined]

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> str | None:
        return None if value is None else dialect.nocap_keyring.decrypt(value)  # type: ignore[attr-defined]


class UtcDateTime(TypeDecorator[datetime]):
    """A moment; naive values are refused, because nobody can say which zone they mean."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError(f"A stored moment needs a time zone, got the naive {value!r}.")
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _moment(**options: Any) -> Any:
    return Field(sa_type=UtcDateTime, **options)


def _secret(**options: Any) -> Any:
    return Field(sa_type=EncryptedText, **options)


def _json() -> Any:
    """A dictionary as JSON, whose changes in place are noticed too."""
    return Field(default_factory=dict, sa_column=Column(MutableDict.as_mutable(JSON), nullable=False))


class Channel(SQLModel, table=True):
    """A chat: a Discord channel, a Telegram group, a private chat, a terminal, an imported file's channel."""

    key: str = Field(primary_key=True)
    platform: str
    label: str | None = _secret(default=None, nullable=True)
    voice: str = Field(index=True)
    mode: str = "mention"
    collect: bool = False
    """Set by moderators; necessary for storing anything, never sufficient."""
    duels: bool = True
    created_at: datetime = _moment()


class MovedChannel(SQLModel, table=True):
    """A chat that got another id on its platform (a group that became a supergroup) stays the channel that it was."""

    __tablename__ = "moved_channel"

    key: str = Field(primary_key=True)
    """Of the new id."""
    channel: str


class ConsentEvent(SQLModel, table=True):
    """One line of the append-only ledger; the last line for (member, channel, purpose) counts."""

    __tablename__ = "consent_event"
    __table_args__ = (Index("ix_consent_lookup", "member", "channel", "purpose", "id"),)

    id: int | None = Field(default=None, primary_key=True)
    member: str
    channel: str
    purpose: str
    granted: bool
    policy_version: str
    at: datetime = _moment()


class Message(SQLModel, table=True):
    """A member's text (scrubbed), or the operator's seed."""

    __table_args__ = (
        Index("ix_message_member", "member"),
        # A window of all channels, for PostgreSQL; retention.
        Index("ix_message_sent_at", "sent_at"),
        # All that eligibility decides on, so that it reads no row whose text it does not return.
        Index("ix_message_window", "channel", "sent_at", "member", "provenance", "key"),
    )

    id: int | None = Field(default=None, primary_key=True)
    key: str = Field(unique=True)
    channel: str
    member: str
    provenance: str
    sent_at: datetime = _moment()
    received_at: datetime = _moment()
    text: str = _secret()
    reply_to: str | None = None
    """The key of the message that this one answers; that message need not be stored."""


class Reply(SQLModel, table=True):
    """An answer of the bot. Prompt and text are there only where the asking member consented to storing."""

    # Buttons in chats hold the id, so SQLite must never give a deleted row's id to another.
    __table_args__ = {"sqlite_autoincrement": True}

    id: int | None = Field(default=None, primary_key=True)
    channel: str = Field(index=True)
    voice: str
    adapter: str = Field(index=True)
    prompt_member: str = Field(index=True)
    prompt_key: str | None = Field(default=None, index=True)
    prompt: str | None = _secret(default=None, nullable=True)
    text: str | None = _secret(default=None, nullable=True)
    provenance: str
    """Of the prompt; a vote becomes a training label only where this and the consent allow."""
    at: datetime = _moment(index=True)


class Feedback(SQLModel, table=True):
    """One member's present vote on one reply."""

    __table_args__ = (UniqueConstraint("reply_id", "member"),)

    id: int | None = Field(default=None, primary_key=True)
    reply_id: int = Field(foreign_key="reply.id", ondelete="CASCADE")
    member: str = Field(index=True)
    vote: str
    at: datetime = _moment(index=True)


class WithdrawnVote(SQLModel, table=True):
    """That a member took a vote back: an older one that waited on some machine's disk must not come after that."""

    __tablename__ = "withdrawn_vote"

    reply_id: int = Field(primary_key=True, foreign_key="reply.id", ondelete="CASCADE")
    member: str = Field(primary_key=True, index=True)
    at: datetime = _moment()


class Duel(SQLModel, table=True):
    """Two hidden adapters' answers to one prompt."""

    __table_args__ = {"sqlite_autoincrement": True}

    id: int | None = Field(default=None, primary_key=True)
    channel: str
    voice: str = Field(index=True)
    prompt_member: str = Field(index=True)
    prompt_key: str | None = Field(default=None, index=True)
    provenance: str
    prompt: str | None = _secret(default=None, nullable=True)
    left_adapter: str
    right_adapter: str
    left_text: str | None = _secret(default=None, nullable=True)
    right_text: str | None = _secret(default=None, nullable=True)
    at: datetime = _moment()


class DuelVote(SQLModel, table=True):
    __tablename__ = "duel_vote"
    __table_args__ = (UniqueConstraint("duel_id", "member"),)

    id: int | None = Field(default=None, primary_key=True)
    duel_id: int = Field(foreign_key="duel.id", ondelete="CASCADE")
    member: str = Field(index=True)
    choice: str
    at: datetime = _moment()


class SlangTerm(SQLModel, table=True):
    """A term of one voice's glossary or of its review queue."""

    __tablename__ = "slang_term"
    __table_args__ = (UniqueConstraint("voice", "term"),)

    id: int | None = Field(default=None, primary_key=True)
    voice: str
    term: str
    gloss: str | None = None
    status: str = "candidate"
    score: float = 0.0
    """The z score of the weighted log-odds when last detected (Monroe et al. 2008)."""
    first_seen: datetime | None = _moment(default=None, nullable=True)
    last_seen: datetime | None = _moment(default=None, nullable=True)
    freshness: float = 0.0
    """Share of the term's last twelve weeks' uses that fall in the last two, 0 to 1."""
    expires_at: datetime | None = _moment(default=None, nullable=True)


class SlangCount(SQLModel, table=True):
    """How often a term was used in a week, and by how many members; no row below five members."""

    __tablename__ = "slang_count"
    __table_args__ = (UniqueConstraint("term_id", "week"),)

    id: int | None = Field(default=None, primary_key=True)
    term_id: int = Field(foreign_key="slang_term.id", ondelete="CASCADE")
    week: datetime = _moment()
    uses: int
    members: int
    messages: int
    """Messages of that week over which the rate is taken."""


class Voice(SQLModel, table=True):
    name: str = Field(primary_key=True)
    system_prompt: str
    lexicon: list[str] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    """The seed lexicon: marker terms of this voice."""
    created_at: datetime = _moment()


class Adapter(SQLModel, table=True):
    """An immutable adapter folder, named once."""

    name: str = Field(primary_key=True)
    voice: str = Field(index=True)
    run_id: str | None = None
    base: str
    base_digest: str
    digest: str
    """SHA-256 over the folder's manifest."""
    status: str
    created_at: datetime = _moment()


class Deployment(SQLModel, table=True):
    """What is live for a voice: the one pointer."""

    voice: str = Field(primary_key=True)
    current: str
    previous: str | None = None
    canary: str | None = None
    canary_share: float = 0.0
    revision: int = 0
    since: datetime = _moment()


class Run(SQLModel, table=True):
    """A retrain; its folder is `runs/<id>/`. A voice has at most one that is not over."""

    __table_args__ = (
        Index(
            "ux_run_active",
            "voice",
            unique=True,
            sqlite_where=text("state IN ('queued', 'running')"),
            postgresql_where=text("state IN ('queued', 'running')"),
        ),
    )

    id: str = Field(primary_key=True)
    voice: str = Field(index=True)
    state: str = Field(index=True)
    stage: str | None = None
    """The stage in progress, or the last one begun."""
    trigger: str
    """`operator`, `schedule`, …"""
    as_of: datetime = _moment()
    """The run's present: windows, quarantine and held-out weeks are counted back from here."""
    created_at: datetime = _moment()
    ended_at: datetime | None = _moment(default=None, nullable=True)
    heartbeat_at: datetime | None = _moment(default=None, nullable=True)
    pid: int | None = None
    cancel_requested: bool = False
    incumbent: str
    challenger: str | None = None
    permission_reference: str | None = None
    options: dict[str, Any] = _json()
    """What the caller overrode, and the digests frozen at the snapshot."""
    cost: dict[str, Any] = _json()
    """seconds, peak_bytes, energy_joules, energy_is_estimate, money, currency, tokens, examples: see retrain.cost."""
    reason: str | None = None
    """Why it ended as it did, in one plain sentence without any member's text."""


class RunSource(SQLModel, table=True):
    """Lineage: which stored message went into which run, and as what."""

    __tablename__ = "run_source"
    __table_args__ = (Index("ix_run_source_message", "message_key"), Index("ix_run_source_member", "member"))

    run_id: str = Field(primary_key=True, foreign_key="run.id", ondelete="CASCADE")
    message_key: str = Field(primary_key=True)
    role: str = Field(primary_key=True)
    """`train`, `validation`, `evaluate`, or `thumb` and `duel` for prompts whose answers were voted on."""
    member: str


class GateOutcome(SQLModel, table=True):
    """One gate's verdict on one run; the whole evidence is in `runs/<id>/gates.json`."""

    __tablename__ = "gate_result"

    run_id: str = Field(primary_key=True, foreign_key="run.id", ondelete="CASCADE")
    gate: str = Field(primary_key=True)
    verdict: str
    statistic: float | None = None
    lower: float | None = None
    upper: float | None = None
    threshold: str
    evidence: int
    evidence_needed: int
    sentence: str


class Lease(SQLModel, table=True):
    """Whoever holds it alone may do the named work until it runs out."""

    name: str = Field(primary_key=True)
    owner: str
    expires_at: datetime = _moment()


class AuditEvent(SQLModel, table=True):
    __tablename__ = "audit_event"

    id: int | None = Field(default=None, primary_key=True)
    at: datetime = _moment(index=True)
    actor: str
    action: str
    target: str
    detail: dict[str, Any] = _json()


class Tombstone(SQLModel, table=True):
    """What must never come back: an erased message, or what a forgotten member said until `at`."""

    key: str = Field(primary_key=True)
    at: datetime = _moment()


class Retirement(SQLModel, table=True):
    """An adapter that learnt from texts which were erased since: to be out of service by a deadline."""

    adapter: str = Field(primary_key=True, foreign_key="adapter.name")
    requested_at: datetime = _moment()
    """Of the first such erasure."""


class Identity(SQLModel, table=True):
    """One row that says whose database this is: the check value of the keyring it was made with."""

    id: int = Field(default=1, primary_key=True)
    key_check: str
    created_at: datetime = _moment()


class Posted(SQLModel, table=True):
    """Which message of the bot shows which answer, so that reactions and replies to it find the answer."""

    key: str = Field(primary_key=True)
    reply_id: int = Field(foreign_key="reply.id", ondelete="CASCADE", index=True)


class Report(SQLModel, table=True):
    """A member's complaint about an answer, or about the bot in a chat; moderators settle it."""

    __table_args__ = (UniqueConstraint("reply_id", "member"), {"sqlite_autoincrement": True})

    id: int | None = Field(default=None, primary_key=True)
    channel: str = Field(index=True)
    member: str = Field(index=True)
    """Who complains."""
    reply_id: int | None = Field(default=None, foreign_key="reply.id", ondelete="CASCADE", nullable=True)
    reason: str | None = _secret(default=None, nullable=True)
    at: datetime = _moment()
    settled_by: str | None = None
    settled_at: datetime | None = _moment(default=None, nullable=True)


class ConsentAsk(SQLModel, table=True):
    """That a member was asked for consent in a chat, under which privacy text: nobody is asked twice."""

    __tablename__ = "consent_ask"

    member: str = Field(primary_key=True)
    channel: str = Field(primary_key=True)
    policy_version: str = Field(primary_key=True)
    at: datetime = _moment()


class Notice(SQLModel, table=True):
    """That operators were told of a run's end in a chat: nobody is told twice, by whichever process."""

    key: str = Field(primary_key=True)
    at: datetime = _moment()
