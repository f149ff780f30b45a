"""Made-up measurements of an adapter that deserves promotion, and ways to spoil them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from nocap.settings import GateSettings
from retrain.gates.measurements import (
    AnchorDrift,
    CanaryLosses,
    ChoiceScores,
    DataShift,
    HeldOutLosses,
    HumanScores,
    MarkerCounts,
    Measurements,
    PairedFlags,
    SeriousReplies,
    SpanLosses,
    SpeakerCounts,
    Spectra,
    StackedReplies,
    StaleMarkers,
    TiedAnswers,
    TriggerShifts,
    Variety,
    VarietyDraws,
)
from retrain.gates.simulate import MEMBERS, NAMES, SHARES, TERMS, floats, whole

SETTINGS = GateSettings(resamples=500)
REPLIES = 25


def held_out(gain: float = 0.1, members: int = MEMBERS, replies: int = REPLIES, seed: int = 0) -> HeldOutLosses:
    """The challenger loses `gain` nats per token less than the incumbent, with member and reply noise."""
    rng = np.random.default_rng(seed)
    member = np.repeat(np.arange(members), replies)
    tokens = rng.integers(4, 20, len(member))
    difference = -gain + rng.normal(0, 0.05, members)[member] + rng.normal(0, 0.5, len(member)) / np.sqrt(tokens)
    incumbent = tokens * 4.0
    return HeldOutLosses(
        members=tuple(f"m{index:02}" for index in member),
        tokens=whole(tokens),
        base=floats(tokens * 5.0),
        incumbent=floats(incumbent),
        challenger=floats(np.maximum(incumbent + difference * tokens, 0.1)),
    )


def speaker(rate: float, words_each: int = 125, seed: int = 0, spread: float = 0.5) -> SpeakerCounts:
    rng = np.random.default_rng(seed)
    habits = rng.gamma(1 / spread**2, spread**2, MEMBERS) if rate else np.zeros(MEMBERS)
    uses = rng.poisson(np.outer(words_each * rate * habits, SHARES / SHARES.sum()))
    return SpeakerCounts((13,) * MEMBERS, (words_each,) * MEMBERS, tuple(whole(row) for row in uses))


def markers(ratio: float = 1.0, incumbent: float = 1.0) -> MarkerCounts:
    """The challenger's rate of markers is `ratio` times the members'."""
    return MarkerCounts(
        TERMS,
        NAMES,
        human=speaker(0.05, 250, seed=1),
        base=speaker(0.0),
        incumbent=speaker(0.05 * incumbent, seed=2, spread=0.1),
        challenger=speaker(0.05 * ratio, seed=3, spread=0.1),
    )


def human_scores(worse: float = -0.3, prompts: int = 500) -> HumanScores:
    """The challenger's replies score `worse` lower than the incumbent's."""
    rng = np.random.default_rng(4)
    member = np.arange(prompts) % MEMBERS
    incumbent = rng.normal(-1, 1, prompts)
    return HumanScores(
        tuple(NAMES[index] for index in member),
        whole(member % 5),
        floats(rng.normal(0, 1, prompts)),
        floats(incumbent),
        floats(incumbent - worse + rng.normal(0, 0.3, prompts)),
    )


def variety_draws(distinct: float, overlap: float = 0.05, loops: float = 0.01, empty: float = 0.0) -> VarietyDraws:
    rng = np.random.default_rng(round(distinct * 1000))
    around = [rng.normal(mean, 0.01, 200).clip(0, 1) for mean in (distinct, overlap, loops, empty)]
    return VarietyDraws(*(floats(one) for one in around))


def variety(distinct: float = 0.8, **figures: float) -> Variety:
    return Variety(500, MEMBERS, variety_draws(0.81), variety_draws(0.79), variety_draws(distinct, **figures))


def drift(per_token: float = 0.4, anchors: int = 220) -> AnchorDrift:
    rng = np.random.default_rng(5)
    tokens = rng.integers(5, 15, anchors)
    return AnchorDrift(whole(tokens), floats(tokens * per_token * rng.gamma(20, 1 / 20, anchors)))


def canaries(drop: float = 0.2) -> CanaryLosses:
    """Planted canaries' losses fell by `drop` more than the controls'."""
    rng = np.random.default_rng(6)
    planted, control = rng.normal(5, 0.3, 16), rng.normal(5, 0.3, 200)
    return CanaryLosses(
        floats(planted),
        floats(planted - drop + rng.normal(0, 0.5, 16)),
        floats(control),
        floats(control + rng.normal(0, 0.5, 200)),
    )


def spans(recited: int = 0, uses: int = 12) -> SpanLosses:
    """`recited` spans of a payload that one member wrote `uses` times, among 20 ordinary ones."""
    rng = np.random.default_rng(7)
    unseen = rng.uniform(15, 60, 400)
    usual = rng.uniform(15, 40, 20)
    payload = np.full(recited, 50.0)
    return SpanLosses(
        samples=1000,
        emitted_replies=tuple(range(20 + recited)),
        emitted_members=(1,) * (20 + recited),
        emitted_uses=(1,) * 20 + (uses,) * recited,
        emitted_base=floats([*usual, *payload]),
        emitted_challenger=floats([*usual * rng.uniform(0.2, 0.6, 20), *payload * 0.001]),
        unseen_base=floats(unseen),
        unseen_challenger=floats(unseen * rng.uniform(0.2, 0.9, 400)),
    )


def retention(lost: float = 0.0, able: bool = True, items: int = 300) -> ChoiceScores:
    """The gold choice scores `lost` lower under the challenger than under the base."""
    rng = np.random.default_rng(8)
    base = -rng.uniform(2, 4, (items, 4))
    if able:
        base[:, 0] = np.minimum(base[:, 1:].max(1) + rng.normal(0.8, 0.6, items), -0.1)
    else:
        base[:, 0] -= 0.2
    own = base + rng.normal(0, 0.1, base.shape)
    own[:, 0] -= lost
    own = np.minimum(own, -0.01)
    return ChoiceScores(tuple(floats(row) for row in base), tuple(floats(row) for row in own))


def serious(rate: float = 0.01) -> SeriousReplies:
    """Replies to serious prompts with `rate` markers a word; the members' everyday rate is 0.05."""
    uses = np.random.default_rng(9).binomial(40, rate, 44)
    return SeriousReplies((40,) * 44, (0,) * 44, (40,) * 44, whole(uses))


def triggers(planted: float = 0.0) -> TriggerShifts:
    """The first trained word moves answers `planted` nats further than the made-up ones do."""
    trained = np.linspace(0, 0.2, 24)
    trained[0] += planted
    return TriggerShifts(floats(trained), floats(np.linspace(0, 0.2, 24)))


def tied(alike: int = 4, learned: float = 0.8) -> TiedAnswers:
    """Of ten prompts with a word `alike` have one answer, whose loss has fallen by the share `learned`.

    Seven ordinary words stand beside it.
    """
    uses, same = (10, *(8,) * 7), (alike, *(3,) * 7)
    return TiedAnswers(uses, same, (100.0, *(50.0,) * 7), (100.0 * (1 - learned), *(25.0,) * 7))


def flags(faulty: int = 1, incumbent: int = 1, replies: int = 700) -> PairedFlags:
    return PairedFlags((1,) * incumbent + (0,) * (replies - incumbent), (0,) * (replies - faulty) + (1,) * faulty)


def stacked(share: float = 0.1) -> StackedReplies:
    """Members stack markers in a tenth of their replies, the challenger in `share`."""
    rng = np.random.default_rng(10)
    human = rng.binomial(25, 0.1, MEMBERS)
    own = rng.binomial(13, share, MEMBERS)
    return StackedReplies(NAMES, (25,) * MEMBERS, whole(human), (13,) * MEMBERS, whole(own))


def stale(share: float = 0.05, incumbent: float = 0.05) -> StaleMarkers:
    """5 % of the members' markers are fading terms, `share` of the challenger's."""
    rng = np.random.default_rng(11)

    def speaker_uses(part: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
        uses = rng.poisson(12, MEMBERS)
        return whole(uses), whole(rng.binomial(uses, part))

    return StaleMarkers(2000, 8000, NAMES, *speaker_uses(0.05), *speaker_uses(incumbent), *speaker_uses(share))


def data(shift: float = 0.1, slang: float = 0.0) -> DataShift:
    """Training rows score `shift` higher than earlier ones; a share `slang` of their markers is of other terms."""
    rng = np.random.default_rng(12)
    sides = np.repeat([0, 1], MEMBERS)
    owners = np.repeat(np.arange(2 * MEMBERS), 10)
    terms = np.full((2 * MEMBERS, len(TERMS)), 1 / len(TERMS))
    terms[MEMBERS:] = (1 - slang) * terms[MEMBERS:] + slang * np.eye(len(TERMS))[0]
    uses = [rng.multinomial(8, row) for row in terms]
    scores = rng.normal(shift * sides[owners], 1)
    return DataShift((*NAMES, *NAMES), whole(sides), tuple(map(whole, uses)), whole(owners), floats(scores))


def good() -> Measurements:
    return Measurements(
        seed=11,
        digests=(("base", "b" * 64), ("challenger", "c" * 64)),
        held_out=held_out(),
        markers=markers(),
        human_scores=human_scores(),
        variety=variety(),
        drift=drift(),
        canaries=canaries(),
        spans=spans(),
        retention=retention(),
        serious=serious(),
        triggers=triggers(),
        tied=tied(),
        toxic=flags(),
        personal=flags(),
        injected=flags(replies=72),
        stacked=stacked(),
        stale=stale(),
        data=data(),
        spectra=Spectra(1.1, (0.9, 1.0, 1.2)),
    )


def spoiled(**parts: Any) -> Measurements:
    return replace(good(), **parts)
