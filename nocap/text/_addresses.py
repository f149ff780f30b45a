"""Where postal addresses stand in a text: a house number and a street, a box, a flat."""

from __future__ import annotations

import re
from collections.abc import Iterator

_STREETS = (
    "street|st|road|rd|avenue|ave|lane|ln|drive|dr|boulevard|blvd|court|ct|terrace|crescent|close|highway|hwy|parkway"
    "|pkwy|square|sq|way|place|pl|trail|circle|cir|alley"
)
_PART = r"[^\W_][\w'’.\-]{0,30}"
# A house number, up to four words, and what a street is called; or the street first, as on the continent.
_ADDRESSES = re.compile(
    rf"(?<![\w.,:/$€£#-])\d{{1,5}}[a-z]?,? (?:(?:[NSEW]|north|south|east|west)\.? )?(?:{_PART} ){{1,3}}?"
    rf"(?:{_STREETS})\b\.?(?:,? (?:apt|apartment|suite|unit|flat|no|#)\.? ?\w{{1,6}}\b)?"
    r"|(?<!\w)(?:via|rua|rue|calle|avenida|strada|ulica|ul\.) (?:[^\W\d_][\w'’.\-]{0,30} ){1,4}\d{1,5}[a-z]?\b"
    r"|(?<!\w)[^\W\d_][\w-]{2,40}(?:straße|strasse|straat|gasse|gatan|gata|vej|vägen|veien|plein|laan|weg)"
    r" \d{1,5}[a-z]?\b"
    r"|\bp\.? ?o\.? ?box \d{1,8}\b"
    r"|(?<!\w)(?:apt|apartment|suite)\.? \d{1,5}[a-z]?\b",
    re.IGNORECASE,
)
# Numbers of things one counts by the way: `2 more days on the road`, `1st place`.
_COUNTED = re.compile(
    r"\d+,? (?:\S+ )*?(?:days?|hours?|hrs?|minutes?|mins?|weeks?|months?|years?|yrs?|times|people|more|miles|km|points?"
    r"|percent|of|the|a|an|in|on|to|and|or|is|was|are|for|at|per|from|with|my|your|this|that|other|different|same|i|it)\b",
    re.IGNORECASE,
)


def address_spans(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of every postal address in `text`."""
    for match in _ADDRESSES.finditer(text):
        if not _COUNTED.match(match[0]):
            yield match.span()


def may_hold_address(text: str) -> bool:
    """A cheap look at whether `text` has a digit next to a word."""
    return any(map(str.isdecimal, text))
