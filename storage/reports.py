"""Members' reports and the moderators' queue of them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlmodel import Session, col, select

from nocap.domain import ChannelKey, MemberKey
from nocap.errors import InputError
from nocap.text.scrub import scrub
from storage.audit import record_event
from storage.bursts import in_storms
from storage.tables import AuditEvent, Reply, Report

STORM = "report_storm"
STORM_PAUSE = timedelta(hours=1)


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
    members: int
    """Who have reported it."""
    answers: int
    """How many of them; more than one, or none and several members, is a storm against one member or the chat."""

    @property
    def is_storm(self) -> bool:
        return self.members > 1 and self.answers != 1


def file_report(
    session: Session, channel: ChannelKey, member: MemberKey, reply_id: int | None, reason: str | None, at: datetime
) -> ChannelKey | None:
    """The channel it belongs to; None where the member has reported this answer before: one a member and answer."""
    if reply_id is not None:
        mine = select(Report).where(Report.reply_id == reply_id, Report.member == member)
        if session.exec(mine).first() is not None:
            return None
        reply = session.get(Reply, reply_id)
        if reply is None:
            raise InputError(f"There is no answer {reply_id} to report; report a newer one.")
        channel = ChannelKey(reply.channel)
    words = scrub(reason).strip() if reason else None
    session.add(Report(channel=channel, member=member, reply_id=reply_id, reason=words or None, at=at))
    session.flush()
    return channel


def raise_storm(session: Session, channel: ChannelKey, at: datetime) -> int | None:
    """How many members take part in a storm of reports there that has just become one; audited, once in an hour."""
    grown = [ones for ones in _grouped(session, [channel]) if ones[-1].at == at]
    storm = next((one for ones in grown if (one := _entry(session, ones)).is_storm), None)
    told = select(AuditEvent).where(
        AuditEvent.action == STORM, AuditEvent.target == channel, AuditEvent.at > at - STORM_PAUSE
    )
    if storm is None or session.exec(told).first() is not None:
        return None
    detail = {"members": storm.members, "answers": storm.answers, "report": storm.ids[0]}
    record_event(session, "nocap", STORM, channel, detail, at)
    return storm.members


def open_reports(session: Session, channels: Collection[ChannelKey], limit: int) -> list[OpenReport]:
    """Unsettled reports of these channels, the most reported answer first, then the oldest; a storm is one entry."""
    entries = sorted(_grouped(session, channels), key=lambda ones: (-len(ones), ones[0].at))
    return [_entry(session, ones) for ones in entries[:limit]]


def settle_report(
    session: Session, report_id: int, channels: Collection[ChannelKey], *, actor: str, verdict: str, at: datetime
) -> Report:
    """Settles the report and every other one of its entry: on the same answer, or of the same storm.

    Raises InputError where it is unknown, settled, or of a channel that is not among `channels`.
    """
    row = session.get(Report, report_id)
    if row is None or row.channel not in channels:
        raise InputError(f"There is no open report {report_id} here; the queue shows the open ones.")
    if row.settled_at is not None:
        raise InputError(f"Report {report_id} is settled already.")
    entries = _grouped(session, [ChannelKey(row.channel)])
    for one in next(ones for ones in entries if row in ones):
        one.settled_by, one.settled_at = actor, at
    record_event(session, actor, "settle_report", str(report_id), {"verdict": verdict, "channel": row.channel}, at)
    session.flush()
    return row


def _grouped(session: Session, channels: Collection[ChannelKey]) -> list[list[Report]]:
    """The open reports by entry, each in order of time."""
    rows = session.exec(
        select(Report, Reply.prompt_member)
        .join(Reply, col(Reply.id) == col(Report.reply_id), isouter=True)
        .where(col(Report.channel).in_(channels), col(Report.settled_at).is_(None))
        .order_by(col(Report.at), col(Report.id))
    ).all()
    by_target: dict[tuple[str, str | None], list[Report]] = {}
    for report, member in rows:
        by_target.setdefault((report.channel, member), []).append(report)
    entries: dict[tuple[object, ...], list[Report]] = {}
    for target, reports in by_target.items():
        storm = in_storms(reports)
        stormed = {reports[place].reply_id for place in storm}
        if len(stormed) == 1 and None not in stormed:
            storm, stormed = set(), set()  # many find one answer bad: an entry as it is
        for place, one in enumerate(reports):
            is_stormed = place in storm or (one.reply_id is not None and one.reply_id in stormed)
            alone = ("answer", one.reply_id) if one.reply_id is not None else ("chat", one.id)
            entries.setdefault(("storm", *target) if is_stormed else alone, []).append(one)
    return list(entries.values())


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
        members=len({one.member for one in reports}),
        answers=len({one.reply_id for one in reports if one.reply_id is not None}),
    )
