"""The consent ledger: append-only, and the last line for (member, channel, purpose) counts."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

import sqlalchemy
from sqlalchemy import Subquery, func
from sqlmodel import Session, col, select

from nocap.domain import ChannelKey, MemberKey, Purpose
from storage.tables import ConsentAsk, ConsentEvent

# Built once: building a statement takes ten times as long as running it, and every turn of the chat asks.
_LAST_LINES = sqlalchemy.select(
    col(ConsentEvent.purpose), col(ConsentEvent.granted), col(ConsentEvent.policy_version)
).where(
    col(ConsentEvent.id).in_(
        sqlalchemy.select(func.max(ConsentEvent.id))
        .where(
            col(ConsentEvent.member) == sqlalchemy.bindparam("member"),
            col(ConsentEvent.channel) == sqlalchemy.bindparam("channel"),
        )
        .group_by(col(ConsentEvent.purpose))
    )
)


def record_consent(
    session: Session,
    member: MemberKey,
    channel: ChannelKey,
    purposes: Collection[Purpose],
    granted: bool,
    policy_version: str,
    at: datetime,
) -> None:
    """Appends one line per purpose; it holds from the very next statement."""
    session.add_all(
        ConsentEvent(
            member=member, channel=channel, purpose=purpose, granted=granted, policy_version=policy_version, at=at
        )
        for purpose in sorted(set(purposes))
    )
    session.flush()


def has_consent(
    session: Session, member: MemberKey, channel: ChannelKey, purpose: Purpose, policy_version: str
) -> bool:
    """True where the last line grants the purpose under this very policy version."""
    return consent_state(session, member, channel, policy_version)[purpose]


def consent_state(session: Session, member: MemberKey, channel: ChannelKey, policy_version: str) -> dict[Purpose, bool]:
    """What the member has agreed to in this channel, for every purpose; no line, or an older policy's, is a no."""
    lines = session.connection().execute(_LAST_LINES, {"member": member, "channel": channel})
    granted = {line.purpose for line in lines if line.granted and line.policy_version == policy_version}
    return {purpose: purpose in granted for purpose in Purpose}


def claim_ask(session: Session, member: MemberKey, channel: ChannelKey, policy_version: str, at: datetime) -> bool:
    """Whether the member may be asked here now: once a privacy text, and never who has answered already."""
    answered = select(ConsentEvent.id).where(
        ConsentEvent.member == member, ConsentEvent.channel == channel, ConsentEvent.policy_version == policy_version
    )
    if session.exec(answered.limit(1)).first() is not None:
        return False
    if session.get(ConsentAsk, (member, channel, policy_version)) is not None:
        return False
    session.add(ConsentAsk(member=member, channel=channel, policy_version=policy_version, at=at))
    session.flush()
    return True


def granted_pairs(purpose: Purpose, policy_version: str | None) -> Subquery:
    """Every (member, channel) whose last line grants the purpose; None takes any policy version."""
    last = (
        select(func.max(ConsentEvent.id))
        .where(ConsentEvent.purpose == purpose)
        .group_by(col(ConsentEvent.member), col(ConsentEvent.channel))
    )
    lines = select(ConsentEvent.member, ConsentEvent.channel).where(
        col(ConsentEvent.id).in_(last), col(ConsentEvent.granted)
    )
    if policy_version is not None:
        lines = lines.where(ConsentEvent.policy_version == policy_version)
    return lines.subquery()
