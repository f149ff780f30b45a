"""Members' texts: taking them in, and letting members see and erase them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy
from sqlalchemy import and_, delete, func, or_, tuple_, update
from sqlmodel import Session, SQLModel, col, select

from nocap.domain import ChannelKey, MemberKey, MessageKey, Provenance, Purpose
from nocap.text.scrub import holds_doubtful_name, scrub
from storage._sql import insert_missing, lock_texts
from storage.consent import granted_pairs
from storage.registry import request_retirement
from storage.runs import adapters_trained_on
from storage.tables import (
    Channel,
    ConsentAsk,
    ConsentEvent,
    Duel,
    DuelVote,
    Feedback,
    Message,
    Reply,
    Report,
    Tombstone,
    WithdrawnVote,
)

CHUNK_ROWS = 1000


@dataclass(frozen=True, slots=True)
class NewMessage:
    key: MessageKey
    channel: ChannelKey
    member: MemberKey
    provenance: Provenance
    sent_at: datetime
    text: str
    reply_to: MessageKey | None = None


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of each message handed in; the counts add up to their number."""

    added: int = 0
    duplicates: int = 0
    not_collecting: int = 0
    not_consented: int = 0
    tombstoned: int = 0
    empty: int = 0
    doubtful: int = 0
    """Dropped because a word in them may be a name: see `drop_on_doubt`."""

    def __add__(self, other: IngestReport) -> IngestReport:
        return IngestReport(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class ErasureReceipt:
    """How many rows were erased (messages, votes) or emptied of their texts (replies, duels)."""

    messages: int
    replies: int
    feedback: int
    duels: int
    adapters: list[str]
    """Adapters trained on the member's texts: to be retired."""
    quotes: int = 0
    """Other members' messages, answers and duels that lost the member's words."""
    files: int = 0
    """Files of runs that were removed or rewritten."""
    retire_by: datetime | None = None
    """When the last of `adapters` is out of service; None where there is none."""


@dataclass(frozen=True, slots=True)
class ChannelPurge:
    """How many messages were erased, and replies and duels emptied of their texts."""

    messages: int
    replies: int
    duels: int


def ingest(
    session: Session,
    messages: Sequence[NewMessage],
    *,
    policy_version: str,
    at: datetime,
    drop_on_doubt: bool = False,
) -> IngestReport:
    """Stores, scrubbed of personal data, what its channel collects and its author agreed to have stored.

    Idempotent by message key. The operator's seeds need neither consent nor a collecting channel. With
    `drop_on_doubt` a member's text in which a word may be a name, and may be not, is not stored at all.
    """
    lock_texts(session, erasing=False)
    report = IngestReport()
    for start in range(0, len(messages), CHUNK_ROWS):
        report += _ingest_chunk(session, messages[start : start + CHUNK_ROWS], policy_version, at, drop_on_doubt)
    return report


def recent_messages(session: Session, channel: ChannelKey, limit: int) -> list[Message]:
    """The channel's last `limit` messages, oldest first, without those of members who took storing back."""
    store = granted_pairs(Purpose.STORE, None)
    agreed = and_(store.c.member == Message.member, store.c.channel == Message.channel)
    newest = (
        select(Message)
        .outerjoin(store, agreed)
        .where(
            Message.channel == channel,
            or_(store.c.member.is_not(None), col(Message.provenance) == Provenance.OPERATOR_SEED),
        )
        .order_by(col(Message.sent_at).desc(), col(Message.id).desc())
        .limit(limit)
    )
    return list(session.exec(newest))[::-1]


def delete_message(session: Session, key: MessageKey, at: datetime) -> bool:
    """Erases a message and the bot's answers to it, for good; returns whether it was stored."""
    lock_texts(session, erasing=True)
    _bury(session, [key], at)
    _empty_answers(session, col(Reply.prompt_key) == key, col(Duel.prompt_key) == key)
    return _changed(session, delete(Message).where(col(Message.key) == key)) > 0


def edit_message(session: Session, key: MessageKey, text: str, at: datetime, *, drop_on_doubt: bool = False) -> bool:
    """Puts the author's new wording, scrubbed, where the old one is stored; returns whether it was.

    The bot's answers to the old wording lose their texts: they no longer answer what stands there. A wording that
    leaves nothing, or with `drop_on_doubt` perhaps a name, erases the message.
    """
    lock_texts(session, erasing=True)
    wording = scrub(text).strip()
    if not wording or (drop_on_doubt and holds_doubtful_name(wording)):
        return delete_message(session, key, at)
    edited = update(Message).where(col(Message.key) == key).values(text=wording)
    _empty_answers(session, col(Reply.prompt_key) == key, col(Duel.prompt_key) == key)
    return _changed(session, edited) > 0


def purge_channel(session: Session, channel: ChannelKey, at: datetime) -> ChannelPurge:
    """Erases every text of the channel for good, and the reports on its answers; votes stay as bare counts."""
    lock_texts(session, erasing=True)
    keys = session.exec(select(Message.key).where(Message.channel == channel)).all()
    _bury(session, keys, at)
    replies, duels = _empty_answers(session, col(Reply.channel) == channel, col(Duel.channel) == channel)
    session.execute(delete(Report).where(col(Report.channel) == channel))
    return ChannelPurge(
        messages=_changed(session, delete(Message).where(col(Message.channel) == channel)), replies=replies, duels=duels
    )


def forget_member(session: Session, member: MemberKey, at: datetime) -> ErasureReceipt:
    """Erases the member's texts and votes and takes back every consent; nothing said until `at` can come back.

    This is the rows' part of `storage.erasure.forget`, which all faces call. Ledger and lineage stay, under the
    pseudonym, as proof. The member may agree anew later.
    """
    lock_texts(session, erasing=True)
    adapters = adapters_trained_on(session, member)
    request_retirement(session, adapters, at)
    _revoke_all(session, member, at)
    keys = session.exec(select(Message.key).where(Message.member == member)).all()
    _bury(session, [*keys, member], at)
    session.execute(update(Tombstone).where(col(Tombstone.key) == member, col(Tombstone.at) < at).values(at=at))
    replies, duels = _empty_answers(session, col(Reply.prompt_member) == member, col(Duel.prompt_member) == member)
    session.execute(delete(Report).where(col(Report.member) == member))
    session.execute(delete(ConsentAsk).where(col(ConsentAsk.member) == member))
    session.execute(delete(WithdrawnVote).where(col(WithdrawnVote.member) == member))
    return ErasureReceipt(
        messages=_changed(session, delete(Message).where(col(Message.member) == member)),
        replies=replies,
        feedback=_changed(session, delete(Feedback).where(col(Feedback.member) == member))
        + _changed(session, delete(DuelVote).where(col(DuelVote.member) == member)),
        duels=duels,
        adapters=adapters,
    )


def export_member(session: Session, member: MemberKey) -> dict[str, Any]:
    """All that is stored under the member's pseudonym, ready for JSON; moments in ISO 8601."""
    return {
        "member": member,
        "consent": _dump(session, ConsentEvent, ConsentEvent.member == member),
        "messages": _dump(session, Message, Message.member == member),
        "replies": _dump(session, Reply, Reply.prompt_member == member),
        "votes": _dump(session, Feedback, Feedback.member == member),
        "withdrawn_votes": _dump(session, WithdrawnVote, WithdrawnVote.member == member),
        "duels": _dump(session, Duel, Duel.prompt_member == member),
        "duel_votes": _dump(session, DuelVote, DuelVote.member == member),
        "reports": _dump(session, Report, Report.member == member),
        "consent_asked": _dump(session, ConsentAsk, ConsentAsk.member == member),
        "adapters": adapters_trained_on(session, member),
    }


def _ingest_chunk(
    session: Session, messages: Sequence[NewMessage], policy_version: str, at: datetime, drop_on_doubt: bool
) -> IngestReport:
    collecting = _collecting(session, messages)
    consented = _consented(session, messages, policy_version)
    erased, forgotten = _tombstones(session, messages)
    stored = _stored(session, messages)
    counts: Counter[str] = Counter()
    rows: dict[str, dict[str, Any]] = {}
    for message in messages:
        is_seed = message.provenance is Provenance.OPERATOR_SEED
        buried_at = forgotten.get(message.member)
        if message.key in erased or (buried_at is not None and message.sent_at <= buried_at):
            counts["tombstoned"] += 1
        elif message.channel not in collecting or not (collecting[message.channel] or is_seed):
            counts["not_collecting"] += 1
        elif not is_seed and (message.member, message.channel) not in consented:
            counts["not_consented"] += 1
        elif message.key in stored or message.key in rows:
            counts["duplicates"] += 1
        elif not (text := scrub(message.text).strip()):
            counts["empty"] += 1
        elif drop_on_doubt and not is_seed and holds_doubtful_name(text):
            counts["doubtful"] += 1
        else:
            rows[message.key] = _row(message, text, at)
    added = insert_missing(session, Message, list(rows.values()), key="key")
    counts["duplicates"] += len(rows) - added
    return IngestReport(added=added, **counts)


def _row(message: NewMessage, text: str, at: datetime) -> dict[str, Any]:
    return {
        "key": message.key,
        "channel": message.channel,
        "member": message.member,
        "provenance": message.provenance,
        "sent_at": message.sent_at,
        "received_at": at,
        "text": text,
        "reply_to": message.reply_to,
    }


def _several(name: str) -> Any:
    return sqlalchemy.bindparam(name, expanding=True)


# Built once: building a statement takes ten times as long as running it, and every stored turn of the chat asks.
_COLLECTING = sqlalchemy.select(col(Channel.key), col(Channel.collect)).where(col(Channel.key).in_(_several("keys")))
_CONSENTED = sqlalchemy.select(col(ConsentEvent.member), col(ConsentEvent.channel)).where(
    col(ConsentEvent.id).in_(
        sqlalchemy.select(func.max(ConsentEvent.id))
        .where(
            tuple_(col(ConsentEvent.member), col(ConsentEvent.channel)).in_(_several("pairs")),
            col(ConsentEvent.purpose) == Purpose.STORE.value,
        )
        .group_by(col(ConsentEvent.member), col(ConsentEvent.channel))
    ),
    col(ConsentEvent.granted),
    col(ConsentEvent.policy_version) == sqlalchemy.bindparam("policy_version"),
)
_BURIED = sqlalchemy.select(col(Tombstone.key), col(Tombstone.at)).where(col(Tombstone.key).in_(_several("keys")))
_STORED = sqlalchemy.select(col(Message.key)).where(col(Message.key).in_(_several("keys")))


def _collecting(session: Session, messages: Sequence[NewMessage]) -> dict[str, bool]:
    keys = sorted({message.channel for message in messages})
    rows = session.connection().execute(_COLLECTING, {"keys": keys})
    return {row.key: row.collect for row in rows}


def _consented(session: Session, messages: Sequence[NewMessage], policy_version: str) -> set[tuple[str, str]]:
    pairs = sorted({(message.member, message.channel) for message in messages})
    asked = {"pairs": pairs, "policy_version": policy_version}
    return {(member, channel) for member, channel in session.connection().execute(_CONSENTED, asked)}


def _tombstones(session: Session, messages: Sequence[NewMessage]) -> tuple[set[str], dict[str, datetime]]:
    """The erased ones among the messages' keys, and until when each forgotten author is forgotten."""
    members = {message.member for message in messages}
    wanted: set[str] = members | {message.key for message in messages}
    found = session.connection().execute(_BURIED, {"keys": sorted(wanted)}).all()
    return {key for key, _ in found if key not in members}, {key: at for key, at in found if key in members}


def _stored(session: Session, messages: Sequence[NewMessage]) -> set[str]:
    keys = [message.key for message in messages]
    return set(session.connection().execute(_STORED, {"keys": keys}).scalars())


def _empty_answers(session: Session, of_replies: Any, of_duels: Any) -> tuple[int, int]:
    """Takes the texts out of the bot's answers; how many replies and duels had some."""
    has_text = or_(col(Reply.prompt).is_not(None), col(Reply.text).is_not(None))
    replies = update(Reply).where(of_replies, has_text).values(prompt=None, text=None)
    of_duel = (col(Duel.prompt), col(Duel.left_text), col(Duel.right_text))
    duels = update(Duel).where(of_duels, or_(*(column.is_not(None) for column in of_duel)))
    return _changed(session, replies), _changed(session, duels.values(prompt=None, left_text=None, right_text=None))


def _bury(session: Session, keys: Iterable[str], at: datetime) -> None:
    rows = [{"key": key, "at": at} for key in keys]
    for chunk in _chunks(rows):
        insert_missing(session, Tombstone, chunk, key="key")


def _chunks(rows: Sequence[dict[str, Any]]) -> Iterator[Sequence[dict[str, Any]]]:
    return (rows[start : start + CHUNK_ROWS] for start in range(0, len(rows), CHUNK_ROWS))


def _revoke_all(session: Session, member: MemberKey, at: datetime) -> None:
    last = (
        select(func.max(ConsentEvent.id))
        .where(ConsentEvent.member == member)
        .group_by(col(ConsentEvent.channel), col(ConsentEvent.purpose))
    )
    granted = session.exec(select(ConsentEvent).where(col(ConsentEvent.id).in_(last), col(ConsentEvent.granted))).all()
    session.add_all(
        ConsentEvent(
            member=member,
            channel=line.channel,
            purpose=line.purpose,
            granted=False,
            policy_version=line.policy_version,
            at=at,
        )
        for line in granted
    )
    session.flush()


def _changed(session: Session, statement: Any) -> int:
    result: Any = session.execute(statement)
    return int(result.rowcount)


def _dump(session: Session, table: type[SQLModel], condition: Any) -> list[dict[str, Any]]:
    rows = select(table).where(condition).order_by(*table.__table__.primary_key)  # type: ignore[attr-defined]
    return [row.model_dump(mode="json") for row in session.exec(rows.execution_options(populate_existing=True))]
