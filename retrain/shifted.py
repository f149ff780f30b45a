"""Old words in new company: words that members have long used and lately use beside other words than before.

For a moderator to read and judge, never for the glossary by itself: a changed topic looks like a changed meaning.
"""

from __future__ import annotations

import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.special import rel_entr

from nocap.text.tokens import words
from retrain.slang import BACKGROUND, MIN_CHANNELS, MIN_MEMBERS, RECENT, Use

REACH = 3
"""Words on each side that are a word's company."""
MIN_USES = 30
"""In the last two weeks and in the twelve before, each: fewer say little about company."""
MAX_SHARE = 0.05
"""Of all messages; a word used in more is grammar."""
COMPANY_WORDS = 3_000
"""The commonest words, whose presence beside a word is compared."""
RELABELLINGS = 200
MIN_Z = 5.0
"""Standard deviations above what relabelled uses give."""
SHOWN = 5


@dataclass(frozen=True, slots=True)
class Shift:
    """A word, how surely its company changed, and the company that is new: each word of it used so by five members."""

    word: str
    z: float
    company: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Occurrence:
    member: str
    channel: str
    is_recent: bool
    company: tuple[str, ...]


def shifted_words(uses: Iterable[Use], as_of: datetime) -> list[Shift]:
    """Words whose company in the last two weeks is surely another than in the twelve before, surest first.

    The statistic is the Jensen-Shannon divergence of the neighbouring words, against the same uses with their weeks
    shuffled; at least five members in two channels must use the word, and each shown neighbour of it, in the new way.
    """
    wanted = [use for use in uses if as_of - RECENT - BACKGROUND <= use.sent_at < as_of]
    said = [[word.lower() for word in words(use.text)] for use in wanted]
    frequency = Counter(word for text in said for word in set(text))
    common = {word for word, _ in frequency.most_common(COMPANY_WORDS)}
    rare_enough = MAX_SHARE * len(wanted)
    subjects = {word for word, count in frequency.items() if 2 * MIN_USES <= count <= rare_enough and word.isalpha()}
    by_word: defaultdict[str, list[_Occurrence]] = defaultdict(list)
    for use, text in zip(wanted, said, strict=True):
        for word, company in _companies(text, subjects, common):
            by_word[word].append(_Occurrence(use.member, use.channel, use.sent_at >= as_of - RECENT, company))
    found = [shift for word, own in sorted(by_word.items()) if (shift := _shift(word, own)) is not None]
    return sorted(found, key=lambda shift: -shift.z)


def _companies(text: Sequence[str], subjects: set[str], common: set[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for place, word in enumerate(text):
        if word in subjects:
            around = (*text[max(0, place - REACH) : place], *text[place + 1 : place + 1 + REACH])
            yield word, tuple(sorted({one for one in around if one in common and one != word}))


def _shift(word: str, own: Sequence[_Occurrence]) -> Shift | None:
    recent = [one for one in own if one.is_recent]
    if min(len(recent), len(own) - len(recent)) < MIN_USES:
        return None
    if len({one.member for one in recent}) < MIN_MEMBERS or len({one.channel for one in recent}) < MIN_CHANNELS:
        return None
    vocabulary = sorted({neighbour for one in own for neighbour in one.company})
    if not vocabulary:
        return None
    presence = _presence(own, vocabulary)
    labels = np.array([one.is_recent for one in own], dtype=np.float64)
    rng = np.random.default_rng(zlib.crc32(word.encode()))
    shuffled = np.stack([labels, *(rng.permutation(labels) for _ in range(RELABELLINGS))])
    divergences = _divergences(shuffled, presence)
    z = (divergences[0] - divergences[1:].mean()) / max(float(divergences[1:].std()), 1e-9)
    if z < MIN_Z:
        return None
    company = _new_company(own, recent)
    return Shift(word, float(z), company) if company else None


def _presence(own: Sequence[_Occurrence], vocabulary: Sequence[str]) -> csr_matrix:
    column = {word: index for index, word in enumerate(vocabulary)}
    rows = [row for row, one in enumerate(own) for _ in one.company]
    columns = [column[neighbour] for one in own for neighbour in one.company]
    return csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(own), len(vocabulary)))


def _divergences(labels: NDArray[np.float64], presence: csr_matrix) -> NDArray[np.float64]:
    """For each row of labels the divergence, in bits, of the company of the uses labelled 1 from that of the others."""
    now, before = labels @ presence, (1 - labels) @ presence
    p, q = (side / np.maximum(side.sum(1, keepdims=True), 1) for side in (now, before))
    middle = (p + q) / 2
    bits: NDArray[np.float64] = (rel_entr(p, middle) + rel_entr(q, middle)).sum(1) / (2 * np.log(2))
    return bits


def _new_company(own: Sequence[_Occurrence], recent: Sequence[_Occurrence]) -> tuple[str, ...]:
    """The neighbours whose share of the uses rose most, of those that enough members use beside the word."""
    members: defaultdict[str, set[str]] = defaultdict(set)
    for one in recent:
        for neighbour in one.company:
            members[neighbour].add(one.member)
    now = Counter(neighbour for one in recent for neighbour in one.company)
    ever = Counter(neighbour for one in own for neighbour in one.company)

    def rise(neighbour: str) -> float:
        return now[neighbour] / len(recent) - (ever[neighbour] - now[neighbour]) / (len(own) - len(recent))

    widely = [neighbour for neighbour, who in members.items() if len(who) >= MIN_MEMBERS and rise(neighbour) > 0]
    return tuple(sorted(widely, key=lambda neighbour: (-rise(neighbour), neighbour))[:SHOWN])
