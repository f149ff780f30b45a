"""Long answers in parts that a chat platform takes: cut at sentence ends, code blocks kept whole or reopened."""

from __future__ import annotations

import re
from collections.abc import Callable

FENCE = "```"
_OPENING = re.compile(r"^```([\w+#-]{0,20})", re.MULTILINE)
# The later in this list, the worse a place to cut; each pattern ends where the next part begins.
_CUTS = (
    re.compile(r"\n\n+"),
    re.compile(r"\n"),
    re.compile(r"[.!?…。！？]+[\"'”’)\]*_~|]*\s+"),
    re.compile(r"\s+"),
)
GOOD_CUT_SHARE = 0.4
"""A better kind of place counts only in the last 60 % of a part, or parts would get too short."""


def split(text: str, limit: int, length: Callable[[str], int] = len) -> list[str]:
    """`text` in parts of at most `limit`, by `length` (Telegram counts UTF-16 units); white space at cuts is dropped.

    A code block that has to be cut is closed at the end of a part and opened again, with its language, in the next.
    """
    assert limit >= 64, "a part must have room for a sentence and a code block's fences"
    parts: list[str] = []
    rest, reopen = text.strip(), ""
    while rest:
        if length(reopen + rest) <= limit:
            parts.append(reopen + rest)
            break
        room = _prefix(rest, limit - length(reopen) - len(FENCE) - 1, length)
        end = _cut(rest, room)
        part = rest[:end]
        language = _open_block(reopen + part)
        if not reopen and language is not None and (before := _before_block(part)):
            end, part, language = len(before), before, None
        rest = rest[end:].lstrip("\n") if language is not None else rest[end:].lstrip()
        closing = "" if language is None else ("" if part.endswith("\n") else "\n") + FENCE
        parts.append((reopen + (part if language is not None else part.rstrip())) + closing)
        reopen = "" if language is None else f"{FENCE}{language}\n"
        if language is not None and rest.strip() == FENCE:
            break
    return [part for part in parts if part.strip()]


def utf16_units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _prefix(text: str, limit: int, length: Callable[[str], int]) -> int:
    """How many characters of `text` measure at most `limit`."""
    end = min(len(text), limit)
    while length(text[:end]) > limit:
        end -= max(1, (length(text[:end]) - limit) // 2)
    return end


def _cut(text: str, room: int) -> int:
    """Where to end a part of at most `room` characters."""
    window = text[: room + 1]
    for pattern in _CUTS:
        ends = [found.start() if found[0].isspace() else found.end() for found in pattern.finditer(window)]
        good = [end for end in ends if room * GOOD_CUT_SHARE < end <= room]
        if good:
            return good[-1]
    return _whole_character(text, room)


def _whole_character(text: str, end: int) -> int:
    """Not inside an emoji: joiners, variation selectors, skin tones and combining marks stay with their base."""
    for back in range(min(24, end - 1)):
        at = end - back
        if not _joins(text[at]) and text[at - 1] != "\u200d":
            return at
    return end


def _joins(character: str) -> bool:
    code = ord(character)
    return (
        code in (0x200D, 0xFE0E, 0xFE0F, 0x20E3)
        or 0x1F3FB <= code <= 0x1F3FF
        or 0x0300 <= code <= 0x036F
        or 0xE0020 <= code <= 0xE007F
    )


def _open_block(part: str) -> str | None:
    """The language of the code block that the part leaves open ("" for none given); None where all are closed."""
    if part.count(FENCE) % 2 == 0:
        return None
    last = part.rindex(FENCE)
    found = _OPENING.match(part[last:])
    return found[1] if found and part[last + len(found[0]) :].startswith("\n") else ""


def _before_block(part: str) -> str:
    """What stands before the block that the part leaves open, if that is enough for a part of its own."""
    before = part[: part.rindex(FENCE)].rstrip()
    return before if len(before) > len(part) * GOOD_CUT_SHARE else ""
