"""The output guard: what the model says, made fit to be sent, while it streams.

Personal data is replaced by placeholders, mass mentions are defused, control characters are dropped.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterable

from nocap.text.scrub import scrub

_WORD = re.compile(r"\S+")
_MASS_MENTION = re.compile(r"@(?=(?:everyone|here|channel|all)\b)", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# Around white space: what a number, an account or a spoken e-mail address may have before it or after it.
_OPENS = re.compile(r"[\d+(\[@]|^\W*(?:at|dot|\W*)\W*$", re.IGNORECASE)
_CONTINUES = re.compile(r"\d|^\W*(?:at|dot)\b|^[^\w\"'*]", re.IGNORECASE)
_REACHES_FAR = re.compile(r"-----BEGIN|[\[(]at[\])].{0,80}\Z", re.IGNORECASE | re.DOTALL)
TAIL_CHARACTERS = 256


def guard(text: str) -> str:
    """`text` without personal data, mass mentions and control characters."""
    return _MASS_MENTION.sub("@\u200b", scrub(_CONTROL.sub("", text)))


async def guarded(pieces: AsyncIterable[str]) -> AsyncGenerator[str, None]:
    """The pieces of `guard(all of them joined)`, each as soon as what follows can no longer change it.

    That is a word or two late: a number or an address is only known once it has ended.
    """
    raw = said = ""
    settled = 0
    async for piece in pieces:
        raw += piece
        end = _settled(raw)
        safe = guard(raw[:end]) if end > settled else said
        if len(safe) > len(said) and safe.startswith(said):
            yield safe[len(said) :]
            said, settled = safe, end
    whole = guard(raw)
    rest = whole[len(said) :] if whole.startswith(said) else guard(raw[settled:])
    if rest:
        yield rest


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
