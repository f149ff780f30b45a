"""What of the eligible examples is worth learning from, and why each other one is not. Pure and deterministic."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from sys import intern

from rensa import RMinHash, RMinHashDeduplicator

from nocap.domain import MemberKey, MessageKey
from nocap.settings import RetrainSettings
from nocap.text.lexicon import Lexicon
from nocap.text.tokens import words
from retrain._language import LanguageFilter
from retrain._planted import planted_texts
from retrain._text_rules import text_fault
from retrain.examples import DropReason, Example

SHORT_REPLY_WORDS = 3
"""Replies of up to so many words ("fr fr", "no way") are said again and again by everybody."""
SHINGLE_WORDS = 3
NEAR_DUPLICATE_WORDS = 8
"""Shorter replies are alike by chance."""
NEAR_DUPLICATE_JACCARD = 0.8
PERMUTATIONS = 64
HASHED_AT_ONCE = 10_000
"""Replies whose shingles are held in memory together."""
FAIR_SHARES = 2.0
"""In a small community even shares exceed the cap on tokens; up to twice an even share is always allowed."""
MARKED_WEIGHT = 1.5
FRAGMENT_WEIGHT = 1.25
FRAGMENT_WORDS = 8
BAND_Z = 1.28
"""A natural share's upper end is its 90 % binomial bound, as in the marker-band gate."""
MIN_TERM_USES = 20
"""Below, a term's share is noise."""

_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*\s*$")


@dataclass(frozen=True, slots=True)
class CurationRules:
    """The numbers that an operator may change; the defaults are those of the settings."""

    max_examples_per_member: int = 10
    max_token_share_per_member: float = 0.005
    """Of all replies' tokens."""
    min_members_for_rare_ngram: int = 3
    max_examples_of_rare_ngram: int = 5
    max_short_repeats: int = 20
    """How often the pool may hold the same short reply."""
    seed: int = 7

    @classmethod
    def of(cls, settings: RetrainSettings) -> CurationRules:
        return cls(
            max_examples_per_member=settings.max_examples_per_member,
            max_token_share_per_member=settings.max_token_share_per_member,
            min_members_for_rare_ngram=settings.min_members_for_rare_ngram,
            seed=settings.seed,
        )


@dataclass(frozen=True)
class Curated:
    kept: tuple[Example, ...]
    """In the order in which they were given."""
    reasons: Mapping[int, DropReason]
    """By position among the examples that were given."""

    @property
    def dropped(self) -> dict[DropReason, int]:
        return dict(Counter(self.reasons.values()))


class _Pool:
    """The examples, and who has fallen out for what; rules see only what is still in."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self.examples = examples
        self.tokens = [[intern(word) for word in words(example.reply.casefold())] for example in examples]
        """Of each reply; a word that is said a thousand times is held once."""
        self.reasons: dict[int, DropReason] = {}

    def left(self) -> list[int]:
        return [index for index in range(len(self.examples)) if index not in self.reasons]

    def drop(self, indexes: Iterable[int], reason: DropReason) -> None:
        for index in indexes:
            self.reasons.setdefault(index, reason)

    def curated(self) -> Curated:
        return Curated(tuple(self.examples[index] for index in self.left()), dict(sorted(self.reasons.items())))


def curate_texts(examples: Sequence[Example]) -> Curated:
    """`examples` without those whose own words keep them out: what human replies are measured on, too."""
    pool = _Pool(examples)
    _drop_by_text(pool)
    return pool.curated()


def curate(
    examples: Sequence[Example],
    rules: CurationRules,
    lexicon: Lexicon,
    newcomers: Collection[MemberKey] = frozenset(),
) -> Curated:
    """The examples to train on; `lexicon` holds the voice's markers, `newcomers` are members not trusted yet.

    The poisoning defence counts over all that was said, before anything else could thin out what it looks for.
    """
    pool = _Pool(examples)
    poisoned = _planted(pool, rules, newcomers)
    _drop_by_text(pool)
    pool.drop(poisoned, DropReason.RARE_NGRAM)
    pool.drop(_repeats(pool, rules), DropReason.DUPLICATE)
    pool.drop(_near_duplicates(pool, rules), DropReason.NEAR_DUPLICATE)
    marks = {index: lexicon.count(examples[index].reply) for index in pool.left()}
    natural = _NaturalUse.of(examples, marks)
    _drop_over_caps(pool, rules, marks)
    pool.drop(_marker_surplus(pool, marks, natural, rules), DropReason.MARKER_SURPLUS)
    return pool.curated()


def _drop_by_text(pool: _Pool) -> None:
    for index, example in enumerate(pool.examples):
        if (fault := text_fault(example)) is not None:
            pool.drop([index], fault)
    left = pool.left()
    replies = [pool.examples[index].reply for index in left]
    tokenized = [pool.tokens[index] for index in left]
    language = LanguageFilter(replies, tokenized)
    foreign = map(language.is_foreign, replies, tokenized)
    pool.drop(compress(left, foreign), DropReason.LANGUAGE)


def _planted(pool: _Pool, rules: CurationRules, newcomers: Collection[MemberKey]) -> list[int]:
    """The examples that hold an n-gram which looks planted: repeated, but by too few members.

    A backdoor needs tens of examples with one trigger, and the trigger hides in the context while the payload is
    the reply: both are looked through, each on its own, and whoever replied is the one who used it.
    """
    limits = rules.max_examples_of_rare_ngram, rules.min_members_for_rare_ngram
    replies: defaultdict[str, list[str]] = defaultdict(list)
    for example in pool.examples:
        replies[example.reply].append(example.member)
    planted_replies = planted_texts(replies, *limits, newcomers)
    planted_turns = planted_texts(_turn_users(pool.examples), *limits, newcomers)
    return [
        index
        for index, example in enumerate(pool.examples)
        if example.reply in planted_replies or any(turn.content in planted_turns for turn in example.messages)
    ]


def _turn_users(examples: Sequence[Example]) -> Mapping[str, Sequence[str]]:
    """Who used the words of which turn: once for each example that answers it, else once in all.

    The contexts of a conversation's examples overlap; counted in each of them, two members' talk would look planted.
    """
    users: defaultdict[str, list[str]] = defaultdict(list)
    for example in examples:
        users[example.prompt].append(example.member)
    counted = {example.turn_keys[-1] for example in examples if example.turn_keys}
    for example in examples:
        keys = example.turn_keys or tuple(MessageKey(f"{example.key}/{turn}") for turn in range(len(example.messages)))
        for turn, key in zip(example.messages[:-1], keys[:-1], strict=True):
            if key not in counted:
                counted.add(key)
                users[turn.content].append(example.member)
            else:
                users.setdefault(turn.content, [])
    return users


def _repeats(pool: _Pool, rules: CurationRules) -> list[int]:
    """Replies said before in the same words: every one of a long reply, the surplus of a short one."""
    said: Counter[tuple[str, ...]] = Counter()
    repeats = []
    for index in pool.left():
        tokens = tuple(pool.tokens[index])
        allowed = rules.max_short_repeats if len(tokens) <= SHORT_REPLY_WORDS else 1
        said[tokens] += 1
        if said[tokens] > allowed:
            repeats.append(index)
    return repeats


def _near_duplicates(pool: _Pool, rules: CurationRules) -> list[int]:
    """Replies whose three-word shingles are nearly those of an earlier one (MinHash, Broder 1997)."""
    long = [index for index in pool.left() if len(pool.tokens[index]) >= NEAR_DUPLICATE_WORDS]
    seen = RMinHashDeduplicator(NEAR_DUPLICATE_JACCARD, PERMUTATIONS, True, num_bands=16, seed=rules.seed)
    alike = []
    for start in range(0, len(long), HASHED_AT_ONCE):
        some = long[start : start + HASHED_AT_ONCE]
        hashes = RMinHash.from_token_sets([_shingles(pool.tokens[index]) for index in some], PERMUTATIONS, rules.seed)
        is_new = seen.add_pairs([(str(index), found) for index, found in zip(some, hashes, strict=True)])
        alike += [index for index, new in zip(some, is_new, strict=True) if not new]
    return alike


def _shingles(tokens: Sequence[str]) -> list[str]:
    return [" ".join(tokens[start : start + SHINGLE_WORDS]) for start in range(len(tokens) - SHINGLE_WORDS + 1)]


def _drop_over_caps(pool: _Pool, rules: CurationRules, marks: Mapping[int, Mapping[str, int]]) -> None:
    """Keeps each member's most telling examples within the caps on their number and on their tokens."""
    sizes = {index: len(pool.tokens[index]) for index in pool.left()}
    by_key = {pool.examples[index].key: index for index in sizes}
    weights = {key: _typicality(pool.examples[index], marks[index]) for key, index in by_key.items()}
    by_member: defaultdict[MemberKey, list[int]] = defaultdict(list)
    for key in weighted_order(weights, f"member cap {rules.seed}"):
        by_member[pool.examples[by_key[key]].member].append(by_key[key])
    share = max(rules.max_token_share_per_member, FAIR_SHARES / max(1, len(by_member)))
    max_tokens = share * sum(sizes.values())
    for indexes in by_member.values():
        pool.drop(indexes[rules.max_examples_per_member :], DropReason.MEMBER_CAP)
        total = 0
        for position, index in enumerate(indexes[: rules.max_examples_per_member]):
            total += sizes[index]
            if position > 0 and total > max_tokens:
                total -= sizes[index]
                pool.drop([index], DropReason.TOKEN_CAP)


def weighted_order(weights: Mapping[MessageKey, float], lot: str) -> list[MessageKey]:
    """The keys in a random order in which heavier ones tend to come first (Efraimidis and Spirakis 2006).

    Each choice draws a `lot` of its own: what one choice kept would otherwise win the next one too.
    """
    return sorted(weights, key=lambda key: math.log(-math.log(uniform(lot, key))) - math.log(weights[key]))


def _typicality(example: Example, marks: Mapping[str, int]) -> float:
    """A mild preference for what the founding experiment sampled by: markers, and fragments of sentences."""
    weight = MARKED_WEIGHT if marks else 1.0
    return weight * FRAGMENT_WEIGHT if is_fragment(example.reply) else weight


def is_fragment(reply: str) -> bool:
    """Whether `reply` is chat's short half-sentence rather than a full stop-to-stop one."""
    return len(reply.split()) <= FRAGMENT_WORDS and not _SENTENCE_END.search(reply)


def uniform(lot: str, key: str) -> float:
    """A number in (0, 1) that depends on nothing but `lot` and `key`."""
    digest = hashlib.blake2b(f"{lot}:{key}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") + 0.5) / 2**64


@dataclass(frozen=True)
class _NaturalUse:
    """How the community uses markers by itself: every member counts once, however much they write."""

    marked_share: float
    """Share of replies with at least one marker."""
    term_shares: Mapping[str, float]
    """Share of each term in all uses of markers."""

    @classmethod
    def of(cls, examples: Sequence[Example], marks: Mapping[int, Mapping[str, int]]) -> _NaturalUse:
        marked: defaultdict[MemberKey, list[bool]] = defaultdict(list)
        uses: defaultdict[MemberKey, Counter[str]] = defaultdict(Counter)
        for index, counts in marks.items():
            marked[examples[index].member].append(bool(counts))
            if counts:
                uses[examples[index].member].update(counts)
        shares: defaultdict[str, float] = defaultdict(float)
        for counts in uses.values():
            for term, count in counts.items():
                shares[term] += count / counts.total() / len(uses)
        mean = sum(sum(flags) / len(flags) for flags in marked.values()) / max(1, len(marked))
        return cls(mean, shares)


def _marker_surplus(
    pool: _Pool, marks: Mapping[int, Mapping[str, int]], natural: _NaturalUse, rules: CurationRules
) -> list[int]:
    """What must go so that neither markers as such nor any one of them are more frequent than is natural.

    Which of the marked replies go is by lot: to drop those with the most markers first taught a voice a fifth more
    mute than the members are (docs/log.md).
    """
    left = pool.left()
    marked = sorted(
        (index for index in left if marks[index]),
        key=lambda index: uniform(f"marker surplus {rules.seed}", pool.examples[index].key),
    )
    unmarked = len(left) - len(marked)
    allowed = int(_allowed_beside(unmarked, natural.marked_share, len(left)))
    return marked[allowed:] + _term_surplus(marked[:allowed], marks, natural.term_shares)


def _term_surplus(
    indexes: Sequence[int], marks: Mapping[int, Mapping[str, int]], natural_shares: Mapping[str, float]
) -> list[int]:
    uses: Counter[str] = Counter()
    for index in indexes:
        uses.update(marks[index])
    total = uses.total()
    allowed = {
        term: max(MIN_TERM_USES, _allowed_beside(total - count, natural_shares[term], total))
        for term, count in uses.items()
    }
    used: Counter[str] = Counter()
    surplus = []
    for index in indexes:
        if any(used[term] + count > allowed[term] for term, count in marks[index].items()):
            surplus.append(index)
        else:
            used.update(marks[index])
    return surplus


def _allowed_beside(others: int, share: float, count: int) -> float:
    """How many there may be beside `others` for their share to stay within the natural one's band at `count`."""
    limit = share + BAND_Z * math.sqrt(share * (1 - share) / max(1, count))
    return others * limit / (1 - limit) if limit < 1 else count
