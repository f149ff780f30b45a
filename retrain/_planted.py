"""Texts that hold a planted n-gram: one that is repeated, but by too few members."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nocap.text.tokens import words
from retrain._ngrams import Grams, Integers, TokenStream, distinct_values, frequent_grams

LONGEST_NGRAM = 4


def planted_texts(users: Mapping[str, Sequence[str]], max_examples: int, min_members: int) -> frozenset[str]:
    """The texts with a run of 1 to 4 tokens, case folded, that more than `max_examples` examples hold though
    fewer than `min_members` members used it.

    `users` holds for each distinct text the member of every example that counts as a use of it; a text without
    any is only looked through.
    """
    texts = list(users)
    stream = TokenStream.of([words(text.casefold()) for text in texts])
    uses = _Uses(list(users.values()))
    planted: set[int] = set()
    for grams in frequent_grams(stream, uses.per_text, min_weight=max_examples + 1, longest=LONGEST_NGRAM):
        private = uses.members_per_code(grams) < min_members
        planted.update(grams.keep(private).texts.tolist())
    return frozenset(texts[index] for index in planted)


class _Uses:
    """Who used which text, as flat arrays."""

    def __init__(self, users: Sequence[Sequence[str]]) -> None:
        numbers: dict[str, int] = {}
        flat = [numbers.setdefault(member, len(numbers)) for members in users for member in members]
        self._members = np.array(flat, dtype=np.int64)
        self._distinct_members = max(1, len(numbers))
        self.per_text: Integers = np.array([len(members) for members in users], dtype=np.int64)
        self._begins = np.cumsum(self.per_text) - self.per_text

    def members_per_code(self, grams: Grams) -> Integers:
        """How many distinct members used each n-gram."""
        codes, texts = grams.in_texts()
        uses = self.per_text[texts]
        within = np.arange(int(uses.sum())) - np.repeat(np.cumsum(uses) - uses, uses)
        members = self._members[np.repeat(self._begins[texts], uses) + within]
        pairs = distinct_values(np.repeat(codes, uses) * self._distinct_members + members)
        return np.bincount(pairs // self._distinct_members, minlength=grams.distinct)
