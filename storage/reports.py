"""Members' reports and the moderators' queue of them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlmodel import Session, col, select

from nocap.domain import ChannelKey, MemberKey
from nocap.errors import InputError
from nocap.text.scrub import scrub
from storage.audit import record_event
from storage.tables import Reply, Report


@dataclass(frozen=True, slots=True)
class OpenReport:
    """What one answer, or the chat as such, is reported for; reports on one answer are one entry."""

    ids: tuple[int, ...]
    channel: str
    reply_id: int | None
    adapter: str | None
    text: str | None
    """The answer, where it was stored."""
    reasons: tuple[str, ...]
    first_at: datetime


def file_report(
    session: Session, channel: ChannelKey, member: MemberKey, reply_id: int | None, reason: str | None, at: datetime
) -> bool:
    """False where the member has reported this answer before: one report a member and answer."""
    if reply_id is not None:
        mine = select(Report).where(Report.reply_id == reply_id, Report.member == member)
        if session.exec(mine).first() is not None:
            return False
        reply = session.get(Reply, reply_id)
        if reply is None:
            raise InputError(f"There is no answer {reply_id} to report; report a newer one.")
        channel = ChannelKey(reply.channel)
    words = scrub(reason).strip() if reason else None
    session.add(Report(channel=channel, member=member, reply_id=reply_id, reason=words or None, at=at))
    session.flush()
    return True


def open_reports(session: Session, channels: Collection[ChannelKey], limit: int) -> list[OpenReport]:
    """Unsettled reports of these channels, the most reported answer first, then the oldest."""
    rows = session.exec(
        select(Report)
        .where(col(Report.channel).in_(channels), col(Report.settled_at).is_(None))
        .order_by(col(Report.id))
    ).all()
    grouped: dict[tuple[str, int | None], list[Report]] = {}
    for row in rows:
        grouped.setdefault((row.channel, row.reply_id if row.reply_id is not None else -(row.id or 0)), []).append(row)
    entries = sorted(grouped.values(), key=lambda ones: (-len(ones), ones[0].at))
    return [_entry(session, ones) for ones in entries[:limit]]


def settle_report(
    session: Session, report_id: int, channels: Collection[ChannelKey], *, actor: str, verdict: str, at: datetime
) -> Report:
    """Settles the report and every other one on the same answer.

    Raises InputError where it is unknown, settled, or of a channel that is not among `channels`.
    """
    row = session.get(Report, report_id)
    if row is None or row.channel not in channels:
        raise InputError(f"There is no open report {report_id} here; the queue shows the open ones.")
    if row.settled_at is not None:
        raise InputError(f"Report {report_id} is settled already.")
    others = select(Report).where(Report.reply_id == row.reply_id, col(Report.settled_at).is_(None))
    for one in [row] if row.reply_id is None else session.exec(others):
        one.settled_by, one.settled_at = actor, at
    record_event(session, actor, "settle_report", str(report_id), {"verdict": verdict, "channel": row.channel}, at)
    session.flush()
    return row


def _entry(session: Session, reports: list[Report]) -> OpenReport:
    first = reports[0]
    reply = session.get(Reply, first.reply_id) if first.reply_id is not None else None
    return OpenReport(
        ids=tuple(one.id or 0 for one in reports),
        channel=first.channel,
        reply_id=first.reply_id,
        adapter=reply.adapter if reply else None,
        text=reply.text if reply else None,
        reasons=tuple(one.reason for one in reports if one.reason),
        first_at=first.at,
    )
