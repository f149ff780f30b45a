"""What the canary phase reads: duels between the canary and the live adapter, and who was harmed by which."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import tuple_
from sqlmodel import Session, col, select

from nocap.domain import AdapterName, DuelChoice, VoiceName, Vote
from storage.tables import ConsentEvent, Duel, DuelVote, Feedback, Message, Reply, Report


@dataclass(frozen=True, slots=True)
class SidedVote:
    """One member's vote in a duel between the canary and the live adapter."""

    member: str
    is_win: bool | None
    """For the canary; None for a tie or where both were bad."""


def duel_votes_since(
    session: Session, voice: VoiceName, canary: AdapterName, live: AdapterName, since: datetime
) -> list[SidedVote]:
    """Votes in the voice's duels between the two that began at `since` or later, the oldest first."""
    sides = tuple_(col(Duel.left_adapter), col(Duel.right_adapter))
    rows = session.exec(
        select(DuelVote.member, DuelVote.choice, Duel.left_adapter)
        .join(Duel, col(DuelVote.duel_id) == Duel.id)
        .where(Duel.voice == voice, Duel.at >= since, sides.in_([(canary, live), (live, canary)]))
        .order_by(col(DuelVote.at), col(DuelVote.id))
    )
    wins = {DuelChoice.LEFT: True, DuelChoice.RIGHT: False}
    found = []
    for member, choice, left in rows:
        is_left = wins.get(DuelChoice(choice))
        found.append(SidedVote(member, None if is_left is None else is_left == (left == canary)))
    return found


def members_known_before(session: Session, moment: datetime) -> set[str]:
    """Everyone who agreed to something, wrote, asked or voted before `moment`."""
    seen = (
        select(ConsentEvent.member).where(ConsentEvent.at < moment),
        select(Message.member).where(Message.received_at < moment),
        select(Reply.prompt_member).where(Reply.at < moment),
        select(Feedback.member).where(Feedback.at < moment),
        select(DuelVote.member).where(DuelVote.at < moment),
    )
    return {member for query in seen for member in session.exec(query.distinct())}


def members_met(session: Session, voice: VoiceName, adapter: AdapterName, since: datetime) -> set[str]:
    """Members whom the adapter answered."""
    rows = select(Reply.prompt_member).where(Reply.voice == voice, Reply.adapter == adapter, Reply.at >= since)
    return set(session.exec(rows.distinct()))


def members_displeased(session: Session, voice: VoiceName, adapter: AdapterName, since: datetime) -> set[str]:
    """Members who called an answer of the adapter cringe, or reported one."""
    answered = (Reply.voice == voice, Reply.adapter == adapter, Reply.at >= since)
    cringe = (
        select(Feedback.member)
        .join(Reply, col(Feedback.reply_id) == Reply.id)
        .where(*answered, Feedback.vote == Vote.CRINGE)
    )
    reported = select(Report.member).join(Reply, col(Report.reply_id) == Reply.id).where(*answered)
    return {member for query in (cringe, reported) for member in session.exec(query.distinct())}
