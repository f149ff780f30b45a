"""Which stored texts may train or evaluate, and why each other one may not: the one place that decides.

Default: no. Only what every rule below lets pass is eligible, and an unknown provenance never is. The bot's answers
are judged by the message that they answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, TypeVar

from sqlalchemy import ColumnElement, Select, and_, case, func, null, or_, select, tuple_
from sqlalchemy.orm import aliased
from sqlmodel import Session, col

from nocap.domain import MemberKey, Provenance, Purpose, VoiceName
from storage.consent import granted_pairs
from storage.tables import Channel, ConsentEvent, Duel, DuelVote, Feedback, Message, Reply, Tombstone

FETCHED_ROWS = 1000

Answer = TypeVar("Answer", Reply, Duel)

MEMBERS_OWN = (
    Provenance.DISCORD_MESSAGE,
    Provenance.DISCORD_SUBMISSION,
    Provenance.TELEGRAM_MESSAGE,
    Provenance.TELEGRAM_SUBMISSION,
    Provenance.DONATION,
    Provenance.TERMINAL,
)
"""Provenances that may be eligible with their author's consent."""


class Exclusion(StrEnum):
    """Why a message is left out; where several reasons hold, the first in this order is given."""

    OUTSIDE_WINDOW = "outside_window"
    TOMBSTONED = "tombstoned"
    PROVENANCE = "provenance"
    NO_PERMISSION = "no_permission"
    CHANNEL_NOT_COLLECTING = "channel_not_collecting"
    NO_STORE_CONSENT = "no_store_consent"
    NO_PURPOSE_CONSENT = "no_purpose_consent"


@dataclass(frozen=True, slots=True)
class EligibilityQuery:
    """Messages of one voice's channels, sent in [since, until), for one purpose."""

    voice: VoiceName
    purpose: Literal[Purpose.TRAIN, Purpose.EVALUATE]
    policy_version: str
    permission_reference: str | None
    """Discord's written permission to train on message content; None or blank means there is none."""
    since: datetime | None
    until: datetime


@dataclass(frozen=True, slots=True)
class Ballot:
    """One member's vote on a reply or in a duel."""

    answer_id: int
    member: MemberKey
    choice: str
    """A `Vote` or a `DuelChoice`."""
    at: datetime
    known_since: datetime
    """When the member first agreed to anything or voted."""


@dataclass(frozen=True, slots=True)
class _Columns:
    """What is looked at in a table whose texts are judged."""

    table: Any
    key: Any
    member: Any
    sent_at: Any


_MESSAGES = _Columns(Message, Message.key, Message.member, Message.sent_at)


def eligible_messages(session: Session, query: EligibilityQuery) -> list[Message]:
    """The messages that may be used, by channel and time. Every other one has a reason: `exclusion_counts`."""
    statement = _eligible(query, _MESSAGES, Message)
    return list(session.scalars(statement.order_by(col(Message.channel), col(Message.sent_at), col(Message.id))))


def eligible_fields(session: Session, query: EligibilityQuery, *fields: Any) -> Iterator[Any]:
    """Only these columns of the messages that may be used, in no order, a thousand rows of memory at a time."""
    statement = _eligible(query, _MESSAGES, Message).with_only_columns(*fields)
    yield from session.execute(statement.execution_options(yield_per=FETCHED_ROWS))


def eligible_count(session: Session, query: EligibilityQuery) -> int:
    """How many messages may be used, without reading their texts."""
    return int(session.execute(_eligible(query, _MESSAGES, func.count())).scalar_one())


def eligible_answers(session: Session, query: EligibilityQuery, table: type[Answer]) -> list[Answer]:
    """The voice's answers (`Reply`, `Duel`) to prompts that may be used, by id; their texts are there."""
    statement = _eligible(query, _Columns(table, table.prompt_key, table.prompt_member, table.at), table)
    any_table: Any = table
    texts: tuple[str, ...] = ("left_text", "right_text") if table is Duel else ("text",)
    kept = [getattr(any_table, name).is_not(None) for name in ("prompt", *texts)]
    statement = statement.where(any_table.voice == query.voice, *kept).order_by(col(table.id))
    return list(session.scalars(statement))


def eligible_ballots(session: Session, query: EligibilityQuery, table: type[Reply] | type[Duel]) -> list[Ballot]:
    """Votes on the voice's answers, by members who agreed that their votes may become labels, in a fixed order."""
    vote: Any = Feedback if table is Reply else DuelVote
    answer_id, choice = (vote.reply_id, vote.vote) if table is Reply else (vote.duel_id, vote.choice)
    agreed = granted_pairs(Purpose.FEEDBACK, query.policy_version)
    word: Any = ConsentEvent
    first_word = select(word.member, func.min(word.at).label("at")).group_by(word.member).subquery()
    first_vote = select(vote.member, func.min(vote.at).label("at")).group_by(vote.member).subquery()
    statement = (
        select(answer_id, vote.member, choice, vote.at, first_word.c.at, first_vote.c.at)
        .join(table, col(table.id) == answer_id)
        .join(agreed, and_(agreed.c.member == vote.member, agreed.c.channel == table.channel))
        .join(first_word, first_word.c.member == vote.member)
        .join(first_vote, first_vote.c.member == vote.member)
        .where(col(table.voice) == query.voice, vote.at < query.until)
        .order_by(answer_id, vote.member)
    )
    return [
        Ballot(number, MemberKey(member), chosen, at, min(word, voted))
        for number, member, chosen, at, word, voted in session.execute(statement)
    ]


def exclusion_counts(session: Session, query: EligibilityQuery) -> dict[Exclusion, int]:
    """How many of the voice's messages are left out, by reason; reasons without any are absent."""
    statement, reason = _judged(query, _MESSAGES, func.count())
    rows = session.execute(statement.add_columns(reason).where(reason.is_not(None)).group_by(reason))
    return {Exclusion(why): count for count, why in rows}


def _eligible(query: EligibilityQuery, columns: _Columns, selected: Any) -> Select[Any]:
    """Rows of the voice's channels that may be used. The window is said once more, as what an index can look up."""
    statement, reason = _judged(query, columns, selected)
    return statement.where(_inside(query, columns.sent_at), reason.is_(None))


def _judged(query: EligibilityQuery, columns: _Columns, selected: Any) -> tuple[Select[Any], ColumnElement[str | None]]:
    """Rows of the voice's channels joined with all that decides on them, and the first reason against each, or NULL."""
    table, member = columns.table, columns.member
    erased, forgotten = aliased(Tombstone), aliased(Tombstone)
    statement = (
        select(selected)
        .select_from(table)
        .join(Channel, and_(col(Channel.key) == table.channel, col(Channel.voice) == query.voice))
        .outerjoin(erased, col(erased.key) == columns.key)
        .outerjoin(forgotten, and_(col(forgotten.key) == member, columns.sent_at <= forgotten.at))
    )
    is_seed = table.provenance == Provenance.OPERATOR_SEED
    no_permission = not (query.permission_reference or "").strip()
    reason: ColumnElement[str | None] = case(
        (~_inside(query, columns.sent_at), Exclusion.OUTSIDE_WINDOW.value),
        (or_(col(erased.key).is_not(None), col(forgotten.key).is_not(None)), Exclusion.TOMBSTONED.value),
        *([(is_seed, null())] if query.purpose is Purpose.TRAIN else []),
        (table.provenance.not_in(MEMBERS_OWN), Exclusion.PROVENANCE.value),
        *([(table.provenance == Provenance.DISCORD_MESSAGE, Exclusion.NO_PERMISSION.value)] if no_permission else []),
        (col(Channel.collect).is_(False), Exclusion.CHANNEL_NOT_COLLECTING.value),
        (
            _has_agreed(columns, Purpose.STORE, query.policy_version),
            case(
                (_has_agreed(columns, query.purpose, query.policy_version), null()),
                else_=Exclusion.NO_PURPOSE_CONSENT.value,
            ),
        ),
        else_=Exclusion.NO_STORE_CONSENT.value,
    )
    return statement, reason


def _has_agreed(columns: _Columns, purpose: Purpose, policy_version: str) -> ColumnElement[bool]:
    """By a list of all who agreed, which both databases work out once.

    Never negate it: SQLite looks a pair up in the list, but goes through all of it to answer NOT IN for a pair.
    """
    agreed = granted_pairs(purpose, policy_version)
    return tuple_(columns.member, columns.table.channel).in_(select(agreed.c.member, agreed.c.channel))


def _inside(query: EligibilityQuery, sent_at: Any) -> ColumnElement[bool]:
    early: ColumnElement[bool] = sent_at < query.until
    return early if query.since is None else and_(sent_at >= query.since, early)
