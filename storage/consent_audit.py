"""What the consent ledger says, for operators: about one member, and counted over all of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, case, exists, func, select
from sqlalchemy.orm import aliased
from sqlmodel import Session, col

from nocap.domain import MemberKey
from storage.tables import Channel, ConsentAsk, ConsentEvent


@dataclass(frozen=True, slots=True)
class LedgerState:
    """The last line for a member, chat and purpose."""

    channel: str
    platform: str | None
    label: str | None
    purpose: str
    granted: bool
    policy_version: str
    at: datetime
    holds: bool
    """Granted under the privacy text that holds now; anything else counts as a no."""


@dataclass(frozen=True, slots=True)
class PurposeCount:
    """How many members' last line in a chat says what about a purpose."""

    channel: str
    platform: str | None
    collects: bool
    purpose: str
    agreed: int
    """Under the present privacy text."""
    outdated: int
    """Agreed to an older privacy text: a no until they answer again."""
    refused: int
    """Said no, or took their yes back."""


@dataclass(frozen=True, slots=True)
class ChatDue:
    """Members of a chat who agreed to an older privacy text and have not answered about the present one."""

    channel: str
    due: int
    asked: int
    """Of these, who have been asked by the bot already, and are not asked twice."""


@dataclass(frozen=True, slots=True)
class ConsentAudit:
    policy_version: str
    purposes: list[PurposeCount]
    policy_versions: dict[str, int]
    """Privacy texts by how many yeses that stand were given under them."""
    due: list[ChatDue]


def ledger_state(session: Session, member: MemberKey, policy_version: str) -> list[LedgerState]:
    """The member's last lines, by chat and purpose; [] for one who was never asked or never answered."""
    line: Any = ConsentEvent
    statement = (
        select(line, col(Channel.platform), col(Channel.label))
        .outerjoin(Channel, col(Channel.key) == line.channel)
        .where(line.member == member, line.id.in_(_last_lines().where(line.member == member)))
        .order_by(line.channel, line.purpose)
    )
    return [
        LedgerState(
            channel=row.channel,
            platform=platform,
            label=label,
            purpose=row.purpose,
            granted=row.granted,
            policy_version=row.policy_version,
            at=row.at,
            holds=row.granted and row.policy_version == policy_version,
        )
        for row, platform, label in session.execute(statement)
    ]


def audit_consent(session: Session, policy_version: str) -> ConsentAudit:
    """Counts per chat and purpose, and who is due to be asked again; nothing that names a member."""
    return ConsentAudit(
        policy_version=policy_version,
        purposes=_purpose_counts(session, policy_version),
        policy_versions=_policy_versions(session),
        due=_due(session, policy_version),
    )


def _last_lines() -> Any:
    line: Any = ConsentEvent
    return select(func.max(line.id)).group_by(line.member, line.channel, line.purpose)


def _purpose_counts(session: Session, policy_version: str) -> list[PurposeCount]:
    line: Any = ConsentEvent
    is_present = line.policy_version == policy_version
    statement = (
        select(
            line.channel,
            col(Channel.platform),
            func.coalesce(col(Channel.collect), False),
            line.purpose,
            _count(and_(line.granted, is_present)),
            _count(and_(line.granted, ~is_present)),
            _count(~line.granted),
        )
        .outerjoin(Channel, col(Channel.key) == line.channel)
        .where(line.id.in_(_last_lines()))
        .group_by(line.channel, col(Channel.platform), col(Channel.collect), line.purpose)
        .order_by(line.channel, line.purpose)
    )
    return [PurposeCount(*row) for row in session.execute(statement)]


def _policy_versions(session: Session) -> dict[str, int]:
    line: Any = ConsentEvent
    statement = (
        select(line.policy_version, func.count())
        .where(line.granted, line.id.in_(_last_lines()))
        .group_by(line.policy_version)
        .order_by(line.policy_version)
    )
    return {str(version): int(count) for version, count in session.execute(statement)}


def _due(session: Session, policy_version: str) -> list[ChatDue]:
    line: Any = ConsentEvent
    answer: Any = aliased(ConsentEvent)
    answered = exists().where(
        answer.member == line.member, answer.channel == line.channel, answer.policy_version == policy_version
    )
    pairs = (
        select(line.member, line.channel)
        .where(line.granted, line.policy_version != policy_version, line.id.in_(_last_lines()), ~answered)
        .distinct()
        .subquery()
    )
    was_asked = and_(
        col(ConsentAsk.member) == pairs.c.member,
        col(ConsentAsk.channel) == pairs.c.channel,
        col(ConsentAsk.policy_version) == policy_version,
    )
    statement = (
        select(pairs.c.channel, func.count(), func.count(col(ConsentAsk.member)))
        .outerjoin(ConsentAsk, was_asked)
        .group_by(pairs.c.channel)
        .order_by(pairs.c.channel)
    )
    return [ChatDue(*row) for row in session.execute(statement)]


def _count(condition: ColumnElement[bool]) -> Any:
    return func.sum(case((condition, 1), else_=0))
