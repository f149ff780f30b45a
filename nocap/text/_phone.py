"""Where phone numbers stand in a text, by the shapes that people write them in."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nocap.text._checks import digits_of, is_varied

_DASH = "\\-\u2010-\u2013"
_GAP = f"[ .\u00a0{_DASH}]"
_EXTENSION = r"(?:\s?(?:x|ext\.?|extension)\s?\d{1,6})?"
_BEFORE = f"(?<![\\w./=$€£¥₹^+:#{_DASH}])(?<!\\d,)"
_AFTER = rf"(?!\d)(?![{_DASH}./:]\d)"

# Alternatives from the most to the least telling; the group's name says what else must hold.
_SHAPES = re.compile(
    rf"(?P<international>(?<![\w+])\+\ ?\(?\d{{1,4}}\)?(?:[ .\u00a0{_DASH}/()]{{0,3}}\d){{5,13}})(?!\d)"
    rf"|{_BEFORE}(?:"
    rf"(?P<exit_code>00[1-9]\d{{0,2}}(?:{_GAP}\d{{2,5}}){{2,5}})"
    rf"|(?P<certain>(?:1{_GAP})?\(\d{{3}}\)\ ?\d{{3}}{_GAP}?\d{{4}}"
    rf"|(?:1{_GAP})?\d{{3}}(?P<gap>{_GAP})\d{{3}}(?P=gap)\d{{4}}"
    rf"|\d{{3}}[ ]\d{{3}}-\d{{4}}"
    rf"|\(\d{{2,5}}\)[ ]?\d{{3,4}}[ {_DASH}]?\d{{3,6}}"
    rf"|\d\d(?P<pair>[.\-])\d\d(?P=pair)\d\d(?P=pair)\d\d)"
    rf"|(?P<national>0\d{{1,4}}(?:[ ./\u00a0{_DASH}]?\d{{2,8}}){{1,5}})"
    rf"|(?P<local>\d{{3}}-\d{{4}})"
    rf"|(?P<bare>\d{{10,15}}(?!\w))"
    rf"){_EXTENSION}{_AFTER}",
    re.IGNORECASE,
)
_NUMBER = rf"{_BEFORE}\(?\d{{2,5}}\)?(?:{_GAP}?\d{{2,6}}){{1,4}}"
_ANNOUNCED = re.compile(
    r"\b(?:call|text|txt|sms|phone|tel|telephone|cell|mobile|mob|whatsapp|dial|reach|contact|fax|hotline|hp|answering"
    r"|(?:my|his|her|their|your|new) (?:number|no|num|line))\b[^\n\d]{0,30}?"
    rf"({_NUMBER})(?!\w){_AFTER}",
    re.IGNORECASE,
)
_LABELLED = re.compile(rf"({_NUMBER})[ \-](?:office|fax|mobile|cell|phone)\b", re.IGNORECASE)
# A part of every word in the two patterns above.
_INTRODUCING_PARTS = (
    "call", "tel", "text", "txt", "sms", "phone", "cell", "mob", "whatsapp", "dial", "reach", "contact", "fax",
    "hotline", "hp", "answer", " num", " no", " line", "office",
)  # fmt: skip
_CALENDAR = re.compile(r"\d{1,2}[./-]\d{1,2}[./-](?:\d{4}|\d\d)(?!\d)|(?:19|20)\d\d[ ./-](?:19|20)?\d\d(?!\d)")


_FIRST_DIGITS = re.compile(r"\D*\d+")


def phone_spans(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of every number in `text` with a phone number's shape; prices, dates and scores have none."""
    position = 0
    while shape := _SHAPES.search(text, position):
        if _is_phone(shape):
            yield shape.span()
            position = shape.end()
        elif first := _FIRST_DIGITS.match(text, shape.start()):
            position = first.end()


def announced_phone_spans(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of every number that the words before it call a phone number, whatever its grouping."""
    return _introduced(_ANNOUNCED, text)


def labelled_phone_spans(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of every number that the word after it calls a phone number, as in an address card."""
    return _introduced(_LABELLED, text)


def may_introduce_phone(text: str) -> bool:
    """A cheap look at whether any word of `text` can announce or label a phone number."""
    lowered = text.lower()
    return any(word in lowered for word in _INTRODUCING_PARTS)


def _introduced(pattern: re.Pattern[str], text: str) -> Iterator[tuple[int, int]]:
    for match in pattern.finditer(text):
        digits = digits_of(match[1])
        if 7 <= len(digits) <= 12 and len(set(digits)) >= 3 and not _CALENDAR.match(match[1]):
            yield match.span(1)


def _is_phone(shape: re.Match[str]) -> bool:
    digits = digits_of(shape[0])
    if shape["certain"]:
        return True
    if shape["international"]:
        return 7 <= len(digits) <= 15 and len(set(digits)) >= 3
    if shape["exit_code"]:
        return len(digits) >= 10
    if shape["national"]:
        return 9 <= len(digits) <= 12 and is_varied(digits)
    if shape["local"]:
        return not (digits[2] in "05" and digits[6] in "05")
    return is_varied(digits)
