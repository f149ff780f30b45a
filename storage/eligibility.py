"""Which stored messages may train or evaluate, and why each other one may not: the one place that decides.

Default: no. Only what every rule below lets pass is eligible, and an unknown provenance never is.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from sqlalchemy import ColumnElement, Select, and_, case, func, null, or_, select, tuple_
from sqlalchemy.orm import aliased
from sqlmodel import Session, col

from nocap.domain import Provenance, Purpose, VoiceName
from storage.consent import granted_pairs
from storage.tables import Channel, Message, Tombstone

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


def eligible_messages(session: Session, query: EligibilityQuery) -> list[Message]:
    """The messages that may be used, by channel and time. Every other one has a reason: `exclusion_counts`."""
    statement, reason = _judged(query, Message)
    statement = statement.where(~_outside(query), reason.is_(None)).order_by(
        col(Message.channel), col(Message.sent_at), col(Message.id)
    )
    return list(session.scalars(statement))


def exclusion_counts(session: Session, query: EligibilityQuery) -> dict[Exclusion, int]:
    """How many of the voice's messages are left out, by reason; reasons without any are absent."""
    statement, reason = _judged(query, func.count())
    rows = session.execute(statement.add_columns(reason).where(reason.is_not(None)).group_by(reason))
    return {Exclusion(why): count for count, why in rows}


def _judged(query: EligibilityQuery, selected: Any) -> tuple[Select[Any], ColumnElement[str | None]]:
    """The voice's messages joined with all that decides on them, and the first reason against each (or NULL)."""
    erased, forgotten = aliased(Tombstone), aliased(Tombstone)
    statement = (
        select(selected)
        .select_from(Message)
        .join(Channel, and_(col(Channel.key) == Message.channel, col(Channel.voice) == query.voice))
        .outerjoin(erased, col(erased.key) == Message.key)
        .outerjoin(forgotten, and_(col(forgotten.key) == Message.member, col(Message.sent_at) <= forgotten.at))
    )
    is_seed = col(Message.provenance) == Provenance.OPERATOR_SEED
    no_permission = not (query.permission_reference or "").strip()
    reason: ColumnElement[str | None] = case(
        (_outside(query), Exclusion.OUTSIDE_WINDOW.value),
        (or_(col(erased.key).is_not(None), col(forgotten.key).is_not(None)), Exclusion.TOMBSTONED.value),
        *([(is_seed, null())] if query.purpose is Purpose.TRAIN else []),
        (col(Message.provenance).not_in(MEMBERS_OWN), Exclusion.PROVENANCE.value),
        *(
            [(col(Message.provenance) == Provenance.DISCORD_MESSAGE, Exclusion.NO_PERMISSION.value)]
            if no_permission
            else []
        ),
        (col(Channel.collect).is_(False), Exclusion.CHANNEL_NOT_COLLECTING.value),
        (
            _has_agreed(Purpose.STORE, query.policy_version),
            case((_has_agreed(query.purpose, query.policy_version), null()), else_=Exclusion.NO_PURPOSE_CONSENT.value),
        ),
        else_=Exclusion.NO_STORE_CONSENT.value,
    )
    return statement, reason


def _has_agreed(purpose: Purpose, policy_version: str) -> ColumnElement[bool]:
    """By a list of all who agreed, which both databases work out once.

    Never negate it: SQLite looks a pair up in the list, but goes through all of it to answer NOT IN for a pair.
    """
    agreed = granted_pairs(purpose, policy_version)
    return tuple_(col(Message.member), col(Message.channel)).in_(select(agreed.c.member, agreed.c.channel))


def _outside(query: EligibilityQuery) -> ColumnElement[bool]:
    late = col(Message.sent_at) >= query.until
    return late if query.since is None else or_(late, col(Message.sent_at) < query.since)
