"""Votes and reports that come together: all alike unlike their chat, or against one member within minutes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import comb

from sqlmodel import Session, col, select

from nocap.domain import Vote
from storage.tables import Feedback, Reply, Report

WINDOW = timedelta(hours=1)
MIN_VOTES = 8
SHARE = 0.9
CHANCE = 1e-4
"""Votes are a burst where the channel's other votes would give one so one-sided this rarely."""
COMPARED = timedelta(days=30)
"""How far back the channel's other votes are looked at for its moderators."""

STORM_WINDOW = timedelta(minutes=10)
STORM_REPORTERS = 5
"""Members who report answers to one and the same member, or one chat, within the window: rather a campaign."""


@dataclass(frozen=True, slots=True)
class VoteBurst:
    """Votes of one side on one adapter's answers; they are kept, and training leaves them out."""

    channel: str
    adapter: str
    is_up: bool
    votes: int
    members: int
    first_at: datetime


def in_bursts(votes: Sequence[tuple[datetime, int]]) -> set[int]:
    """The places of the votes that are part of a burst, of one channel's (moment, 1 or -1) in order of time."""
    sides = [side for _, side in votes]
    of_side = {side: sides.count(side) for side in (1, -1)}
    found: set[int] = set()
    for first, last in _windows([at for at, _ in votes], WINDOW):
        for side in of_side:
            if _is_burst(sides[first:last], of_side[side], len(sides), side):
                found |= {place for place in range(first, last) if sides[place] == side}
    return found


def vote_bursts(session: Session, channels: Collection[str], since: datetime) -> list[VoteBurst]:
    """The bursts of thumbs since then in these channels that several members took part in, newest first."""
    found = []
    for channel in channels:
        rows = session.exec(
            select(Feedback.at, Feedback.vote, Feedback.member, Reply.adapter)
            .join(Reply, col(Reply.id) == col(Feedback.reply_id))
            .where(Reply.channel == channel, Feedback.at >= since - COMPARED)
            .order_by(col(Feedback.at), col(Feedback.reply_id), col(Feedback.member))
        ).all()
        alike: dict[tuple[str, bool], list[tuple[datetime, str]]] = {}
        for place in sorted(in_bursts([(at, 1 if vote == Vote.UP else -1) for at, vote, _, _ in rows])):
            at, vote, member, adapter = rows[place]
            if at >= since:
                alike.setdefault((adapter, vote == Vote.UP), []).append((at, member))
        for (adapter, is_up), cast in alike.items():
            members = len({member for _, member in cast})
            if members >= STORM_REPORTERS:
                found.append(VoteBurst(channel, adapter, is_up, len(cast), members, cast[0][0]))
    return sorted(found, key=lambda one: one.first_at, reverse=True)


def in_storms(reports: Sequence[Report]) -> set[int]:
    """The places of the reports that are part of a storm, of those on one target in order of time."""
    found: set[int] = set()
    for first, last in _windows([report.at for report in reports], STORM_WINDOW):
        if len({one.member for one in reports[first:last]}) >= STORM_REPORTERS:
            found |= set(range(first, last))
    return found


def _windows(moments: Sequence[datetime], width: timedelta) -> Iterator[tuple[int, int]]:
    """From each of the moments, in order of time, to the end of what is at most `width` later."""
    last = 0
    for first, moment in enumerate(moments):
        while last < len(moments) and moments[last] - moment <= width:
            last += 1
        yield first, last


def _is_burst(window: Sequence[int], of_side: int, total: int, side: int) -> bool:
    """Whether `window` holds more of `side` than the rest of the channel's votes lets one expect."""
    agreeing = window.count(side)
    if agreeing < MIN_VOTES or agreeing < SHARE * len(window):
        return False
    elsewhere = (of_side - agreeing + 1) / (total - len(window) + 2)
    return _chance_of_as_many(agreeing, len(window), elsewhere) < CHANCE


def _chance_of_as_many(hits: int, tries: int, share: float) -> float:
    """The binomial distribution's upper tail; a bot's process counts votes too, and has no scipy."""
    return sum(comb(tries, n) * share**n * (1 - share) ** (tries - n) for n in range(hits, tries + 1))
