"""What votes and duels teach: one label a voted answer, one pair a decided duel, and why each other vote counts not.

Pure and deterministic. Who may be looked at is decided in `storage.eligibility`.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Generic, TypeVar

from nocap.domain import ChatMessage, DuelChoice, MemberKey, MessageKey, Provenance, Vote
from nocap.settings import PreferenceSettings
from retrain._text_rules import text_fault
from retrain.curate import uniform
from retrain.examples import Example
from storage.bursts import in_bursts
from storage.crypto import Keyring
from storage.eligibility import Ballot
from storage.tables import Duel, Reply

MIN_CLASS_SHARE = 0.05
"""KTO learns nothing from labels of one kind."""
BALANCED = (1.0, 4 / 3)
"""Desirable to undesirable, weighted (Ethayarajh et al. 2024, eq. 8)."""

SIDES = {
    Vote.UP: 1,
    Vote.DOWN: -1,
    Vote.CRINGE: -1,
    DuelChoice.LEFT: 1,
    DuelChoice.RIGHT: -1,
    DuelChoice.TIE: 0,
    DuelChoice.BOTH_BAD: 0,
}


class VoteFault(StrEnum):
    """Why a vote, or the answer that it was given on, teaches nothing; looked for in this order."""

    NOT_ELIGIBLE = "not_eligible"
    NOT_SERVED = "not_served"
    HELD_OUT_ROW = "held_out_row"
    QUARANTINED = "quarantined"
    NEW_ACCOUNT = "new_account"
    BURST = "burst"
    OWN_PROMPT = "own_prompt"
    VOTER_CAP = "voter_cap"
    TEXT = "text"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Thumb:
    """An answer of the bot that members found good or bad."""

    reply_id: int
    example: Example
    is_good: bool


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one prompt of which members preferred one."""

    duel_id: int
    chosen: Example
    rejected: str
    left_won: bool


@dataclass(frozen=True)
class Preferences:
    thumbs: tuple[Thumb, ...] = ()
    pairs: tuple[Pair, ...] = ()
    votes_dropped: Mapping[str, int] = field(default_factory=dict)
    """Votes by `VoteFault`, and under `too_few` those of a kind for which there were too few."""


@dataclass(frozen=True)
class Scope:
    """What the votes are looked at with."""

    as_of: datetime
    served: Collection[str]
    """Adapters that are live, tried out, or a rollback away."""
    held_out: Collection[MessageKey]
    """Rows that judge the run, and so teach nothing."""
    quarantine: timedelta
    settings: PreferenceSettings
    seed: int


Answer = TypeVar("Answer", Reply, Duel)


class _Votes(Generic[Answer]):
    """Ballots on answers, and who has fallen out for what."""

    def __init__(self, answers: Iterable[Answer], ballots: Iterable[Ballot]) -> None:
        self.answers: dict[int, Answer] = {_id(answer): answer for answer in answers}
        self.left = list(ballots)
        self.dropped: Counter[str] = Counter()

    def keep(self, wanted: Callable[[Ballot], bool], fault: VoteFault) -> None:
        kept = [ballot for ballot in self.left if wanted(ballot)]
        self.dropped[fault] += len(self.left) - len(kept)
        self.left = kept

    def by_answer(self) -> dict[int, list[Ballot]]:
        found: defaultdict[int, list[Ballot]] = defaultdict(list)
        for ballot in self.left:
            found[ballot.answer_id].append(ballot)
        return dict(found)


def choose_thumbs(replies: Sequence[Reply], ballots: Sequence[Ballot], scope: Scope) -> Preferences:
    """One label for each voted reply, or none at all where too few members gave too few of both kinds."""
    votes = _Votes(replies, ballots)
    _keep_countable(votes, scope, lambda reply: reply.adapter in scope.served)
    thumbs: list[Thumb] = []
    voters: set[MemberKey] = set()
    for number, cast in votes.by_answer().items():
        side = _balance(cast)
        thumb = thumb_of(votes.answers[number], is_good=side > 0)
        if side == 0:
            votes.dropped[VoteFault.UNDECIDED] += len(cast)
        elif thumb is None or (thumb.is_good and text_fault(thumb.example)):
            votes.dropped[VoteFault.TEXT] += len(cast)
        else:
            thumbs.append(thumb)
            voters.update(ballot.member for ballot in cast)
    good = sum(thumb.is_good for thumb in thumbs)
    both_kinds = min(good, len(thumbs) - good) >= max(1, MIN_CLASS_SHARE * len(thumbs))
    enough = len(thumbs) >= scope.settings.min_labels and len(voters) >= scope.settings.min_members
    return _enough(Preferences(thumbs=tuple(thumbs)), votes.dropped, len(votes.left), both_kinds and enough)


def choose_pairs(duels: Sequence[Duel], ballots: Sequence[Ballot], scope: Scope) -> Preferences:
    """One pair for each decided duel, or none at all where too few members decided too few."""
    votes = _Votes(duels, ballots)
    _keep_countable(votes, scope, lambda duel: duel.left_adapter in scope.served or duel.right_adapter in scope.served)
    pairs: list[Pair] = []
    voters: set[MemberKey] = set()
    for number, cast in votes.by_answer().items():
        side = _balance(cast)
        pair = pair_of(votes.answers[number], left_won=side > 0)
        if side == 0:
            votes.dropped[VoteFault.UNDECIDED] += len(cast)
        elif pair is None or text_fault(pair.chosen):
            votes.dropped[VoteFault.TEXT] += len(cast)
        else:
            pairs.append(pair)
            voters.update(ballot.member for ballot in cast)
    enough = len(pairs) >= scope.settings.min_pairs and len(voters) >= scope.settings.min_members
    return _enough(Preferences(pairs=tuple(pairs)), votes.dropped, len(votes.left), enough)


def thumb_of(reply: Reply, *, is_good: bool) -> Thumb | None:
    """The label of a stored reply, or None where a text of it is gone."""
    example = _example(reply, reply.text)
    return Thumb(_id(reply), example, is_good) if example else None


def pair_of(duel: Duel, *, left_won: bool) -> Pair | None:
    """The pair of a stored duel, or None where a text of it is gone or both sides said the same."""
    texts = (duel.left_text, duel.right_text) if left_won else (duel.right_text, duel.left_text)
    chosen, rejected = _example(duel, texts[0]), (texts[1] or "").strip()
    return Pair(_id(duel), chosen, rejected, left_won) if chosen and rejected not in ("", chosen.reply) else None


def preference_entries(preferences: Preferences, keyring: Keyring) -> list[dict[str, Any]]:
    """What a snapshot records: ids, labels and keyed digests, no text."""
    thumbs = [
        ("thumb", one.reply_id, one.is_good, [one.example.member, one.example.prompt, one.example.reply])
        for one in preferences.thumbs
    ]
    pairs = [
        ("duel", one.duel_id, one.left_won, [one.chosen.member, one.chosen.prompt, one.chosen.reply, one.rejected])
        for one in preferences.pairs
    ]
    return [
        {"role": role, "id": number, "label": label, "digest": keyring.digest(json.dumps([role, number, label, texts]))}
        for role, number, label, texts in (*thumbs, *pairs)
    ]


def rebuilt_preferences(
    entries: Sequence[Mapping[str, Any]],
    replies: Mapping[int | None, Reply],
    duels: Mapping[int | None, Duel],
    votes_dropped: Mapping[str, int],
) -> Preferences | None:
    """The preferences of recorded `entries`; None where an answer of them may not be used any more."""
    if any(entry["id"] not in (replies if entry["role"] == "thumb" else duels) for entry in entries):
        return None
    thumbs = [thumb_of(replies[entry["id"]], is_good=entry["label"]) for entry in entries if entry["role"] == "thumb"]
    pairs = [pair_of(duels[entry["id"]], left_won=entry["label"]) for entry in entries if entry["role"] == "duel"]
    if None in thumbs or None in pairs:
        return None
    return Preferences(tuple(filter(None, thumbs)), tuple(filter(None, pairs)), votes_dropped)


def label_weights(thumbs: Sequence[Thumb]) -> tuple[float, float]:
    """KTO's weights of desirable and undesirable labels that bring the two to between 1:1 and 4:3."""
    good = sum(thumb.is_good for thumb in thumbs)
    ratio = good / max(1, len(thumbs) - good)
    if ratio > BALANCED[1]:
        return 1.0, ratio / BALANCED[1]
    return (1.0, 1.0) if ratio >= BALANCED[0] else (BALANCED[0] / ratio, 1.0)


def _enough(found: Preferences, dropped: Counter[str], counted: int, is_enough: bool) -> Preferences:
    if is_enough:
        return Preferences(found.thumbs, found.pairs, dict(+dropped))
    used = counted - dropped[VoteFault.UNDECIDED] - dropped[VoteFault.TEXT]
    return Preferences(votes_dropped=dict(+(dropped + Counter({"too_few": used}))))


def _keep_countable(votes: _Votes[Answer], scope: Scope, is_served: Callable[[Answer], bool]) -> None:
    edge = scope.as_of - scope.quarantine
    trusted = timedelta(days=scope.settings.trusted_after_days)
    answers = votes.answers
    votes.keep(lambda one: one.answer_id in answers, VoteFault.NOT_ELIGIBLE)
    votes.keep(lambda one: is_served(answers[one.answer_id]), VoteFault.NOT_SERVED)
    votes.keep(lambda one: answers[one.answer_id].prompt_key not in scope.held_out, VoteFault.HELD_OUT_ROW)
    votes.keep(lambda one: max(one.at, answers[one.answer_id].at) <= edge, VoteFault.QUARANTINED)
    votes.keep(lambda one: one.at - one.known_since >= trusted, VoteFault.NEW_ACCOUNT)
    in_burst = _bursts(votes)
    votes.keep(lambda one: (one.answer_id, one.member) not in in_burst, VoteFault.BURST)
    of_own = [one for one in votes.left if answers[one.answer_id].prompt_member == one.member]
    over = _over_cap(of_own, 1, f"own prompts {scope.seed}")
    votes.keep(lambda one: (one.answer_id, one.member) not in over, VoteFault.OWN_PROMPT)
    over_cap = _over_cap(votes.left, scope.settings.max_votes_per_member, f"votes {scope.seed}")
    votes.keep(lambda one: (one.answer_id, one.member) not in over_cap, VoteFault.VOTER_CAP)


def _over_cap(ballots: Iterable[Ballot], cap: int, lot: str) -> set[tuple[int, MemberKey]]:
    by_member: defaultdict[MemberKey, list[Ballot]] = defaultdict(list)
    for ballot in sorted(ballots, key=lambda one: uniform(lot, f"{one.answer_id}/{one.member}")):
        by_member[ballot.member].append(ballot)
    return {(one.answer_id, one.member) for own in by_member.values() for one in own[cap:]}


def _bursts(votes: _Votes[Answer]) -> set[tuple[int, MemberKey]]:
    """Votes that fall, nearly all on one side, within an hour of a channel whose other votes are not like that."""
    channels: defaultdict[str, list[Ballot]] = defaultdict(list)
    for ballot in votes.left:
        if _side(ballot) != 0:
            channels[votes.answers[ballot.answer_id].channel].append(ballot)
    found: set[tuple[int, MemberKey]] = set()
    for ballots in channels.values():
        ballots.sort(key=lambda one: (one.at, one.answer_id, one.member))
        burst = in_bursts([(ballot.at, _side(ballot)) for ballot in ballots])
        found |= {(ballots[place].answer_id, ballots[place].member) for place in burst}
    return found


def _side(ballot: Ballot) -> int:
    return SIDES[ballot.choice]  # type: ignore[index]  # the enums' members are strings


def _balance(ballots: Iterable[Ballot]) -> int:
    return sum(map(_side, ballots))


def _example(answer: Reply | Duel, text: str | None) -> Example | None:
    """The answer as an example, or None where a part of it is empty."""
    prompt, reply = (answer.prompt or "").strip(), (text or "").strip()
    if not prompt or not reply:
        return None
    return Example(
        messages=(ChatMessage("user", prompt),),
        reply=reply,
        member=MemberKey(answer.prompt_member),
        sent_at=answer.at,
        message_keys=(MessageKey(answer.prompt_key or f"{type(answer).__name__.lower()}/{answer.id}"),),
        provenance=Provenance(answer.provenance),
    )


def _id(answer: Reply | Duel) -> int:
    assert answer.id is not None, "a stored row has its id"
    return answer.id
