"""The simulated community's slang: which terms live in which week, and how they replace neutral words.

The invented terms are the demo's own, so that nobody mistakes them for a finding about real people. What is real
slang and what is a decoy (`is_slang`) is the demo's hidden truth: only `nocap.demo` reads it, for its own report.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass

from nocap.demo import grammar

FIRST_WEEK = -2
"""Weeks are counted from the first retrain; the community chats for some weeks before it."""


@dataclass(frozen=True, slots=True)
class Term:
    """One term's life: the slot it fills, its pull on the members, and the weeks between which it lives."""

    text: str
    slot: str
    meaning: str
    pull: float = 1.0
    born_week: float = -100.0
    fades_week: float = 100.0
    is_slang: bool = True

    def strength(self, week: float) -> float:
        """Its pull in `week`: rises over about a week around its birth, falls over about a week as it fades."""
        rise = 1 / (1 + math.exp(-4 * (week - self.born_week)))
        fall = 1 / (1 + math.exp(4 * (week - self.fades_week)))
        return self.pull * rise * fall


TERMS: tuple[Term, ...] = (
    Term("fire", "good", "very good"),
    Term("goated", "good", "the best"),
    Term("bussin", "good", "delicious, very good", pull=0.8, fades_week=2.0),
    Term("glorpy", "good", "pleasantly odd", pull=1.6, born_week=0.5),
    Term("buttercrisp", "good", "exactly right", pull=1.6, born_week=3.5),
    Term("mid", "boring", "not worth it"),
    Term("oatmeal", "boring", "bland, without ideas", pull=1.6, born_week=1.5, fades_week=6.5),
    Term("cringe", "bad", "embarrassing"),
    Term("soggy", "bad", "let down, disappointing", pull=1.8, born_week=2.5),
    Term("hilarious fr", "funny", "really funny", pull=0.6),
    Term("lowkey", "very", "a little, quietly"),
    Term("deadass", "very", "seriously"),
    Term("turbo", "very", "extremely", pull=1.6, born_week=4.5),
    Term("bet", "yes", "agreed"),
    Term("say less", "yes", "understood, agreed", fades_week=3.0),
    Term("no lint", "closer", "truly, nothing hidden", pull=1.4, born_week=1.0),
    Term("no cap", "closer", "no lie"),
    Term("fr", "closer", "for real"),
    Term("ngl", "closer", "not going to lie"),
    Term("on the porch", "closer", "off the record, said calmly", pull=1.4, born_week=5.0),
    Term("bro", "opener", "friend"),
    Term("bestie", "opener", "friend"),
    Term("💀", "emoji", "so funny that I died"),
    Term("😭", "emoji", "too much, in a good way"),
    Term("🪿", "emoji", "chaos is near", pull=1.6, born_week=2.0),
    Term(
        "Velmora",
        "name",
        "a streamer's name: an event, no slang",
        pull=1.0,
        born_week=3.0,
        fades_week=4.5,
        is_slang=False,
    ),
    Term("lantern fest", "name", "a school event, no slang", pull=1.0, born_week=5.5, fades_week=6.8, is_slang=False),
)
SLANG: tuple[str, ...] = tuple(term.text for term in TERMS if term.is_slang)
"""The words alone, of every age."""

_NEUTRAL: Mapping[str, tuple[str, ...]] = {
    "good": grammar.ADJECTIVES_GOOD,
    "bad": grammar.ADJECTIVES_BAD,
    "boring": grammar.ADJECTIVES_BORING,
    "funny": grammar.ADJECTIVES_FUNNY,
    "very": grammar.INTENSIFIERS,
    "yes": grammar.AGREEMENT,
}
_SLOT_OF = {word.lower(): slot for slot, words in _NEUTRAL.items() for word in words}
_NEUTRAL_WORD = re.compile(
    r"\b(?:" + "|".join(sorted(map(re.escape, _SLOT_OF), key=len, reverse=True)) + r")\b", re.IGNORECASE
)
_TAIL_SHARE = {"closer": 0.30, "emoji": 0.16, "opener": 0.12, "name": 0.04}
_REPLACED_SHARE = 0.75


@dataclass(frozen=True)
class Speaker:
    """How one member talks: `eagerness` 0 (never slang) to about 1.3, a taste per term, and a keyboard."""

    eagerness: float
    taste: Mapping[str, float]
    writes_lower_case: bool

    @classmethod
    def draw(cls, rng: random.Random) -> Speaker:
        return cls(
            eagerness=min(1.3, rng.lognormvariate(-0.5, 0.4)),
            taste={term.text: rng.lognormvariate(0.0, 0.6) for term in TERMS},
            writes_lower_case=rng.random() < 0.7,
        )

    def pick(self, slot: str, week: float, rng: random.Random) -> str:
        fitting = [term for term in TERMS if term.slot == slot]
        weights = [term.strength(week) * self.taste[term.text] for term in fitting]
        return rng.choices(fitting, weights)[0].text


def restyle(text: str, speaker: Speaker, week: float, rng: random.Random, *, serious: bool) -> str:
    """`text` as the speaker would type it in that week; serious moments keep their plain words."""
    if speaker.writes_lower_case:
        text = text.lower().rstrip(".")
    if serious:
        return text

    def replace(match: re.Match[str]) -> str:
        if rng.random() >= speaker.eagerness * _REPLACED_SHARE:
            return match.group(0)
        return speaker.pick(_SLOT_OF[match.group(0).lower()], week, rng)

    return _with_tails(_NEUTRAL_WORD.sub(replace, text), speaker, week, rng)


def _with_tails(text: str, speaker: Speaker, week: float, rng: random.Random) -> str:
    def wants(slot: str) -> bool:
        share = _TAIL_SHARE[slot] * (speaker.eagerness if slot != "name" else _alive(slot, week))
        return rng.random() < share

    if wants("opener"):
        text = f"{speaker.pick('opener', week, rng)} {text}"
    if wants("closer"):
        text = f"{text.rstrip('.')} {speaker.pick('closer', week, rng)}"
    if wants("name"):
        text = f"{text.rstrip('.')}, ask {speaker.pick('name', week, rng)}"
    if wants("emoji"):
        text = f"{text} {speaker.pick('emoji', week, rng)}"
    return text


def _alive(slot: str, week: float) -> float:
    return min(1.0, sum(term.strength(week) for term in TERMS if term.slot == slot))
