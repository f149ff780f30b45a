"""Judges whether a reply takes up its prompt's subject, and makes multiple-choice items of it."""

from __future__ import annotations

import random
import re
from collections import Counter
from functools import lru_cache

from nocap.demo.grammar.generate import FAMILIES, TOPICS, exchange
from nocap.demo.grammar.model import Exchange, Subject

ProbeItem = tuple[str, tuple[str, str, str, str], int]

_LONGEST_TERM_WORDS = 6


def on_topic(exchange: Exchange, reply: str) -> bool:
    """Whether `reply` names the exchange's subject or a word tied to it, and no other subject more often."""
    mentions = _mentioned_subjects(reply)
    own = mentions.pop(exchange.subject, 0)
    return own > 0 and own >= max(mentions.values(), default=0)


def probe_items(rng: random.Random, count: int) -> list[ProbeItem]:
    """`count` items (prompt, four replies, index of the one that belongs), all from held-out compositions."""
    return [_probe_item(rng) for _ in range(count)]


def _probe_item(rng: random.Random) -> ProbeItem:
    asked = _without_context(rng)
    replies = [asked.reply]
    while len(replies) < 4:
        other = _without_context(rng)
        if other.subject != asked.subject and other.reply not in replies and not on_topic(asked, other.reply):
            replies.append(other.reply)
    order = rng.sample(range(4), 4)
    first, second, third, fourth = (replies[index] for index in order)
    return asked.prompt, (first, second, third, fourth), order.index(0)


def _without_context(rng: random.Random) -> Exchange:
    while True:
        drawn = exchange(rng, rng.choice(TOPICS), "held_out")
        if not drawn.context:
            return drawn


def terms_of(subject: Subject) -> frozenset[str]:
    """The lower-case words and phrases that count as naming the subject, in singular and plural."""
    bare = " ".join(_words(re.sub(r"^(?:my|the|an?) ", "", subject.name)))
    from_the_other_side = re.sub(r"\bmy\b", "your", bare)
    return frozenset(form for term in (bare, from_the_other_side, *subject.tied) for form in _forms(term.lower()))


def _forms(term: str) -> tuple[str, ...]:
    return (term, f"{term}s", term.removesuffix("s")) if len(term) > 3 else (term, f"{term}s")


@lru_cache(maxsize=1)
def _subject_of_term() -> dict[str, str]:
    return {term: one.name for family in FAMILIES for one in family.subjects for term in terms_of(one)}


def _mentioned_subjects(text: str) -> Counter[str]:
    """How many different terms of each subject the text holds; a longer term hides the shorter ones in it."""
    subject_of_term, words = _subject_of_term(), _words(text)
    seen: set[str] = set()
    start = 0
    while start < len(words):
        for length in range(_LONGEST_TERM_WORDS, 0, -1):
            term = " ".join(words[start : start + length])
            if length <= len(words) - start and term in subject_of_term:
                seen.add(term)
                start += length - 1
                break
        start += 1
    return Counter(subject_of_term[term] for term in seen)


def _words(text: str) -> list[str]:
    return re.findall(r"[\w-]+", text.lower().replace("'", ""))
