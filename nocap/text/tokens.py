"""Words, emoji and n-grams of a chat message, as the members wrote them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from nocap.text.scrub import PLACEHOLDERS

# Combining marks and vowel signs, which Python's \w leaves out (Unicode categories Mn and Mc, by block).
MARKS = (
    "\u0300-\u036f\u0483-\u0487\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed"
    "\u0900-\u0963\u0966-\u0dff\u0e31-\u0e4e\u0eb1-\u0ece\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20dc"
)
WORD_CHARACTER = rf"[\w{MARKS}]"
_SKIN_TONES = "\U0001f3fb-\U0001f3ff"
_REGIONAL_INDICATORS = "\U0001f1e6-\U0001f1ff"
_JOINER = "\u200d"

_PICTURE = (
    "[\u00a9\u00ae\u203c\u2049\u2122\u2139\u2194-\u21aa\u231a-\u23ff\u24c2\u25aa-\u27bf\u2934\u2935"
    "\u2b05-\u2b55\u3030\u303d\u3297\u3299\U0001f000-\U0001f1e5\U0001f200-\U0001faff]"
)
_DRESSED = rf"{_PICTURE}\ufe0f?[{_SKIN_TONES}]?[\U000e0020-\U000e007f]*"
# One emoji as a person sees it (UTS #51): a flag, a keycap, or pictures held together by joiners.
EMOJI = rf"[{_REGIONAL_INDICATORS}]{{2}}|[0-9#*]\ufe0f?\u20e3|{_DRESSED}(?:{_JOINER}{_DRESSED})*"

_PLACEHOLDER = "|".join(re.escape(placeholder) for placeholder in sorted(PLACEHOLDERS))
_WORD = rf"{WORD_CHARACTER}+(?:['’\-]{WORD_CHARACTER}+)*"
_WORDS = re.compile(rf"{_PLACEHOLDER}|{EMOJI}|{_WORD}")
_WORDS_AND_PUNCTUATION = re.compile(rf"{_WORDS.pattern}|[^\s\ufe0f{_JOINER}]")


def words(text: str, *, punctuation: bool = False) -> list[str]:
    """The tokens of `text` in order, case kept: words (`don't` and `low-key` are one), whole emoji, placeholders.

    Punctuation is dropped, or with `punctuation=True` each mark is a token of its own.
    """
    return (_WORDS_AND_PUNCTUATION if punctuation else _WORDS).findall(text)


def ngrams(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """Every run of `n` neighbouring tokens, in order; none where there are fewer than `n`."""
    return [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]
