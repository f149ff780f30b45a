"""What the simulated members like: the prompt's subject taken up, in a voice neither mute, overdone nor stale.

This is the demo's hidden truth. The product learns of it through votes only.
"""

from __future__ import annotations

import math
import random

from nocap.demo import grammar
from nocap.demo.slang_life import TERMS, Term
from nocap.domain import DuelChoice, Vote

LIKED_TERMS = 1.0
"""Living terms in one reply that feel right; more than two feel like trying too hard."""
OVERDONE_TERMS = 3
NOISE = 0.6


def terms_in(text: str) -> list[Term]:
    padded = f" {text.lower()} "
    return [term for term in TERMS if f" {term.text.lower()} " in padded.replace(",", " ").replace(".", " ")]


def liking(exchange: grammar.Exchange, reply: str, week: float) -> float:
    """How much the community likes the reply: about 1 for its own voice, below 0 for none or too much of it."""
    found = [term for term in terms_in(reply) if term.is_slang]
    living = sum(term.strength(week) > 0.25 * term.pull for term in found)
    stale = len(found) - living
    on_topic = grammar.on_topic(exchange, reply)
    if exchange.serious:
        return (0.8 if on_topic else -0.6) - 1.5 * len(found)
    voice = {0: -0.3, 1: 0.8, 2: 0.6}.get(living, -1.2)
    return voice - 0.9 * stale + (0.5 if on_topic else -0.8)


def vote(exchange: grammar.Exchange, reply: str, week: float, rng: random.Random) -> Vote | None:
    """One member's vote, or none: most people do not vote."""
    if rng.random() < 0.35:
        return None
    if len(terms_in(reply)) >= OVERDONE_TERMS and rng.random() < 0.8:
        return Vote.CRINGE
    return Vote.UP if liking(exchange, reply, week) + rng.gauss(0, NOISE) > 0 else Vote.DOWN


def choose(exchange: grammar.Exchange, left: str, right: str, week: float, rng: random.Random) -> DuelChoice:
    """Which of two replies one member prefers, without knowing whose they are."""
    difference = liking(exchange, left, week) - liking(exchange, right, week)
    if left == right or (abs(difference) < 0.1 and rng.random() < 0.5):
        return DuelChoice.TIE
    prefers_left = rng.random() < 1 / (1 + math.exp(-difference / NOISE * 1.7))
    return DuelChoice.LEFT if prefers_left else DuelChoice.RIGHT
