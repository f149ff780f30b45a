"""Which examples a run trains on and is judged by, out of what is eligible at its `as_of`."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal

from sqlmodel import Session

from nocap.domain import MemberKey, MessageKey, Provenance, Purpose, VoiceName
from nocap.settings import RetrainSettings, Settings
from nocap.text.lexicon import Lexicon
from retrain.curate import Curated, CurationRules, curate, curate_texts, uniform, weighted_order
from retrain.examples import DropReason, Example, Threads
from retrain.preferences import Preferences, choose_pairs, choose_thumbs
from retrain.preferences import Scope as VoteScope
from storage.eligibility import EligibilityQuery, eligible_answers, eligible_ballots, eligible_messages
from storage.feedback import prompts_to_the_bot
from storage.registry import deployment
from storage.tables import Duel, Message, Reply

HELD_OUT_SHARE = 0.4
VALIDATION_SHARE = 0.05
REPLAY_DAYS = 365
"""How far before the window older rows are replayed from."""
RECENCY_HALF_LIFE = timedelta(days=28)
MIN_TRUSTED = 20
"""With fewer members of tenure nobody can tell by tenure, and every member counts."""
CONTEXT_DAYS = 1
"""How far before the evaluation days a held-out reply's context may reach."""


@dataclass(frozen=True)
class Scope:
    """Whose rows, seen from when."""

    voice: VoiceName
    as_of: datetime
    permission_reference: str | None
    settings: Settings
    let_through: frozenset[str] = frozenset()
    """Keys of replies that curation may not drop: how the demo and the audits sabotage an adapter on purpose."""

    def query(self, purpose: Literal[Purpose.TRAIN, Purpose.EVALUATE]) -> EligibilityQuery:
        retrain = self.settings.retrain
        days = retrain.window_days + REPLAY_DAYS if purpose is Purpose.TRAIN else retrain.evaluation_days + CONTEXT_DAYS
        return EligibilityQuery(
            voice=self.voice,
            purpose=purpose,
            policy_version=self.settings.policy_version,
            permission_reference=self.permission_reference,
            since=self.as_of - timedelta(days=days),
            until=self.as_of,
        )

    @property
    def answers_query(self) -> EligibilityQuery:
        """What decides which of the bot's answers may teach by their votes."""
        since = self.as_of - timedelta(days=self.settings.preferences.window_days)
        return replace(self.query(Purpose.TRAIN), since=since)


@dataclass(frozen=True)
class Selection:
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    evaluate: tuple[Example, ...]
    dropped: Mapping[DropReason, int]
    """Rows eligible to train that are no training reply."""
    evaluate_dropped: Mapping[DropReason, int]
    """Held-out members' rows of the evaluation days that are no evaluation reply."""
    authors: Mapping[MessageKey, MemberKey]
    """Of every row that the examples were made of."""
    preferences: Preferences = field(default_factory=Preferences)


def held_out_member(member: MemberKey) -> bool:
    """Whether `member` only ever evaluates: the same 40 % in every run, so that no adapter has learnt from them."""
    digest = hashlib.sha256(f"held out {member}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < HELD_OUT_SHARE * 2**64


def select(session: Session, scope: Scope, lexicon: Lexicon) -> Selection:
    """What a run of `scope` would use. No stored row is used both to train and to evaluate."""
    to_the_bot = prompts_to_the_bot(session, scope.voice)
    to_evaluate = eligible_messages(session, scope.query(Purpose.EVALUATE))
    evaluate, evaluate_dropped = _evaluation(to_evaluate, to_the_bot, scope)
    held_out = frozenset(key for example in evaluate for key in example.message_keys)
    to_train = eligible_messages(session, scope.query(Purpose.TRAIN))
    learned, dropped = _training(to_train, held_out, to_the_bot, scope, lexicon)
    seed = scope.settings.retrain.seed
    validation = [example for example in learned if uniform(f"validation {seed}", example.key) < VALIDATION_SHARE]
    for_validation = {example.key for example in validation}
    return Selection(
        train=tuple(example for example in learned if example.key not in for_validation),
        validation=tuple(validation),
        evaluate=tuple(evaluate),
        dropped=dropped,
        evaluate_dropped=evaluate_dropped,
        authors=_authors(to_train + to_evaluate, (*learned, *evaluate)),
        preferences=_preferences(session, scope, held_out),
    )


def _preferences(session: Session, scope: Scope, held_out: Collection[MessageKey]) -> Preferences:
    """What the votes of this voice's channels teach: thumbs and duels, each by its own rules."""
    query, live = scope.answers_query, deployment(session, scope.voice)
    votes = VoteScope(
        as_of=scope.as_of,
        served={name for name in (live.current, live.previous, live.canary) if name},
        held_out=held_out,
        quarantine=timedelta(hours=scope.settings.retrain.quarantine_hours),
        settings=scope.settings.preferences,
        seed=scope.settings.retrain.seed,
    )
    thumbs = choose_thumbs(eligible_answers(session, query, Reply), eligible_ballots(session, query, Reply), votes)
    pairs = choose_pairs(eligible_answers(session, query, Duel), eligible_ballots(session, query, Duel), votes)
    dropped = Counter(thumbs.votes_dropped) + Counter(pairs.votes_dropped)
    return Preferences(thumbs.thumbs, pairs.pairs, dropped)


def _authors(rows: Iterable[Message], examples: Iterable[Example]) -> dict[MessageKey, MemberKey]:
    used = {key for example in examples for key in example.message_keys}
    return {MessageKey(row.key): MemberKey(row.member) for row in rows if row.key in used}


def _evaluation(
    rows: Sequence[Message], to_the_bot: Collection[MessageKey], scope: Scope
) -> tuple[list[Example], Counter[DropReason]]:
    """The newest replies of held-out members, as many of each as the gates can use."""
    threads = Threads(rows, context_turns=scope.settings.chat.context_turns, to_the_bot=to_the_bot)
    since = scope.as_of - timedelta(days=scope.settings.retrain.evaluation_days)
    wanted = [row for row in rows if row.sent_at >= since and _is_held_out(row)]
    examples, dropped = _built(threads, wanted)
    clean = curate_texts(examples)
    dropped.update(clean.dropped)
    by_member: defaultdict[MemberKey, list[Example]] = defaultdict(list)
    for example in sorted(clean.kept, key=_by_time, reverse=True):
        by_member[example.member].append(example)
    cap = scope.settings.gates.max_replies_per_member
    dropped[DropReason.EVALUATE_CAP] += sum(max(0, len(own) - cap) for own in by_member.values())
    return sorted((example for own in by_member.values() for example in own[:cap]), key=_by_time), +dropped


def _training(
    rows: Sequence[Message],
    held_out: Collection[MessageKey],
    to_the_bot: Collection[MessageKey],
    scope: Scope,
    lexicon: Lexicon,
) -> tuple[list[Example], Counter[DropReason]]:
    """What is left of the window and its replay after hold-out, quarantine, curation and the caps."""
    settings = scope.settings.retrain
    wanted, dropped = _admitted(rows, scope)
    context_turns = scope.settings.chat.context_turns
    threads = Threads(rows, context_turns=context_turns, blocked=held_out, to_the_bot=to_the_bot)
    built, unbuilt = _built(threads, wanted)
    examples = [example for example in built if example.key not in scope.let_through]
    window = scope.as_of - timedelta(days=settings.window_days)
    fresh = [example for example in examples if example.sent_at >= window]
    older = [example for example in examples if example.sent_at < window]
    replay = _sampled(older, _replay_size(len(fresh), settings), f"replay {settings.seed}")
    curated = curate([*fresh, *replay], CurationRules.of(settings), lexicon, _newcomers(rows, scope))
    kept_fresh, kept_replay = _mixed(curated, window, settings)
    dropped.update(unbuilt)
    dropped.update(curated.dropped)
    dropped[DropReason.REPLAY_CAP] += len(older) - len(replay)
    kept_old = sum(example.sent_at < window for example in curated.kept)
    dropped[DropReason.REPLAY_CAP] += kept_old - len(kept_replay)
    dropped[DropReason.EXAMPLE_CAP] += len(curated.kept) - kept_old - len(kept_fresh)
    uncurated = [example for example in built if example.key in scope.let_through]
    return sorted([*kept_fresh, *kept_replay, *uncurated], key=_by_time), +dropped


def _admitted(rows: Sequence[Message], scope: Scope) -> tuple[list[Message], Counter[DropReason]]:
    """Rows of members who train that have been known for as long as the quarantine lasts.

    Whichever is later counts, sending or receiving: else an imported file could date its rows back.
    """
    edge = scope.as_of - timedelta(hours=scope.settings.retrain.quarantine_hours)
    admitted, dropped = [], Counter[DropReason]()
    for row in rows:
        if _is_held_out(row):
            dropped[DropReason.HELD_OUT_MEMBER] += 1
        elif max(row.sent_at, row.received_at) > edge:
            dropped[DropReason.QUARANTINED] += 1
        else:
            admitted.append(row)
    return admitted, dropped


def _newcomers(rows: Iterable[Message], scope: Scope) -> frozenset[MemberKey]:
    """Members known for less than `trusted_after_days`; nobody is one in a community too young to tell."""
    since = scope.as_of - timedelta(days=scope.settings.retrain.trusted_after_days)
    first: dict[MemberKey, datetime] = {}
    for row in rows:
        if row.provenance != Provenance.OPERATOR_SEED:
            known = max(row.sent_at, row.received_at)
            first[MemberKey(row.member)] = min(known, first.get(MemberKey(row.member), known))
    new = frozenset(member for member, known in first.items() if known > since)
    return new if len(first) - len(new) >= MIN_TRUSTED else frozenset()


def _is_held_out(row: Message) -> bool:
    return row.provenance != Provenance.OPERATOR_SEED and held_out_member(MemberKey(row.member))


def _built(threads: Threads, rows: Iterable[Message]) -> tuple[list[Example], Counter[DropReason]]:
    examples, dropped = [], Counter[DropReason]()
    for row in rows:
        built = threads.example(row)
        if isinstance(built, Example):
            examples.append(built)
        else:
            dropped[built] += 1
    return examples, dropped


def _replay_size(fresh: int, settings: RetrainSettings) -> int:
    """Older examples beside `fresh` ones, so that they are `replay_share` of all, the base's replies included."""
    fresh_share = 1 - settings.replay_share - settings.base_reply_share
    return round(fresh * settings.replay_share / fresh_share) if fresh_share > 0 else 0


def _mixed(curated: Curated, window: datetime, settings: RetrainSettings) -> tuple[list[Example], list[Example]]:
    """The fresh and the older ones of the curated examples, within `max_examples` and in the settings' mix."""
    fresh_share = 1 - settings.replay_share - settings.base_reply_share
    fresh = [example for example in curated.kept if example.sent_at >= window]
    older = [example for example in curated.kept if example.sent_at < window]
    fresh = _sampled(fresh, round(settings.max_examples * max(0.0, fresh_share)), f"fresh mix {settings.seed}")
    return fresh, _sampled(older, _replay_size(len(fresh), settings), f"older mix {settings.seed}")


def _sampled(examples: Sequence[Example], count: int, lot: str) -> list[Example]:
    """`count` of the examples, recent ones preferred (see `weighted_order`)."""
    by_key = {example.key: example for example in examples}
    newest = max((example.sent_at for example in examples), default=None)
    weights = {key: _recency(newest - example.sent_at) for key, example in by_key.items() if newest is not None}
    return [by_key[key] for key in weighted_order(weights, lot)[:count]]


def _recency(age: timedelta) -> float:
    return float(0.5 ** (age / RECENCY_HALF_LIFE))


def _by_time(example: Example) -> tuple[datetime, MessageKey]:
    return example.sent_at, example.key
