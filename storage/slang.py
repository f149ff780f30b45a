"""The glossary of each voice and its review queue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import sqlalchemy
from sqlmodel import Session, col, or_, select

from nocap.domain import SlangStatus, VoiceName
from nocap.errors import InputError
from nocap.text.lexicon import Lexicon
from storage._sql import upsert
from storage.audit import record_event
from storage.tables import SlangCount, SlangTerm

MIN_MEMBERS = 5
"""A week in which fewer members used a term is not kept: it could be one person's words."""


FADING_WEEKS = 8
FADED_SHARE = 0.5
MIN_FADING_USES = 20
"""Uses in those eight weeks; below, a term was never established."""


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
class FadingTerm:
    """A term of the glossary that members are giving up; uses a 1,000 messages."""

    term: str
    before: float
    now: float


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


def withdraw_uses(session: Session, voice: str, said: Sequence[tuple[datetime, str]]) -> None:
    """Takes one member's messages (moment, text) out of the weekly counts.

    A week left with fewer than MIN_MEMBERS goes, and so does a candidate without any week left.
    """
    rows = session.exec(select(SlangTerm).where(SlangTerm.voice == voice)).all()
    lexicon = Lexicon([row.term for row in rows])
    uses: Counter[tuple[str, datetime]] = Counter()
    messages: Counter[datetime] = Counter()
    for sent_at, text in said:
        week = week_of(sent_at)
        messages[week] += 1
        for term_text, count in lexicon.count(text).items():
            uses[term_text, week] += count
    for row in rows:
        weeks = session.exec(select(SlangCount).where(SlangCount.term_id == row.id)).all()
        gone = [one for one in weeks if _withdraw(one, uses[row.term, one.week], messages[one.week])]
        for one in gone:
            session.delete(one)
        if gone and len(gone) == len(weeks) and row.status == SlangStatus.CANDIDATE:
            session.delete(row)
    session.flush()


def _withdraw(count: SlangCount, uses: int, messages: int) -> bool:
    """Whether too few members are left in the week's count."""
    count.messages = max(0, count.messages - messages)
    if uses:
        count.members, count.uses = count.members - 1, max(0, count.uses - uses)
    return count.members < MIN_MEMBERS


def fading(session: Session, voice: VoiceName) -> list[FadingTerm]:
    """Approved terms whose rate in the last two counted weeks is below half of that in the eight before, the most
    faded first; a week in which fewer than MIN_MEMBERS used a term counts as one without uses."""
    rows = session.exec(
        select(SlangTerm, SlangCount)
        .join(SlangCount, col(SlangCount.term_id) == SlangTerm.id)
        .where(SlangTerm.voice == voice)
    ).all()
    if not rows:
        return []
    newest = max(count.week for _, count in rows)
    since, edge = newest - timedelta(weeks=FADING_WEEKS + 1), newest - timedelta(weeks=1)
    messages = {count.week: count.messages for _, count in rows if count.week >= since}
    uses: Counter[tuple[str, bool]] = Counter()
    for term_row, count in rows:
        if term_row.status == SlangStatus.APPROVED and count.week >= since:
            uses[term_row.term, count.week >= edge] += count.uses
    said = {is_new: sum(n for week, n in messages.items() if (week >= edge) is is_new) for is_new in (True, False)}
    found = [
        FadingTerm(name, 1000 * old / max(1, said[False]), 1000 * uses[name, True] / max(1, said[True]))
        for (name, is_new), old in uses.items()
        if not is_new and old >= MIN_FADING_USES
    ]
    faded = [one for one in found if one.now < FADED_SHARE * one.before]
    return sorted(faded, key=lambda one: (one.now / one.before, one.term))


def week_of(moment: datetime) -> datetime:
    """Monday 00:00 UTC of the week of `moment`."""
    day = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return day - timedelta(days=day.weekday())


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
