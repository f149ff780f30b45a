"""Texts that hold a planted n-gram: one that is repeated, but by too few members."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from nocap.text.tokens import words
from retrain._ngrams import Flags, Grams, Integers, TokenStream, distinct_values, frequent_grams

LONGEST_NGRAM = 4
MAX_RING = 5
"""Accounts that can be suspected to act together."""
RING_REPEATS = 2
"""How often each of a ring repeats itself, on average; what many say once each is how slang begins."""
MIN_RING_EXAMPLES = 3


def planted_texts(
    users: Mapping[str, Sequence[str]],
    max_examples: int,
    min_members: int,
    newcomers: Collection[str] = frozenset(),
) -> frozenset[str]:
    """The texts with a run of 1 to 4 tokens, case folded, that more than `max_examples` examples hold though
    fewer than `min_members` members used it, or that a ring of newcomers repeats and nobody else says.

    `users` holds for each distinct text the member of every example that counts as a use of it; a text without
    any is only looked through.
    """
    texts = list(users)
    stream = TokenStream.of(words(text.casefold()) for text in texts)
    uses = _Uses(list(users.values()), newcomers)
    planted: set[int] = set()
    for grams in frequent_grams(stream, uses.per_text, min_weight=max_examples + 1, longest=LONGEST_NGRAM):
        members, _ = uses.members_per_code(grams)
        planted.update(grams.keep(members < min_members).texts.tolist())
    if newcomers:
        weights = uses.newcomers_per_text
        for grams in frequent_grams(stream, weights, min_weight=MIN_RING_EXAMPLES, longest=LONGEST_NGRAM):
            members, trusted = uses.members_per_code(grams)
            is_ring = (trusted == 0) & (members <= MAX_RING)
            is_ring &= uses.examples_per_code(grams) >= RING_REPEATS * members
            planted.update(grams.keep(is_ring).texts.tolist())
    return frozenset(texts[index] for index in planted)


class _Uses:
    """Who used which text, as flat arrays."""

    def __init__(self, users: Sequence[Sequence[str]], newcomers: Collection[str]) -> None:
        numbers: dict[str, int] = {}
        flat = [numbers.setdefault(member, len(numbers)) for members in users for member in members]
        self._members = np.array(flat, dtype=np.int64)
        self._distinct_members = max(1, len(numbers))
        self._is_new: Flags = np.array([member in newcomers for member in numbers], dtype=np.bool_)
        self.per_text: Integers = np.array([len(members) for members in users], dtype=np.int64)
        self._begins = np.cumsum(self.per_text) - self.per_text
        text_of_use = np.repeat(np.arange(len(users)), self.per_text)
        of_newcomers = self._is_new[self._members].astype(np.int64) if numbers else np.zeros(0, dtype=np.int64)
        self.newcomers_per_text: Integers = np.bincount(text_of_use, weights=of_newcomers, minlength=len(users)).astype(
            np.int64
        )

    def members_per_code(self, grams: Grams) -> tuple[Integers, Integers]:
        """How many distinct members used each n-gram, and how many of them are no newcomers."""
        codes, texts = grams.in_texts()
        uses = self.per_text[texts]
        within = np.arange(int(uses.sum())) - np.repeat(np.cumsum(uses) - uses, uses)
        members = self._members[np.repeat(self._begins[texts], uses) + within]
        pairs = distinct_values(np.repeat(codes, uses) * self._distinct_members + members)
        by_code, who = pairs // self._distinct_members, pairs % self._distinct_members
        trusted = by_code[~self._is_new[who]] if len(who) else by_code
        return np.bincount(by_code, minlength=grams.distinct), np.bincount(trusted, minlength=grams.distinct)

    def examples_per_code(self, grams: Grams) -> Integers:
        """How many examples use each n-gram."""
        codes, texts = grams.in_texts()
        return np.bincount(codes, weights=self.per_text[texts], minlength=grams.distinct).astype(np.int64)
