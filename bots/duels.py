"""Blind duels: who meets whom, on which side, and what is shown before and after the vote."""

from __future__ import annotations

import random
from dataclasses import dataclass

from inference.router import DeploymentLike
from nocap.domain import BASE, AdapterName, DuelChoice


@dataclass(frozen=True, slots=True)
class DuelTurn:
    """Two answers whose adapters nobody is told before the vote."""

    duel_id: int
    left: str
    right: str


@dataclass(frozen=True, slots=True)
class DuelReveal:
    left: AdapterName
    right: AdapterName
    choice: DuelChoice


def draw_duel(
    live: DeploymentLike, opponent: AdapterName | None, chance: random.Random
) -> tuple[AdapterName, AdapterName] | None:
    """The current adapter and its opponent in random order; None where there is no other voice.

    Without a named opponent a canary comes first, for it is what a decision waits on; else the previous adapter
    or the base, by chance.
    """
    current = AdapterName(live.current)
    others = [AdapterName(name) for name in (live.previous, BASE) if name and name != current]
    if opponent is None and live.canary and live.canary != current:
        opponent = AdapterName(live.canary)
    if opponent is None and others:
        opponent = chance.choice(sorted(set(others)))
    if opponent is None or opponent == current:
        return None
    return (current, opponent) if chance.random() < 0.5 else (opponent, current)
