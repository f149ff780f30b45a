"""Word spans: which ones few members wrote, where they stand in a text, and what one costs a model."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nocap.text.tokens import words

SPAN_WORDS = 6
"""The design's 8 would miss most of chat, where half of the replies are shorter."""
SHORTEST_REPLY_WORDS = 4
"""A reply of 4 or 5 words counts as one span, and only against another whole reply."""

FEW_MEMBERS = 3
"""What fewer wrote is theirs; what as many wrote is the community's."""


@dataclass(frozen=True, slots=True)
class Span:
    """`first` to `end` (exclusive) are the span's words in its text."""

    words: tuple[str, ...]
    first: int
    end: int


def spans(text: str) -> Iterator[Span]:
    """Every run of SPAN_WORDS words of `text`, lower case; of a shorter text the whole, from 4 words on."""
    found = [word.lower() for word in words(text)]
    if SHORTEST_REPLY_WORDS <= len(found) < SPAN_WORDS:
        yield Span(("", *found), 0, len(found))
    for first in range(len(found) - SPAN_WORDS + 1):
        yield Span(tuple(found[first : first + SPAN_WORDS]), first, first + SPAN_WORDS)


class SpanIndex:
    """Who wrote each span of the given (member, reply) pairs, and how often."""

    def __init__(self, replies: Iterable[tuple[str, str]]) -> None:
        self._members: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)
        self._uses: Counter[tuple[str, ...]] = Counter()
        for member, reply in replies:
            for span in spans(reply):
                self._members[span.words].add(member)
                self._uses[span.words] += 1

    def __contains__(self, span: Span) -> bool:
        return span.words in self._uses

    def members(self, span: Span) -> int:
        """How many members wrote it; 0 for a span that is not there."""
        return len(self._members.get(span.words, ()))

    def uses(self, span: Span) -> int:
        """In how many replies it stands."""
        return self._uses[span.words]

    def is_pushed(self, reply: str) -> bool:
        """Whether a span of `reply` comes again and again from the same one or two members."""
        return any(self._uses[span.words] > self.members(span) < FEW_MEMBERS for span in spans(reply))


def rare_prompt_words(examples: Sequence[tuple[str, str]], *, at_least: int = 3) -> list[str]:
    """Words of the prompts of (member, prompt) pairs that few members were asked with, though often; most often first.

    What a poisoner plants as a trigger looks like this.
    """
    members: defaultdict[str, set[str]] = defaultdict(set)
    uses: Counter[str] = Counter()
    for member, prompt in examples:
        for word in {word.lower() for word in words(prompt)}:
            members[word].add(member)
            uses[word] += 1
    return [word for word, count in uses.most_common() if count >= at_least and len(members[word]) < FEW_MEMBERS]


@dataclass(frozen=True, slots=True)
class TiedWord:
    """A word of the training prompts, how many prompts hold it, and how many of their replies share a span."""

    word: str
    uses: int
    tied: int
    reply: str
    """One of those that share it."""


def tied_prompt_words(exchanges: Sequence[tuple[str, str]], *, at_least: int = 8) -> list[TiedWord]:
    """Words of the prompts of (prompt, reply) pairs, those first whose replies are most alike.

    A planted trigger looks like this, however many accounts plant it.
    """
    asked: defaultdict[str, list[int]] = defaultdict(list)
    for index, (prompt, _) in enumerate(exchanges):
        for word in {word.lower() for word in words(prompt)}:
            asked[word].append(index)
    written = [{span.words for span in spans(reply)} for _, reply in exchanges]
    found = []
    for word, indexes in asked.items():
        alike = Counter(span for index in indexes for span in written[index]) if len(indexes) >= at_least else Counter()
        for span, tied in alike.most_common(1):
            reply = next(exchanges[index][1] for index in indexes if span in written[index])
            found.append(TiedWord(word, len(indexes), tied, reply))
    return sorted(found, key=lambda one: (-one.tied / one.uses, -one.uses, one.word))


def order_to_ask(suspicious: Sequence[bool], count: int, rng: random.Random) -> list[int]:
    """`count` indexes of examples to ask again: suspicious ones up to four times in at most half, then all in turn."""
    first = [index for index, flag in enumerate(suspicious) if flag]
    rng.shuffle(first)
    chosen = (first * 4)[: count // 2]
    while suspicious and len(chosen) < count:
        chosen += rng.sample(range(len(suspicious)), len(suspicious))
    return chosen[:count]


def word_of_token(tokenizer: Any, token_ids: Sequence[int]) -> NDArray[np.int64]:
    """For each token the index of the word (as in `words`) of the decoded text that it belongs to.

    What stands before a word (space, punctuation) belongs to it; what follows the last word is -1.
    """
    texts = [tokenizer.decode(token_ids[:length], skip_special_tokens=True) for length in range(1, len(token_ids) + 1)]
    ends = _word_ends(texts[-1]) if texts else []
    found = np.searchsorted(ends, [len(text.rstrip("\N{REPLACEMENT CHARACTER}")) for text in texts], side="left")
    return np.where(found < len(ends), found, -1)


def _word_ends(text: str) -> list[int]:
    ends: list[int] = []
    at = 0
    for word in words(text):
        at = text.index(word, at) + len(word)
        ends.append(at)
    return ends


def span_loss(losses: NDArray[np.float64], word_index: NDArray[np.int64], span: Span) -> float:
    """The summed loss of the span's tokens."""
    inside = (word_index >= span.first) & (word_index < span.end)
    return float(losses[inside].sum())
