"""Does the challenger still say different things?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nocap.settings import GateSettings
from retrain.gates.measurements import Measurements, VarietyDraws
from retrain.gates.resampling import Array, Interval, Unmeasurable, checked, rounded
from retrain.gates.result import Check, Evidence, Gate, bounded, enough
from retrain.gates.thresholds import Threshold

KEPT_VARIETY = Threshold(0.8, "share of the reference's distinct-2 that must be kept")
MORE_OVERLAP = Threshold(0.15, "share of 4-grams; random halves of members differ by a third of it")
MORE_LOOPS = Threshold(0.05, "share of replies, above the reference's")
MORE_EMPTY = Threshold(0.05, "share of replies, above the reference's")
MIN_DRAWS = 100


class Collapse(Gate):
    name = "collapse"
    reads = ("variety",)
    protects_from = "an adapter that gives everyone the same few answers, repeats itself within one, or says nothing"
    statistic = (
        "distinct-2, 4-grams shared with other replies, replies that loop and empty replies, over equally many n-grams "
        "of the replies to the same prompts, against whichever of the members and the base varies less"
    )
    rule = (
        f"distinct-2 surely above {KEPT_VARIETY:g} of the reference's; overlap surely less than {MORE_OVERLAP:g}, "
        f"loops and empty replies less than {MORE_LOOPS:g} and {MORE_EMPTY:g} above it"
    )
    source = "distinct-n (Li et al. 2016), self-BLEU (Zhu et al. 2018); random halves of the members (McCarthy 1969)"
    minimum_evidence = "`gates.sampled_replies` replies of half of `gates.min_members` members"
    cost = "none beyond the replies that human-or-bot draws"

    def evidence(self, measurements: Measurements, settings: GateSettings) -> Evidence:
        variety = measurements.variety
        for name in ("distinct_2", "overlap_4", "loops", "empty"):
            _columns(measurements, name)
        checked("replies", [variety.replies, variety.members], low=0, high=1e9)
        return enough(
            (variety.replies, settings.sampled_replies, "replies"),
            (variety.members, max(2, settings.min_members // 2), "members"),
            (len(variety.challenger.distinct_2), MIN_DRAWS, "half-samples"),
        )

    def checks(self, measurements: Measurements, settings: GateSettings) -> Sequence[Check]:
        human, base, own = _columns(measurements, "distinct_2")
        if min(human.min(), base.min()) <= 0:
            raise Unmeasurable("members or base have no word pair to compare with")
        if np.ptp(own) == 0:
            raise Unmeasurable("distinct-2 is constant over random halves, so no uncertainty can be estimated")
        kept = max((_interval(own / one, settings.alpha) for one in (human, base)), key=lambda one: one.lower)
        checks = [bounded("distinct-2 against the reference's", kept, at_least=KEPT_VARIETY)]
        for name, title, limit in (
            ("overlap_4", "4-grams shared between replies, above the reference's share", MORE_OVERLAP),
            ("loops", "looping replies, above the reference's share", MORE_LOOPS),
            ("empty", "empty replies, above the reference's share", MORE_EMPTY),
        ):
            human, base, own = _columns(measurements, name)
            more = min((_interval(own - one, settings.alpha) for one in (human, base)), key=lambda one: one.upper)
            checks.append(bounded(title, more, at_most=limit))
        return checks


def _columns(measurements: Measurements, name: str) -> tuple[Array, Array, Array]:
    variety = measurements.variety
    like = variety.human.distinct_2

    def column(speaker: VarietyDraws) -> Array:
        return checked(name, getattr(speaker, name), low=0, high=1, like=like)

    return column(variety.human), column(variety.base), column(variety.challenger)


def _interval(draws: Array, alpha: float) -> Interval:
    """Bounds from random halves without replacement: a half scatters around the whole as the whole around the truth.

    Either reference excuses the challenger, so each gets half the level (Bonferroni).
    """
    lower, upper = np.quantile(draws, [alpha / 2, 1 - alpha / 2])
    return Interval(rounded(float(draws.mean())), rounded(float(lower)), rounded(float(upper)))
