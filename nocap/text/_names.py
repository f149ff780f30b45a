"""Where people's names stand in a text: by the project's gazetteer, by surnames' endings, and by the words around.

A name is doubtful where its word has another meaning (`Will`, `Jordan`) or where a surname stands alone; those are
names only where their surroundings say so. Every pattern starts at a word's start, and every run is read once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import NamedTuple

_UPPER = "A-Z\u00c0-\u00d6\u00d8-\u00de\u0100-\u017f\u0386-\u03ab\u0400-\u042f"
_WORD = rf"[{_UPPER}][^\W\d_]*(?:['’\-][^\W\d_]+)*"
_WORD_GROUP = f"({_WORD})"
_PARTICLES = "van|von|der|den|de|da|di|du|del|della|dos|das|do|la|le|ter|ten|af|av|bin|ibn|el|al|zu"
_RUN = re.compile(rf"(?<![\w@#./:\[&]){_WORD}(?: (?:(?:{_PARTICLES}) ){{0,2}}{_WORD})*(?![\w\]@#])")
_PIECE = re.compile(rf"{_WORD}")

_TITLES = re.compile(
    rf"\b(?:Mr|Mrs|Ms|Miss|Mx|Dr|Prof|Professor|Doctor|Mister|Sir|Madam|Uncle|Aunt|Auntie|mr|mrs|ms|dr|prof)\.? "
    rf"({_WORD}(?: (?:(?:{_PARTICLES}) ){{0,2}}{_WORD}){{0,2}})(?![\w\]@#])"
    r"|\b(?:mr|mrs|ms|dr)\. ([^\W\d_]{3,20})(?!\w)"
)
_INTRODUCED = re.compile(
    r"(?:\b(?:my|his|her|their|maiden|full|real|nick|the child's|user) ?name(?:'s|’s| is| was|:| =)|^name\s?:"
    r"|\bname on the account\?(?: user:)?|\byour name\?|\b(?:calls?|called) me|\bnamed (?:him|her|me))\s{1,4}"
    r"([^\W\d_]{2,30}(?:['’\-][^\W\d_]+)?)",
    re.IGNORECASE | re.MULTILINE,
)
_GREETING = re.compile(r"(?:hi|hey|hello|dear|thanks|sorry),? $", re.IGNORECASE)
_SAYING = re.compile(r" (?:said|says|shouted|told|asked|replied|lives|texted|called|phoned)\b")
_LONGEST_GREETING = len("thanks, ")
_LISTED = re.compile(rf"(?<![\w@#/.]){_WORD_GROUP}(?=, | and | & |[.,!?:;]|$)", re.MULTILINE)
_GAPS = (", ", " and ", " & ", ", and ")
_LONG_WORD = re.compile(r"[^\W\d_]{5,}")
_LOWER_WORD = re.compile(r"(?<![\w@#./:\[&-])[^\W\d_]{5,}(?![\w\]@#.'’/-])")
_LOWER_CASE_FROM = 5
"""Letters of a name that is recognised without its capital: shorter ones are too often words of some language."""
_CERTAIN_SURNAME = re.compile(
    r"(?:vić|ić|dóttir|dottir|sdóttir|sson|ová|enko|opoulos|oğlu|shvili|wicz|ński|szky|ányi|ović|czyk|idis|akis)$"
)
_NO_SURNAME_FROM = 5
"""Letters that a word with a certain ending has at least: `Bić` is nobody."""

_LONGEST_NAME = 3


class Gazetteer(NamedTuple):
    given: frozenset[str]
    """A person wherever they stand."""
    doubtful: frozenset[str]
    """Given names that are also words, places or jokes: a person before a known surname, or where people speak."""
    surnames: frozenset[str]
    never: frozenset[str]
    """Words that a capital letter makes no part of a name; lower case."""
    things_after: frozenset[str]
    """After a name these make it a place's, a company's or a thing's."""
    things_before: frozenset[str]


@cache
def _gazetteer() -> Gazetteer:
    names = ("given", "doubtful", "surname", "never", "thing after", "thing before")
    sections: dict[str, set[str]] = {name: set() for name in names}
    current: set[str] = set()
    for line in (resources.files("nocap.text") / "names.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            current = sections.get(line[2:], current)
        else:
            current.update(line.split())
    return Gazetteer(*map(frozenset, sections.values()))


def name_spans(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of every name in `text`, in order, without overlaps."""
    found = [match.span() for match in _TITLES.finditer(text) if not _is_no_name(match[1] or match[2])]
    found += _introduced(text)
    for run in _RUN.finditer(text):
        found += _names_in_run(text, run)
    found += _lower_case(text)
    if found:
        found += _neighbours(text, found)
    end_of_last = 0
    for start, end in sorted(found):
        if start >= end_of_last:
            yield start, end
            end_of_last = end


def has_doubtful_name(text: str) -> bool:
    """Whether `text` holds a word that may be a name, and that `name_spans` leaves alone for want of certainty."""
    known = _gazetteer()
    certain = list(name_spans(text))
    return any(
        _bare(piece[0]) in known.doubtful | known.surnames
        and not any(start <= piece.start() < end for start, end in certain)
        for piece in _PIECE.finditer(text)
    )


def _names_in_run(text: str, run: re.Match[str]) -> list[tuple[int, int]]:
    known = _gazetteer()
    if " " not in run[0]:  # nearly always
        word = _bare(run[0])
        end = run.start() + len(word)
        is_name = word in known.given or _is_certain_surname(word)
        if not is_name and (word in known.doubtful or word in known.surnames):
            is_name = _is_spoken_of(text, run.start(), end)
        return [(run.start(), end)] if is_name and not _is_called_after(text, run) else []
    pieces = [(piece.start(), _bare(piece[0])) for piece in _PIECE.finditer(text, run.start(), run.end())]
    found = []
    index = 0
    while index < len(pieces):
        start, word = pieces[index]
        following = pieces[index + 1][1] if index + 1 < len(pieces) else ""
        begins = (
            word in known.given
            or _is_certain_surname(word)
            or (word in known.doubtful and following in known.surnames)
            or (word.lower() not in _gazetteer().never and _is_certain_surname(following))
        )
        if not begins or (index and pieces[index - 1][1] in _gazetteer().things_before):
            index += 1
            continue
        last = index
        while last + 1 < len(pieces) and last + 1 < index + _LONGEST_NAME and _may_follow(pieces[last + 1][1]):
            last += 1
        after = pieces[last + 1][1] if last + 1 < len(pieces) else ""
        if after not in _gazetteer().things_after:
            found.append((start, pieces[last][0] + len(pieces[last][1])))
        index = last + 1
    return found


def _is_called_after(text: str, run: re.Match[str]) -> bool:
    """Whether a street or a place is meant: `Saint Louis` is one run, `via Roma` is none of ours."""
    return text[max(0, run.start() - 4) : run.start()].lower() in ("via ", "rua ", "rue ")


def _introduced(text: str) -> list[tuple[int, int]]:
    """Names that the words before them call names, whatever their case."""
    found = []
    for match in _INTRODUCED.finditer(text):
        start, end = match.span(1)
        if match[1].lower() in _gazetteer().never or (match[0].lower().startswith("call") and match[1].islower()):
            continue
        if match[1][0].isupper() and (run := _RUN.match(text, start)):
            pieces = list(_PIECE.finditer(text, start, run.end()))[:_LONGEST_NAME]
            kept = [piece for piece in pieces if piece[0].lower() not in _gazetteer().never]
            end = max(end, kept[-1].end()) if kept else end
        found.append((start, end))
    return found


def _is_spoken_of(text: str, start: int, end: int) -> bool:
    """Whether the word there is greeted or quoted, or does what people do."""
    return bool(_SAYING.match(text, end)) or (
        text[end : end + 1] in (",", "!", ".", ":", "\n", "")
        and bool(_GREETING.search(text[max(0, start - _LONGEST_GREETING) : start]))
    )


def _lower_case(text: str) -> list[tuple[int, int]]:
    """Unmistakable given names that were typed without a capital letter."""
    given = _lower_given()
    if given.isdisjoint(_LONG_WORD.findall(text)):
        return []
    return [word.span() for word in _LOWER_WORD.finditer(text) if word[0] in given]


@cache
def _lower_given() -> frozenset[str]:
    known = _gazetteer()
    return frozenset(name.lower() for name in known.given if len(name) >= _LOWER_CASE_FROM)


def _neighbours(text: str, found: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Doubtful names in a list with a certain one: `Lee and Kovačić`, `Jan, Kristi, Will`."""
    known = _gazetteer()
    ends, starts = {end for _, end in found}, {start for start, _ in found}
    more = []
    for match in _LISTED.finditer(text):
        start, end = match.span(1)
        if match[1] in known.doubtful or match[1] in known.surnames:
            before = next((start - len(gap) for gap in _GAPS if text.endswith(gap, 0, start)), None)
            after = next((end + len(gap) for gap in _GAPS if text.startswith(gap, end)), None)
            if before in ends or after in starts:
                more.append((start, end))
                ends.add(end)
    return more


def _may_follow(word: str) -> bool:
    return word.lower() not in _gazetteer().never and word not in _gazetteer().things_after and not word.isupper()


def _is_no_name(words: str) -> bool:
    first = _bare(words.split(" ")[0])
    return first.lower() in _gazetteer().never or first in _gazetteer().things_after


def _is_certain_surname(word: str) -> bool:
    return len(word) >= _NO_SURNAME_FROM and bool(_CERTAIN_SURNAME.search(word))


def _bare(word: str) -> str:
    """The word without a possessive ending."""
    return word[:-2] if word.endswith(("'s", "’s")) else word
