"""Fresh slang: terms that many members have lately begun to use, and how often known terms are used."""

from __future__ import annotations

import math
import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np
from scipy.stats import binom
from sqlmodel import Session

from nocap.domain import ChannelKey, MemberKey
from nocap.text.lexicon import Lexicon
from nocap.text.scrub import PLACEHOLDERS
from nocap.text.tokens import words
from retrain._ngrams import Flags, Grams, Integers, TokenStream, distinct_values, frequent_grams
from retrain._spelling import Spelling
from storage.eligibility import EligibilityQuery, eligible_fields
from storage.slang import TermFinding, WeeklyUse, week_of
from storage.tables import Message

RECENT = timedelta(weeks=2)
BACKGROUND = timedelta(weeks=12)
FRESHNESS_SPAN = timedelta(weeks=12)
EXPIRES_AFTER = timedelta(weeks=8)
"""A term that nobody has used for so long leaves the glossary."""
MIN_SCORE = 3.0
CHANCE_FINDS = 0.05
"""Of all n-grams of one length that enough members use, so many may pass by chance: at a handful of uses the z score
alone lets a dozen a year through."""
MIN_MEMBERS = 5
MIN_CHANNELS = 2
MIN_DAYS = 3
"""Distinct days of use in the last two weeks: an evening's event is not slang."""
MIN_BURST = 2.0
"""How many times the background's rate."""
NEWEST_DAYS = 7
MIN_SLOPE = 0.5
"""The newest week's uses over those of the week before; below, the burst is over already."""
LONGEST_NGRAM = 4
PRIOR_SHARE = 0.1
"""Weight of the Dirichlet prior against the data; a tenth finds new terms earliest."""
ABSORBING_SHARE = 0.7
"""A phrase used this often whenever its part is used is the term, and its part is not."""
MIN_LIFT = 20.0
"""How many times likelier than by chance a phrase's words must meet; "to apply" is below, "no cap" far above."""
NAME_SHARE = 0.6
MIN_NAME_USES = 3

_COMMAND = re.compile(r"\s*[/!][a-zA-Z]\w")
_BREAK = re.compile(r"([.!?…;:,()\"“”\n]+)")
_SENTENCE_ENDS = ".!?…:\n"


class Use(NamedTuple):
    """One message, as far as slang is concerned."""

    member: MemberKey
    channel: ChannelKey
    sent_at: datetime
    text: str


def uses_of(session: Session, query: EligibilityQuery) -> Iterator[Use]:
    """What may be used of the voice's messages, row by row from the database."""
    for row in eligible_fields(session, query, Message.member, Message.channel, Message.sent_at, Message.text):
        yield Use(MemberKey(row.member), ChannelKey(row.channel), row.sent_at, row.text)


def find_terms(uses: Iterable[Use], as_of: datetime, known: Collection[str] = ()) -> list[TermFinding]:
    """Terms that are new or rising at `as_of`, best first, then what became of the `known` ones.

    A new term stands out in the last two weeks against the twelve before (weighted log-odds with an informative
    Dirichlet prior, Monroe et al. 2008, z > 3, and more than chance would make it; a member counts once a day), is
    used by at least 5 members in at least 2 channels, and its rate rises. Known terms are reported if 5 members used
    them in those 14 weeks.
    """
    since = as_of - RECENT - BACKGROUND
    wanted = [use for use in uses if since <= use.sent_at < as_of and not _COMMAND.match(use.text)]
    if not wanted:
        return []
    corpus = _Corpus(wanted, as_of)
    familiar = {corpus.spelled(words(term)) for term in known}
    around = [term for term in corpus.candidates() if familiar.isdisjoint(_parts(term.spelled))]
    candidates = [term for term in _collapsed(around) if term.spelled not in familiar]
    fresh = [corpus.finding(term.display, term.messages) for term in candidates]
    fresh.sort(key=lambda finding: (-finding.score, finding.term))
    return fresh + corpus.known_findings(known)


def term_rates(lexicon: Lexicon, texts_by_member: Mapping[MemberKey, Iterable[str]]) -> dict[str, float]:
    """How often the members use each term of the lexicon, per 1,000 tokens of all that they wrote."""
    uses: Counter[str] = Counter()
    tokens = 0
    for texts in texts_by_member.values():
        for text in texts:
            uses.update(lexicon.count(text))
            tokens += len(words(text))
    return {term: 1_000 * uses[term] / max(1, tokens) for term in lexicon.terms}


def weekly_rates(lexicon: Lexicon, uses: Iterable[Use]) -> dict[str, dict[datetime, float]]:
    """`term_rates` of each week that has messages, by the moment at which the week begins."""
    weeks: defaultdict[datetime, defaultdict[MemberKey, list[str]]] = defaultdict(lambda: defaultdict(list))
    for use in uses:
        weeks[week_of(use.sent_at)][use.member].append(use.text)
    rates = {week: term_rates(lexicon, texts) for week, texts in sorted(weeks.items())}
    return {term: {week: of_week[term] for week, of_week in rates.items()} for term in lexicon.terms}


def log_odds_score(recent: float, recent_total: float, before: float, before_total: float) -> float:
    """The z score of a term's rise from `before` to `recent` uses, out of as many tokens in all."""
    prior = PRIOR_SHARE * (recent + before)
    if prior == 0:
        return 0.0
    rise = log_odds_rise(recent, recent_total, before, before_total)
    return rise / math.sqrt(1 / (recent + prior) + 1 / (before + prior))


def log_odds_rise(recent: float, recent_total: float, before: float, before_total: float) -> float:
    """The natural logarithm of how many times a term's odds have grown, shrunk by the prior; it needs one use."""
    prior, total = PRIOR_SHARE * (recent + before), PRIOR_SHARE * (recent_total + before_total)
    return _log_odds(recent + prior, recent_total + total) - _log_odds(before + prior, before_total + total)


def _log_odds(uses: float, total: float) -> float:
    return math.log(uses) - math.log(max(total - uses, 1e-9))


@dataclass(frozen=True)
class _Candidate:
    spelled: tuple[str, ...]
    """Plain spellings of its tokens."""
    display: str
    messages: tuple[int, ...]
    """Which of the corpus's messages use it, once per use."""
    recent_uses: int


class _Corpus:
    """Fourteen weeks of messages as token streams, with who wrote each token, where and when."""

    def __init__(self, uses: Sequence[Use], as_of: datetime) -> None:
        self._uses = uses
        self._as_of = as_of
        owner, opens = array("q"), array("b")

        def tokens_of_pieces() -> Iterator[list[str]]:
            for piece in _pieces(uses):
                owner.append(piece.message)
                opens.append(piece.opens_sentence)
                yield piece.tokens

        self._surface = TokenStream.of(tokens_of_pieces())
        self._spelling = Spelling(self._surface.counts())
        self._stream = self._surface.respelled(self._spelling.plain)
        self._owner = np.array(owner, dtype=np.int64)
        self._opens_sentence: Flags = np.array(opens, dtype=np.bool_)
        _, self._member = np.unique([use.member for use in uses], return_inverse=True)
        _, self._channel = np.unique([use.channel for use in uses], return_inverse=True)
        self._day = np.array([(use.sent_at - as_of).days for use in uses], dtype=np.int64)
        self._day -= self._day.min()
        self._is_recent: Flags = np.array([use.sent_at >= as_of - RECENT for use in uses], dtype=np.bool_)
        lengths = np.bincount(self._owner[self._stream.texts], minlength=len(uses))
        self._recent_total = int(lengths[self._is_recent].sum())
        self._before_total = int(lengths[~self._is_recent].sum())
        self._messages_of_week = Counter(week_of(use.sent_at) for use in uses)

    def spelled(self, tokens: Iterable[str]) -> tuple[str, ...]:
        return tuple(self._spelling.plain(token) for token in tokens)

    def candidates(self) -> Iterator[_Candidate]:
        """Every n-gram that is new or rising enough; parts and wholes alike."""
        weights = self._is_recent[self._owner].astype(np.int64)
        uses_of_part = uses_of_word = np.zeros(0, dtype=np.int64)
        for grams in frequent_grams(self._stream, weights, min_weight=MIN_MEMBERS, longest=LONGEST_NGRAM):
            rising = grams.keep(self._rising(grams))
            for starts, pieces in _by_code(rising):
                spelled = self._stream.spell(int(starts[0]), grams.length)
                if not all(map(_is_word, spelled)) or self._is_name(starts, grams.length):
                    continue
                if grams.length == 1 or self._lift(starts, grams.length, uses_of_word, uses_of_part) >= MIN_LIFT:
                    yield self._candidate(spelled, starts, pieces)
            uses_of_part = self._uses_at(grams)
            uses_of_word = uses_of_part if grams.length == 1 else uses_of_word

    def _uses_at(self, grams: Grams) -> Integers:
        """For each token of the stream, how often the n-gram that begins there is used."""
        uses = np.bincount(grams.codes, minlength=grams.distinct)
        at = np.zeros(len(self._stream.tokens), dtype=np.int64)
        at[grams.starts] = uses[grams.codes]
        return at

    def _lift(self, starts: Integers, length: int, uses_of_word: Integers, uses_of_part: Integers) -> float:
        """How many times likelier the phrase is than its first or its last word meeting the rest by chance."""
        start = int(starts[0])
        front = int(uses_of_word[start]) * int(uses_of_part[start + 1])
        back = int(uses_of_part[start]) * int(uses_of_word[start + length - 1])
        return len(starts) * len(self._stream.tokens) / max(front, back)

    def _candidate(self, spelled: tuple[str, ...], starts: Integers, pieces: Integers) -> _Candidate:
        owners = self._owner[pieces]
        forms = Counter(" ".join(self._surface.spell(start, len(spelled))) for start in starts.tolist())
        display = max(forms, key=lambda form: (forms[form], form.islower(), form))
        return _Candidate(spelled, display, tuple(owners.tolist()), int(self._is_recent[owners].sum()))

    def _rising(self, grams: Grams) -> Flags:
        """For each n-gram code, whether it meets every threshold."""
        recent = self._is_recent[self._owner[grams.texts]]
        widely = self._distinct(grams, recent, self._member) >= MIN_MEMBERS
        widely &= self._distinct(grams, recent, self._channel) >= MIN_CHANNELS
        widely &= self._distinct(grams, recent, self._day) >= MIN_DAYS
        wide = grams.keep(widely)
        age = self._day.max() - self._day[self._owner[wide.texts]]
        recent = self._is_recent[self._owner[wide.texts]]
        member_days = self._member * (int(self._day.max()) + 1) + self._day
        now, before = (self._distinct(wide, chosen, member_days) for chosen in (recent, ~recent))
        newest = self._distinct(wide, age < NEWEST_DAYS, member_days)
        by_chance = binom.sf(now - 1, now + before, self._recent_total / (self._recent_total + self._before_total))
        surprising = widely & (by_chance < CHANCE_FINDS / max(1, int(widely.sum())))
        flags = np.zeros(grams.distinct, dtype=np.bool_)
        for code in np.flatnonzero(surprising).tolist():
            fades = newest[code] < MIN_SLOPE * (now[code] - newest[code])
            flags[code] = not fades and self._is_rise(int(now[code]), int(before[code]))
        return flags

    def _distinct(self, grams: Grams, chosen: Flags, labels: Integers) -> Integers:
        """For each code, among how many of the messages' distinct `labels` its chosen occurrences fall."""
        width = int(labels.max()) + 1
        pairs = distinct_values(grams.codes[chosen] * width + labels[self._owner[grams.texts[chosen]]])
        return np.bincount(pairs // width, minlength=grams.distinct)

    def _is_rise(self, now: int, before: int) -> bool:
        expected = before * self._recent_total / max(1, self._before_total)
        return now >= MIN_BURST * expected and self._score(now, before) > MIN_SCORE

    def _score(self, now: float, before: float) -> float:
        return log_odds_score(now, self._recent_total, before, self._before_total)

    def _is_name(self, starts: Integers, length: int) -> bool:
        """Whether its words are written as names and abbreviations are, where no sentence begins."""
        pieces = self._stream.texts[starts]
        opens = (starts == 0) | (pieces != self._stream.texts[starts - 1])
        inside = starts[~(opens & self._opens_sentence[pieces])]
        forms = [self._surface.spell(start, length) for start in inside.tolist()]
        names = sum(all(word[:1].isupper() for word in form) for form in forms)
        return len(forms) >= MIN_NAME_USES and names >= NAME_SHARE * len(forms)

    def known_findings(self, known: Collection[str]) -> list[TermFinding]:
        lexicon = Lexicon(sorted(known))
        messages: defaultdict[str, list[int]] = defaultdict(list)
        for index, use in enumerate(self._uses):
            for term, count in lexicon.count(use.text).items():
                messages[term] += [index] * count
        return [
            self.finding(term, indexes)
            for term, indexes in sorted(messages.items())
            if len({self._uses[index].member for index in indexes}) >= MIN_MEMBERS
        ]

    def finding(self, term: str, messages: Sequence[int]) -> TermFinding:
        """The figures of `term`, used in `messages` (once per use)."""
        used = [self._uses[index] for index in messages]
        member_days = Counter(
            recent for _, _, recent in {(self._member[i], self._day[i], bool(self._is_recent[i])) for i in messages}
        )
        moments = [use.sent_at for use in used]
        lately = sum(moment >= self._as_of - FRESHNESS_SPAN for moment in moments)
        recent_uses = sum(moment >= self._as_of - RECENT for moment in moments)
        return TermFinding(
            term=term,
            score=self._score(member_days[True], member_days[False]),
            first_seen=min(moments),
            last_seen=max(moments),
            freshness=recent_uses / lately if lately else 0.0,
            expires_at=max(moments) + EXPIRES_AFTER,
            weekly=self._weekly(used),
        )

    def _weekly(self, used: Iterable[Use]) -> tuple[WeeklyUse, ...]:
        """The weeks in which enough members used the term: fewer could be one person's words."""
        weeks: defaultdict[datetime, list[MemberKey]] = defaultdict(list)
        for use in used:
            weeks[week_of(use.sent_at)].append(use.member)
        return tuple(
            WeeklyUse(week, len(members), len(set(members)), self._messages_of_week[week])
            for week, members in sorted(weeks.items())
            if len(set(members)) >= MIN_MEMBERS
        )


class _Piece(NamedTuple):
    """A stretch of text that no punctuation interrupts."""

    tokens: list[str]
    message: int
    opens_sentence: bool


def _pieces(uses: Iterable[Use]) -> Iterator[_Piece]:
    for message, use in enumerate(uses):
        stretches = _BREAK.split(use.text)
        for position in range(0, len(stretches), 2):
            if tokens := words(stretches[position]):
                before = stretches[position - 1] if position else "."
                yield _Piece(tokens, message, any(mark in before for mark in _SENTENCE_ENDS))


def _by_code(grams: Grams) -> Iterator[tuple[Integers, Integers]]:
    """The starts and the texts of each n-gram's occurrences."""
    order = np.argsort(grams.codes, kind="stable")
    bounds = np.flatnonzero(np.diff(grams.codes[order])) + 1
    for chosen in np.split(order, bounds) if len(order) else []:
        yield grams.starts[chosen], grams.texts[chosen]


def _is_word(token: str) -> bool:
    """Not a placeholder, not a number, and not a mere letter."""
    if token in PLACEHOLDERS or any(character.isdigit() for character in token):
        return False
    return len(token) > 1 or not token.isalpha()


def _collapsed(candidates: Sequence[_Candidate]) -> list[_Candidate]:
    """One term for phrases that contain each other: the longer one where it is what is nearly always said."""
    found = {term.spelled: term for term in candidates}
    absorbed: set[tuple[str, ...]] = set()
    for whole in candidates:
        for part in _parts(whole.spelled):
            if part in found:
                longer_wins = whole.recent_uses >= ABSORBING_SHARE * found[part].recent_uses
                absorbed.add(part if longer_wins else whole.spelled)
    return [term for term in candidates if term.spelled not in absorbed]


def _parts(spelled: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Every shorter run of its tokens."""
    for length in range(1, len(spelled)):
        yield from (spelled[start : start + length] for start in range(len(spelled) - length + 1))
