"""Made-up words for simulated chat."""

from __future__ import annotations

_SYLLABLES = ("ka", "lo", "mi", "ne", "ru", "sa", "ti", "vo", "be", "du", "fa", "gi", "ho", "ja", "ku", "le")


def made_up_word(number: int) -> str:
    """The `number`th word that no lexicon knows, short for small numbers."""
    word = ""
    while number >= 0:
        word += _SYLLABLES[number % len(_SYLLABLES)]
        number = number // len(_SYLLABLES) - 1
    return word
