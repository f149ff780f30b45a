"""Which texts are clearly not in the community's own language or languages.

The community says what these are, so nothing needs configuring. The filter fails open: language identification
errs on short and slangy texts ("bruh thats lowkey mid" reads as anything), so a text is dropped only if it is
long enough, hardly uses the community's everyday words, and another language fits it far better.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import py3langid

MIN_LETTERS = 20
MIN_WORDS = 5
CERTAIN_LETTERS = 40
"""Texts of as many letters are asked what the community speaks."""
SAMPLED_TEXTS = 400
MIN_SAMPLED_TEXTS = 50
"""With fewer long texts nobody can say what the community speaks, and nothing is dropped."""
OWN_SHARE = 0.1
"""A language of this share of the sample is the community's."""
COMMON_WORDS = 500
MIN_COMMON_USES = 5
COMMON_SHARE = 0.3
MARGIN_NATS = 12.0
"""How much likelier than the community's best language another one must be; about e^12."""


class LanguageFilter:
    """Built from all replies of a pool and their tokens, case folded."""

    def __init__(self, replies: Sequence[str], tokenized: Sequence[Sequence[str]]) -> None:
        counts = Counter(token for tokens in tokenized for token in set(tokens))
        self._common = frozenset(word for word, uses in counts.most_common(COMMON_WORDS) if uses >= MIN_COMMON_USES)
        long = [reply for reply in replies if len(reply) >= CERTAIN_LETTERS]
        sample = [reply for reply in long[:: max(1, len(long) // SAMPLED_TEXTS)] if _letters(reply) >= CERTAIN_LETTERS]
        languages = Counter(py3langid.classify(reply)[0] for reply in sample)
        enough = len(sample) >= MIN_SAMPLED_TEXTS
        self.languages = frozenset(
            language for language, uses in languages.items() if enough and uses >= OWN_SHARE * len(sample)
        )
        """ISO codes of what the community speaks; empty where too few texts tell."""

    def is_foreign(self, reply: str, tokens: Sequence[str]) -> bool:
        """Whether `reply` is clearly in none of the community's languages."""
        if not self.languages or len(tokens) < MIN_WORDS or len(reply) < MIN_LETTERS:
            return False
        if sum(map(self._common.__contains__, tokens)) >= COMMON_SHARE * len(tokens):
            return False
        if _letters(reply) < MIN_LETTERS:
            return False
        scores: dict[str, float] = dict(py3langid.rank(reply))
        best = max(scores.values())
        return best - max(scores[language] for language in self.languages) > MARGIN_NATS


def _letters(text: str) -> int:
    return sum(map(str.isalpha, text))
