"""The glossary of each voice and its review queue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import sqlalchemy
from sqlmodel import Session, col, or_, select

from nocap.domain import SlangStatus, VoiceName
from nocap.errors import InputError
from storage._sql import upsert
from storage.audit import record_event
from storage.tables import SlangCount, SlangTerm

MIN_MEMBERS = 5
"""A week in which fewer members used a term is not kept: it could be one person's words."""


class WeeklyUse(NamedTuple):
    """`week` is the moment at which the week begins."""

    week: datetime
    uses: int
    members: int
    messages: int
    """Messages of that week over which the rate is taken."""


@dataclass(frozen=True, slots=True)
class TermFinding:
    term: str
    score: float
    """z score of the weighted log-odds."""
    first_seen: datetime
    last_seen: datetime
    freshness: float
    """Share of the last twelve weeks' uses that fall in the last two, 0 to 1."""
    expires_at: datetime | None
    weekly: Sequence[WeeklyUse] = ()


@dataclass(frozen=True, slots=True)
class GlossaryEntry:
    term: str
    gloss: str | None


# Built once: every turn of the chat asks.
_APPROVED = (
    sqlalchemy.select(col(SlangTerm.term), col(SlangTerm.gloss))
    .where(
        col(SlangTerm.voice) == sqlalchemy.bindparam("voice"),
        col(SlangTerm.status) == SlangStatus.APPROVED.value,
        or_(col(SlangTerm.expires_at).is_(None), col(SlangTerm.expires_at) > sqlalchemy.bindparam("at")),
    )
    .order_by(col(SlangTerm.freshness).desc(), col(SlangTerm.score).desc(), col(SlangTerm.term))
)

_BLOCKED = (
    sqlalchemy.select(col(SlangTerm.term))
    .where(col(SlangTerm.voice) == sqlalchemy.bindparam("voice"), col(SlangTerm.status) == SlangStatus.BLOCKED.value)
    .order_by(col(SlangTerm.term))
)


def upsert_candidates(session: Session, voice: VoiceName, found: Sequence[TermFinding]) -> None:
    """Adds new terms to the review queue and refreshes the figures of known ones; a moderator's word stays."""
    for finding in found:
        row = _find(session, voice, finding.term)
        if row is None:
            row = SlangTerm(voice=voice, term=finding.term, status=SlangStatus.CANDIDATE)
            session.add(row)
        row.score, row.freshness, row.expires_at = finding.score, finding.freshness, finding.expires_at
        row.first_seen = min(row.first_seen or finding.first_seen, finding.first_seen)
        row.last_seen = max(row.last_seen or finding.last_seen, finding.last_seen)
        session.flush()
        for use in map(WeeklyUse._make, finding.weekly):
            if use.members >= MIN_MEMBERS:
                upsert(session, SlangCount, {"term_id": row.id} | use._asdict(), key=("term_id", "week"))


def set_status(
    session: Session,
    voice: VoiceName,
    term_text: str,
    status: SlangStatus,
    gloss: str | None = None,
    *,
    actor: str,
    at: datetime,
) -> SlangTerm:
    """The reviewed term; None keeps its gloss. Raises InputError for an unknown term."""
    row = term(session, voice, term_text)
    row.status = status
    if gloss is not None:
        row.gloss = gloss.strip() or None
    record_event(session, actor, "review_slang", f"{voice}/{term_text}", {"status": status, "gloss": row.gloss}, at)
    return row


def glossary(session: Session, voice: VoiceName, at: datetime) -> list[GlossaryEntry]:
    """Approved terms that have not expired, freshest first."""
    rows = session.connection().execute(_APPROVED, {"voice": voice, "at": at})
    return [GlossaryEntry(row.term, row.gloss) for row in rows]


def blocked_terms(session: Session, voice: VoiceName) -> tuple[str, ...]:
    """Terms that the bot must not say in this voice."""
    return tuple(session.connection().execute(_BLOCKED, {"voice": voice}).scalars())


def terms(session: Session, voice: VoiceName, status: SlangStatus | None = None) -> list[SlangTerm]:
    """The voice's terms, highest score first."""
    rows = select(SlangTerm).where(SlangTerm.voice == voice)
    if status is not None:
        rows = rows.where(SlangTerm.status == status)
    return list(session.exec(rows.order_by(col(SlangTerm.score).desc(), col(SlangTerm.term))))


def term(session: Session, voice: VoiceName, term_text: str) -> SlangTerm:
    """Raises InputError for an unknown term."""
    row = _find(session, voice, term_text)
    if row is None:
        raise InputError(f"The voice {voice} has no term {term_text!r}; `nocap slang list` shows its terms.")
    return row


def weekly_counts(session: Session, voice: VoiceName, term_text: str) -> list[SlangCount]:
    """The term's weeks, oldest first. Raises InputError for an unknown term."""
    row = term(session, voice, term_text)
    weeks = select(SlangCount).where(SlangCount.term_id == row.id).order_by(col(SlangCount.week))
    return list(session.exec(weeks.execution_options(populate_existing=True)))


def _find(session: Session, voice: VoiceName, term_text: str) -> SlangTerm | None:
    return session.exec(select(SlangTerm).where(SlangTerm.voice == voice, SlangTerm.term == term_text)).first()
