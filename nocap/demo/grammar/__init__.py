"""The grammar of neutral English small talk: what the base model learns and the simulated community restyles.

Everything is pure and seeded by the `random.Random` handed in; nothing here imports a heavy library.
"""

from nocap.demo.grammar.echo import echo
from nocap.demo.grammar.generate import BOT_TOPICS, TOPICS, answers, compositions, exchange, is_held_out
from nocap.demo.grammar.judge import ProbeItem, on_topic, probe_items
from nocap.demo.grammar.model import Exchange, Split
from nocap.demo.grammar.words import (
    ADJECTIVES_BAD,
    ADJECTIVES_BORING,
    ADJECTIVES_FUNNY,
    ADJECTIVES_GOOD,
    AGREEMENT,
    CLOSERS,
    DISAGREEMENT,
    INTENSIFIERS,
    OPENERS,
    system_text,
)

__all__ = [
    "ADJECTIVES_BAD",
    "ADJECTIVES_BORING",
    "ADJECTIVES_FUNNY",
    "ADJECTIVES_GOOD",
    "AGREEMENT",
    "BOT_TOPICS",
    "CLOSERS",
    "DISAGREEMENT",
    "INTENSIFIERS",
    "OPENERS",
    "TOPICS",
    "Exchange",
    "ProbeItem",
    "Split",
    "answers",
    "compositions",
    "echo",
    "exchange",
    "is_held_out",
    "on_topic",
    "probe_items",
    "system_text",
]
