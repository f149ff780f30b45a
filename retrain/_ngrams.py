"""Exact n-gram counting over many texts with numpy: linear memory, no hash collisions."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


def distinct_values(values: Integers) -> Integers:
    """The distinct `values`, rising; sorts, which numpy's own `unique` no longer does and is slower without."""
    ordered = np.sort(values)
    return ordered[np.concatenate(([True], ordered[1:] != ordered[:-1]))[: len(ordered)]]


@dataclass(frozen=True)
class Grams:
    """Every n-gram occurrence of one length: parallel arrays, plus how to spell an n-gram again."""

    length: int
    codes: Integers
    """Which n-gram, 0 to `distinct` - 1."""
    starts: Integers
    """Where in the token stream it begins."""
    texts: Integers
    """In which text it stands."""
    distinct: int

    def keep(self, wanted: Flags) -> Grams:
        """The occurrences whose code is flagged in `wanted`; the codes stay as they are."""
        chosen = wanted[self.codes]
        return Grams(self.length, self.codes[chosen], self.starts[chosen], self.texts[chosen], self.distinct)

    def in_texts(self) -> tuple[Integers, Integers]:
        """The distinct pairs of a code and a text that holds it, as two parallel arrays."""
        width = int(self.texts.max(initial=0)) + 1
        pairs = distinct_values(self.codes * width + self.texts)
        return pairs // width, pairs % width

    def longer(self) -> Grams:
        """The n-grams of one more token both of whose parts are among these."""
        follows = (np.diff(self.starts) == 1) & (self.texts[1:] == self.texts[:-1])
        first = np.flatnonzero(follows)
        joined = self.codes[first] * self.distinct + self.codes[first + 1]
        distinct, codes = np.unique(joined, return_inverse=True)
        return Grams(self.length + 1, codes, self.starts[first], self.texts[first], len(distinct))


@dataclass(frozen=True)
class TokenStream:
    """Texts as one stream of token numbers."""

    vocabulary: tuple[str, ...]
    tokens: Integers
    texts: Integers
    """The text of each token, rising."""

    @classmethod
    def of(cls, tokenized: Iterable[Sequence[str]]) -> TokenStream:
        """Takes one text after the other and keeps each distinct token once: eight bytes a token of memory."""
        numbers: defaultdict[str, int] = defaultdict()
        numbers.default_factory = numbers.__len__  # a new token gets the next number
        flat, lengths = array("q"), array("q")
        for tokens in tokenized:
            flat.extend(map(numbers.__getitem__, tokens))
            lengths.append(len(tokens))
        texts = np.repeat(np.arange(len(lengths)), np.array(lengths, dtype=np.int64))
        return cls(tuple(numbers), np.array(flat, dtype=np.int64), texts)

    def respelled(self, spell: Callable[[str], str]) -> TokenStream:
        """The same texts with every token written as `spell` does."""
        numbers: dict[str, int] = {}
        mapped = [numbers.setdefault(spell(token), len(numbers)) for token in self.vocabulary]
        return TokenStream(tuple(numbers), np.array(mapped, dtype=np.int64)[self.tokens], self.texts)

    def counts(self) -> dict[str, int]:
        """How often each token stands in the texts."""
        uses = np.bincount(self.tokens, minlength=len(self.vocabulary))
        return dict(zip(self.vocabulary, uses.tolist(), strict=True))

    def unigrams(self) -> Grams:
        return Grams(1, self.tokens, np.arange(len(self.tokens)), self.texts, len(self.vocabulary))

    def spell(self, start: int, length: int) -> tuple[str, ...]:
        """The tokens of the n-gram that begins at `start`."""
        return tuple(self.vocabulary[token] for token in self.tokens[start : start + length])


def frequent_grams(stream: TokenStream, text_weights: Integers, *, min_weight: int, longest: int) -> Iterator[Grams]:
    """The n-grams of 1 to `longest` tokens whose texts weigh `min_weight` or more together, length by length.

    An n-gram can only be as frequent as its parts, so each length is built from what the last one left
    (Agrawal and Srikant 1994).
    """
    grams = stream.unigrams()
    for _ in range(longest):
        codes, texts = grams.in_texts()
        weights = np.bincount(codes, weights=text_weights[texts], minlength=grams.distinct)
        grams = grams.keep(weights >= min_weight)
        yield grams
        grams = grams.longer()
