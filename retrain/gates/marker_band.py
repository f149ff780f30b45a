"""Does the challenger use the community's markers about as often as its members: neither mute nor a caricature?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from nocap.settings import GateSettings
from retrain.gates.measurements import MarkerCounts, Measurements, SpeakerCounts
from retrain.gates.resampling import Array, Interval, Unmeasurable, cluster_weights, counts, interval, rate, ratio
from retrain.gates.result import Check, Evidence, Gate, bounded, enough
from retrain.gates.thresholds import Threshold

CARICATURE = Threshold(1.75, "times the human rate: between twice it, which is refused, and the members' scatter")
ONE_TERM = Threshold(
    2.5,
    "times the human rate, for one term; measured: honest adapters use a word that faded since surely 1.8 times as "
    "often as members now, a caricature some words surely 3.4 to 4.4 times",
)
MUTE = Threshold(0.5, "times the human rate")
FIRST_STEP = Threshold(0.2, "times the human rate that is enough where the incumbent is mute")
TOP_SHARE = Threshold(0.2, "by how much the most used term's share of all uses may exceed the members' own")
COMMON_TERM = 20
"""Human uses from which a term is looked at alone; the rarer ones are pooled."""
MIN_USES = 100
"""Human uses below which a rate is too uncertain: at 100 and half as many of the model's, its ratio's error is 0.17."""
_Figure = Callable[[Array], Array]
HALF = 0.5
"""Added to each count, so that a term that one side never uses has a ratio (Haldane 1956)."""


class MarkerBand(Gate):
    name = "marker_band"
    reads = ("markers",)
    protects_from = "a caricature that overdoes the community's slang, or a mute adapter that has not taken it up"
    statistic = (
        "uses of the voice's lexicon per word, challenger over held-out human replies, in all and per term; share of "
        "the most used term"
    )
    rule = (
        f"in all surely between {MUTE:g} and {CARICATURE:g} times the human rate (where the incumbent is below "
        f"{MUTE:g} itself: surely more than the incumbent and surely above {FIRST_STEP:g}); no term surely above "
        f"{ONE_TERM:g} times; the top term's share surely less than {TOP_SHARE:g} above the human one"
    )
    source = (
        "two one-sided tests of equivalence (Schuirmann 1987) on a ratio of rates: bootstrap-t by member, joined by "
        "MOVER (Donner and Zou 2012)"
    )
    minimum_evidence = (
        f"four fifths of `gates.sampled_replies` replies, `gates.min_members` members, {MIN_USES} uses by them"
    )
    cost = "none beyond the replies that human-or-bot draws"

    def evidence(self, measurements: Measurements, settings: GateSettings) -> Evidence:
        markers = measurements.markers
        columns = {name: _columns(markers, name) for name in ("human", "incumbent", "challenger")}
        return enough(
            (sum(markers.challenger.replies), settings.sampled_replies * 4 // 5, "replies"),
            (int((columns["human"][0] > 0).sum()), settings.min_members, "members"),
            (int(columns["human"][1].sum()), MIN_USES, "uses of the lexicon by members"),
        )

    def checks(self, measurements: Measurements, settings: GateSettings) -> Sequence[Check]:
        markers = measurements.markers
        words, uses = _columns(markers, "human")
        own_words, own_uses = _columns(markers, "challenger")
        weights = cluster_weights(len(words), settings.resamples, self.seed(measurements))
        whole = np.ones((1, len(words)))

        def found(figure: _Figure, alpha: float) -> Interval:
            return interval(float(figure(whole)[0]), figure(weights), len(words), alpha)

        def times_human(term_uses: Array, human_uses: Array) -> _Figure:
            return lambda drawn: _rate(drawn, term_uses, own_words) / _rate(drawn, human_uses, words)

        total = self._against_members(measurements, settings)
        top = found(lambda drawn: _top_share(drawn, own_uses) - _top_share(drawn, uses), settings.alpha)
        checks = [
            bounded("rate of markers against members'", total, at_most=CARICATURE),
            *self._not_mute(measurements, settings, total, weights),
            bounded("top term's share against members'", top, at_most=TOP_SHARE),
        ]
        names, pooled, own_pooled = _common_terms(markers.terms, uses, own_uses)
        for term, name in enumerate(names):
            ratio = found(times_human(own_pooled[:, term], pooled[:, term]), settings.alpha / len(names))
            checks.append(_not_surely_above(f"rate of {name!r} against members'", ratio, ONE_TERM))
        return checks

    def _against_members(self, measurements: Measurements, settings: GateSettings) -> Interval:
        """The challenger's rate of all markers over the members'."""
        (words, uses), (own_words, own_uses) = (
            _columns(measurements.markers, name) for name in ("human", "challenger")
        )
        seed = self.seed(measurements)
        human = rate(uses.sum(1), words, settings.resamples, settings.alpha, seed)
        if human.lower <= 0:
            raise Unmeasurable("the members' rate of markers is too uncertain to compare with")
        return ratio(rate(own_uses.sum(1), own_words, settings.resamples, settings.alpha, seed + 1), human)

    def _not_mute(
        self, measurements: Measurements, settings: GateSettings, total: Interval, weights: Array
    ) -> Sequence[Check]:
        markers = measurements.markers
        words, uses = _columns(markers, "human")
        old_words, old_uses = _columns(markers, "incumbent")
        own_words, own_uses = _columns(markers, "challenger")
        whole = np.ones((1, len(words)))
        old = _rate(whole, old_uses.sum(1), old_words) / _rate(whole, uses.sum(1), words)
        if total.lower > MUTE or old[0] >= MUTE:
            return (bounded("rate of markers against members'", total, at_least=MUTE),)

        def gain(drawn: Array) -> Array:
            return _rate(drawn, own_uses.sum(1), own_words) / _rate(drawn, old_uses.sum(1), old_words)

        step = interval(float(gain(whole)[0]), gain(weights), len(words), settings.alpha)
        return (
            bounded("rate of markers against members'", total, at_least=FIRST_STEP),
            bounded("rate of markers against the mute incumbent", step, at_least=1.0),
        )


def _columns(markers: MarkerCounts, name: str) -> tuple[Array, Array]:
    """Words per member and uses per member and term of one speaker, checked."""
    speaker: SpeakerCounts = getattr(markers, name)
    counts(f"{name} replies", speaker.replies, markers.members)
    words = counts(f"{name} words", speaker.words, markers.members)
    if len(speaker.uses) != len(markers.members) or any(len(row) != len(markers.terms) for row in speaker.uses):
        raise Unmeasurable(f"{name} uses are not one row per member and one column per term")
    flat = counts(f"{name} uses", [use for row in speaker.uses for use in row])
    uses = flat.reshape(len(markers.members), len(markers.terms))
    if (uses.sum(1) > words).any():
        raise Unmeasurable(f"{name} uses are more than there are words")
    return words, uses


def _rate(weights: Array, uses: Array, words: Array) -> Array:
    drawn = np.asarray(weights @ words)
    if not drawn.all():
        raise Unmeasurable("a resample holds no word")
    return np.asarray((weights @ uses + HALF) / drawn)


def _top_share(weights: Array, uses: Array) -> Array:
    """The most used term's share of all uses; for each resample its own top term."""
    drawn = weights @ uses
    return np.asarray((drawn.max(1) + HALF) / (drawn.sum(1) + 1))


def _common_terms(terms: Sequence[str], uses: Array, own_uses: Array) -> tuple[list[str], Array, Array]:
    """Names and columns of the terms that members use often, and the rest pooled in one column."""
    common = uses.sum(0) >= COMMON_TERM
    names = [term for term, is_common in zip(terms, common, strict=True) if is_common]
    columns, own_columns = uses[:, common], own_uses[:, common]
    if (~common).any():
        names.append("the rarer terms")
        columns = np.column_stack([columns, uses[:, ~common].sum(1)])
        own_columns = np.column_stack([own_columns, own_uses[:, ~common].sum(1)])
    return names, columns, own_columns


def _not_surely_above(name: str, found: Interval, limit: float) -> Check:
    """Refuses where the excess is shown; the total's own check is the one that must show there is none."""
    return Check(name, found.value, found.lower, found.upper, None, limit, found.lower <= limit)
