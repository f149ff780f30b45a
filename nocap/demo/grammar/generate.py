"""Draws exchanges: a composition (subject and prompt template) first, then words for its slots."""

from __future__ import annotations

import hashlib
import random
import re
from dataclasses import dataclass, replace
from functools import lru_cache

from nocap.demo.grammar import about_bot, everyday, leisure, serious
from nocap.demo.grammar.frames import FOLLOW_UP, SERIOUS_FOLLOW_UP
from nocap.demo.grammar.model import Exchange, Family, Frame, Split, Subject
from nocap.demo.grammar.words import SLOTS

FAMILIES: tuple[Family, ...] = (
    *leisure.FAMILIES,
    *everyday.FAMILIES,
    *serious.FAMILIES,
    *about_bot.FAMILIES,
)
BOT_TOPICS = ("bot", "greeting")
"""What only a bot is asked or told ("Are you a bot?", "Hi!"): drawn only where named, as members do not answer it."""
TOPICS: tuple[str, ...] = tuple(dict.fromkeys(one.topic for one in FAMILIES if one.topic not in BOT_TOPICS))

HELD_OUT_ONE_IN = 20
_LOWER_CASE_SHARE = 0.4
_CONTEXT_SHARE = 0.12
_SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Composition:
    """What the split is made on: one subject with one prompt template, and the frame that answers it."""

    family: Family
    subject: Subject
    frame: Frame
    prompt_template: str


def is_held_out(topic: str, subject_name: str, prompt_template: str) -> bool:
    """Whether the composition belongs to the held-out split: about one in twenty, by SHA-256."""
    digest = hashlib.sha256(f"{topic}|{subject_name}|{prompt_template}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % HELD_OUT_ONE_IN == 0


@lru_cache(maxsize=128)
def compositions(topic: str, split: Split) -> tuple[Composition, ...]:
    """Every composition of one topic in one split."""
    return tuple(
        Composition(family, subject, frame, template)
        for family in FAMILIES
        if family.topic == topic
        for subject in family.subjects
        for frame in family.frames
        for template in frame.prompts
        if is_held_out(topic, subject.name, template) == (split == "held_out")
    )


def exchange(rng: random.Random, topic: str | None = None, split: Split = "train") -> Exchange:
    """One prompt and fitting reply of `topic` (one of TOPICS or BOT_TOPICS; None: any of TOPICS).

    About one in eight has context.
    """
    name = topic or rng.choice(TOPICS)
    composition = rng.choice(compositions(name, split))
    if name in BOT_TOPICS or rng.random() >= _CONTEXT_SHARE:
        return _render(rng, composition)
    if rng.random() < 0.5:
        return _render(rng, composition, _earlier_talk(rng))
    return _follow_up(rng, composition, split)


def answers(rng: random.Random, count: int, split: Split = "train") -> list[Exchange]:
    """One prompt that stands alone, with `count` replies to it, each drawn anew."""
    composition = rng.choice(compositions(rng.choice(TOPICS), split))
    first, *others = [_render(rng, composition) for _ in range(count)]
    return [first, *(replace(one, prompt=first.prompt) for one in others)]


def _follow_up(rng: random.Random, composition: Composition, split: Split) -> Exchange:
    """The composition's exchange as context, and a prompt that leans on it; the split holds for the pair too."""
    family, subject = composition.family, composition.subject
    frame = SERIOUS_FOLLOW_UP if family.serious else FOLLOW_UP
    fitting = [one for one in frame.prompts if is_held_out("follow-up", subject.name, one) == (split == "held_out")]
    first = _render(rng, composition)
    if not fitting:
        return first
    return _render(rng, Composition(family, subject, frame, rng.choice(fitting)), _turns(first))


def _earlier_talk(rng: random.Random) -> tuple[tuple[str, str], ...]:
    """One to three exchanges about other things."""
    talk = (rng.choice(compositions(rng.choice(TOPICS), "train")) for _ in range(rng.choice((1, 1, 2, 3))))
    return tuple(turn for one in talk for turn in _turns(_render(rng, one)))


def _turns(earlier: Exchange) -> tuple[tuple[str, str], ...]:
    return (("user", earlier.prompt), ("assistant", earlier.reply))


def _render(rng: random.Random, composition: Composition, context: tuple[tuple[str, str], ...] = ()) -> Exchange:
    subject = composition.subject
    words = {slot: rng.choice(choices) for slot, choices in SLOTS.items()} | _subject_words(rng, subject)
    prompt = _fill(composition.prompt_template, words)
    reply = _fill(rng.choice(composition.frame.replies), words | {"x": _from_the_other_side(subject.name)})
    if rng.random() < _LOWER_CASE_SHARE:
        prompt = re.sub(r"[.?!,]", "", prompt).lower()
        prompt = prompt.replace("'", "") if rng.random() < 0.5 else prompt
        reply = reply.lower().removesuffix(".")
    return Exchange(composition.family.topic, subject.name, prompt, reply, composition.family.serious, context)


def _subject_words(rng: random.Random, subject: Subject) -> dict[str, str]:
    return {
        "x": subject.name,
        "act": subject.act,
        "detail": rng.choice(subject.details),
        "is": "are" if subject.is_plural else "is",
        "it": "they" if subject.is_plural else "it",
        "them": "them" if subject.is_plural else "it",
    }


def _from_the_other_side(name: str) -> str:
    """How the one who answers names it: the asker's "my boss" is "your boss"."""
    return re.sub(r"\bmy\b", "your", name)


def _fill(template: str, words: dict[str, str]) -> str:
    def word(match: re.Match[str]) -> str:
        slot = match.group(1)
        found = words[slot[0].lower() + slot[1:]]
        return found[0].upper() + found[1:] if slot[0].isupper() else found

    return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", _SLOT.sub(word, template))
