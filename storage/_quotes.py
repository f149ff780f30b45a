"""Recognising a member's words inside other people's texts."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from nocap.text.tokens import ngrams, words

RUN_WORDS = 5
"""So many neighbouring words of one message are a quote of it; a shorter message is quoted as a whole."""
MIN_CHARACTERS = 12
"""Of a message that is quoted as a whole: `good morning` is nobody's own."""
MIN_WORD_CHARACTERS = 8
"""Of a word that stands for its writer, because nobody else in the chat has written it."""

Tokens = tuple[str, ...]


def tokens_of(text: str) -> Tokens:
    return tuple(word.casefold() for word in words(text))


class Quotes:
    """What counts as the words of one member: runs of their messages, and words that only they use."""

    def __init__(self, texts: Iterable[str], words_of_others: Collection[str] = ()) -> None:
        self._runs: set[Tokens] = set()
        self._own_words: set[str] = set()
        for text in texts:
            tokens = tokens_of(text)
            self._own_words |= {word for word in tokens if len(word) >= MIN_WORD_CHARACTERS}
            if len(tokens) >= RUN_WORDS:
                self._runs |= set(ngrams(tokens, RUN_WORDS))
            elif len(text.strip()) >= MIN_CHARACTERS:
                self._runs.add(tokens)
        self._own_words -= set(words_of_others)
        self._lengths = sorted({len(run) for run in self._runs})

    def found_in(self, text: str | None) -> bool:
        """Whether `text` repeats their words."""
        if text is None:
            return False
        tokens = tokens_of(text)
        if not self._own_words.isdisjoint(tokens):
            return True
        return any(not self._runs.isdisjoint(ngrams(tokens, length)) for length in self._lengths)

    def cut_from(self, text: str) -> str:
        """`text` without its quoting lines (`> …`) that repeat their words."""
        kept = [line for line in text.splitlines() if not (is_quoting(line) and self.found_in(line))]
        return "\n".join(kept).strip()


def is_quoting(line: str) -> bool:
    return line.lstrip().startswith(">")
