"""Counting the uses of a list of terms (slang, markers) in a message."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator

import ahocorasick_rs

from nocap.text.tokens import EMOJI, WORD_CHARACTER, words

_WORD = re.compile(WORD_CHARACTER)
_EMOJI = re.compile(EMOJI)
_SKIN_TONES = frozenset(map(chr, range(0x1F3FB, 0x1F400)))


class Lexicon:
    """A set of terms that are matched as whole words, whatever their case: words, phrases and emoji.

    Of overlapping terms the leftmost, then the longest counts. An emoji counts in every skin tone unless that
    tone is a term itself, and never as a part of another emoji. Blank terms are ignored; of terms that differ
    only in case the first gives the name.
    """

    def __init__(self, terms: Iterable[str]) -> None:
        by_folded: dict[str, str] = {}
        for term in terms:
            if folded := _fold(term).strip():
                by_folded.setdefault(folded, term)
        self.terms = tuple(by_folded.values())
        self._folded = tuple(by_folded)
        self._automaton = ahocorasick_rs.AhoCorasick(self._folded) if by_folded else None

    def count(self, text: str) -> dict[str, int]:
        """How often each term is used in `text`; unused terms are left out."""
        if self._automaton is None:
            return {}
        folded = _fold(text)
        found = self._automaton.find_matches_as_indexes(folded, overlapping=True)
        return dict(Counter(self.terms[index] for index in _leftmost_longest(folded, found))) if found else {}

    def density(self, text: str) -> float:
        """Uses of all terms per token of `text` (tokens as in `words`); 0 for a text without any."""
        tokens = len(words(text))
        return sum(self.count(text).values()) / tokens if tokens else 0.0


def _fold(text: str) -> str:
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", text).casefold().replace("\ufe0f", "").replace("’", "'")


def _leftmost_longest(text: str, found: Iterable[tuple[int, int, int]]) -> Iterator[int]:
    """The indexes of the terms that count, out of all (index, start, end) that occur in `text`."""
    splits_emoji = frozenset[int]() if text.isascii() else _positions_inside_emoji(text)
    end_of_last = 0
    for index, start, end in sorted(found, key=lambda match: (match[1], -match[2])):
        if start < end_of_last or start in splits_emoji or end in splits_emoji:
            continue
        if not (_inside_word(text, start) or _inside_word(text, end)):
            end_of_last = end
            yield index


def _inside_word(text: str, position: int) -> bool:
    if position in (0, len(text)):
        return False
    return bool(_WORD.match(text, position) and _WORD.match(text, position - 1))


def _positions_inside_emoji(text: str) -> frozenset[int]:
    """Where a term may not begin or end; a skin tone at an emoji's end may be left off."""
    return frozenset(
        position
        for emoji in _EMOJI.finditer(text)
        for position in range(emoji.start() + 1, emoji.end() - (emoji[0][-1] in _SKIN_TONES))
    )
