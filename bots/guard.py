"""The output guard: what the model says, made fit to be sent, while it streams.

Personal data and links are replaced by placeholders, mass mentions are defused, terms that a moderator has blocked
are starred out, control characters are dropped.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from functools import lru_cache

from nocap.text.scrub import scrub

_WORD = re.compile(r"\S+")
_MASS_MENTION = re.compile(r"@(?=(?:everyone|here|channel|all)\b)", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# Around white space: what a number, an account or a spoken e-mail address may have before it or after it.
_OPENS = re.compile(r"[\d+(\[@]|^\W*(?:at|dot|\W*)\W*$", re.IGNORECASE)
_CONTINUES = re.compile(r"\d|^\W*(?:at|dot)\b|^[^\w\"'*]", re.IGNORECASE)
_REACHES_FAR = re.compile(r"-----BEGIN|[\[(]at[\])].{0,80}\Z", re.IGNORECASE | re.DOTALL)
TAIL_CHARACTERS = 256


def guard(text: str, blocked: Sequence[str] = ()) -> str:
    """`text` without personal data, blocked terms, mass mentions and control characters."""
    clean = scrub(_CONTROL.sub("", text))
    if blocked:
        clean = _terms(tuple(blocked)).sub(lambda found: "*" * len(found[0]), clean)
    return _MASS_MENTION.sub("@\u200b", clean)


async def guarded(pieces: AsyncIterable[str], blocked: Sequence[str] = ()) -> AsyncGenerator[str, None]:
    """The pieces of `guard(all of them joined)`, each as soon as what follows can no longer change it.

    That is a word or two late: a number, an address or a blocked phrase is only known once it has ended.
    """
    raw = said = ""
    settled = 0
    words_late = max((len(term.split()) for term in blocked), default=1) - 1
    async for piece in pieces:
        raw += piece
        end = _before_phrase(raw, _words_before(raw, _settled(raw), words_late), blocked)
        safe = guard(raw[:end], blocked) if end > settled else said
        if len(safe) > len(said) and safe.startswith(said):
            yield safe[len(said) :]
            said, settled = safe, end
    whole = guard(raw, blocked)
    rest = whole[len(said) :] if whole.startswith(said) else guard(raw[settled:], blocked)
    if rest:
        yield rest


@lru_cache(maxsize=64)
def _terms(blocked: tuple[str, ...]) -> re.Pattern[str]:
    """Matches a blocked term as whole words, however it is cased or spaced."""
    longest_first = sorted((term for term in blocked if term.strip()), key=len, reverse=True)
    phrases = (r"\s+".join(map(re.escape, term.split())) for term in longest_first)
    return re.compile(rf"(?<!\w)(?:{'|'.join(phrases)})(?!\w)", re.IGNORECASE)


def _before_phrase(raw: str, end: int, blocked: Sequence[str]) -> int:
    """`end`, or the start of the blocked phrase that reaches across it."""
    across = (one.start() for one in (_terms(tuple(blocked)).finditer(raw) if blocked else ()) if one.end() > end)
    return min(end, next(across, end))


def _words_before(raw: str, end: int, words: int) -> int:
    """The end of the word that is `words` before the one that ends at `end`; 0 where there is none."""
    if words == 0 or end == 0:
        return end
    ends = [found.end() for found in _WORD.finditer(raw, 0, end)]
    return ends[-words - 1] if len(ends) > words else 0


def _settled(raw: str) -> int:
    """Length of a prefix that ends at white space which nothing personal can reach across."""
    if _REACHES_FAR.search(raw):
        return 0
    start = max(0, len(raw) - TAIL_CHARACTERS)
    words = list(_WORD.finditer(raw, start))
    for before, after in zip(words[-2::-1], words[:0:-1], strict=True):
        is_whole = after.end() < len(raw) and (before.start() > start or start == 0)
        if is_whole and not _OPENS.search(before[0]) and not _CONTINUES.search(after[0]):
            return before.end()
    return 0
