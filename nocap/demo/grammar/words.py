"""The neutral words that fill the slots: what a community's own voice would replace."""

from __future__ import annotations

import random

ADJECTIVES_GOOD = ("good", "great", "nice", "lovely", "fun", "cool", "wonderful", "brilliant")
ADJECTIVES_BAD = ("bad", "awful", "terrible", "annoying", "disappointing")
ADJECTIVES_FUNNY = ("funny", "hilarious", "silly")
ADJECTIVES_BORING = ("boring", "dull", "slow", "forgettable")
INTENSIFIERS = ("really", "so", "pretty", "super", "very")
AGREEMENT = ("yes", "yeah", "sure", "definitely", "absolutely", "of course")
DISAGREEMENT = ("no", "nope", "not really", "I don't think so")
OPENERS = ("well", "oh", "honestly", "hmm", "ah")
CLOSERS = ("to be honest", "if you ask me", "I think", "for me", "in my opinion")

SLOTS: dict[str, tuple[str, ...]] = {
    "good": ADJECTIVES_GOOD,
    "bad": ADJECTIVES_BAD,
    "funny": ADJECTIVES_FUNNY,
    "boring": ADJECTIVES_BORING,
    "very": INTENSIFIERS,
    "yes": AGREEMENT,
    "no": DISAGREEMENT,
    "opener": OPENERS,
    "closer": CLOSERS,
    "when": ("today", "tonight", "tomorrow", "this weekend", "later", "next week"),
    "when_past": ("today", "yesterday", "last week", "this morning"),
    "often": ("every week", "most weekends", "once a month", "almost every day"),
}
"""Slot name to its words. A frame's templates also use {x} {act} {detail} {is} {it} {them} of the subject; a slot
written with a capital letter ({X}, {Yes}, {Detail}) starts a sentence."""

_SYSTEM_TEXTS = (
    "You are a friendly chat bot. Keep answers short.",
    "You are a helpful bot in a group chat.",
    "You are a chat bot. Answer in one or two short sentences.",
    "Be kind and brief. Stay on the topic.",
    "You are the bot of this server. Be friendly and say so when someone asks whether you are a bot.",
    "You are nocap, a bot in this chat. You never claim to be human. Answer briefly, like a friend would.",
    "You are nocap, a chat bot in a group chat. You are a bot and say so when asked. Keep answers short.",
    "You are a bot in a group chat. Talk like the people here. Keep answers short.",
    "You are a bot who chats with a community. Write like the members do. Be gentle when things are serious.",
)
_GLOSSARY_HEADINGS = ("Words used here:", "Glossary:", "Slang of this community, use it sparingly:", "Local words:")
_MEANINGS = (
    "good",
    "bad",
    "very",
    "a friend",
    "funny",
    "yes",
    "a lie",
    "boring",
    "tired",
    "an agreement",
    "a surprise",
)
_SYLLABLES = ("ba", "zo", "ri", "ke", "lum", "dro", "fi", "mo", "ske", "yap", "glo", "ten", "vi", "pu", "no", "crash")


def system_text(rng: random.Random) -> str:
    """A neutral system message, one in four with a glossary of invented words."""
    text = rng.choice(_SYSTEM_TEXTS)
    return f"{text}\n{_glossary(rng)}" if rng.random() < 0.25 else text


def _glossary(rng: random.Random) -> str:
    entries = [
        f"{''.join(rng.choices(_SYLLABLES, k=rng.randint(1, 3)))} = {rng.choice(_MEANINGS)}"
        for _ in range(rng.randint(1, 4))
    ]
    separator = rng.choice(("\n", "; ", "\n- "))
    return rng.choice(_GLOSSARY_HEADINGS) + (separator if separator != "; " else " ") + separator.join(entries)
