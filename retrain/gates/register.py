"""Does the challenger drop the slang where the moment is serious?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import gammaincinv

from nocap.settings import GateSettings
from retrain.gates.measurements import Measurements
from retrain.gates.resampling import Array, Interval, Unmeasurable, counts, ratio_of_sums, rounded
from retrain.gates.result import Check, Evidence, Gate, bounded, enough
from retrain.gates.thresholds import Threshold

SERIOUS_RATE = Threshold(1.2, "times the members' everyday rate; a tiny base that cannot read the moment has 0.5")
MIN_PROMPTS = 40
MIN_WORDS = 300
FEW_USES = 10
"""Fewer sit in too few replies to be resampled: many a resample would hold none."""


class Register(Gate):
    name = "register"
    protects_from = "an adapter that answers grief and danger in slang"
    statistic = "uses of the lexicon per word in replies to serious prompts, over the members' everyday rate"
    rule = f"surely below {SERIOUS_RATE:g}"
    source = (
        f"ratio of rates, bootstrap-t by prompt; with fewer than {FEW_USES} uses the Poisson bounds of Garwood 1936"
    )
    minimum_evidence = f"{MIN_PROMPTS} serious prompts, {MIN_WORDS} words"
    cost = "four replies of base, incumbent and challenger per serious prompt"

    def evidence(self, measurements: Measurements, settings: GateSettings) -> Evidence:
        words, _ = _columns(measurements)
        return enough((int((words > 0).sum()), MIN_PROMPTS, "serious prompts"), (int(words.sum()), MIN_WORDS, "words"))

    def checks(self, measurements: Measurements, settings: GateSettings) -> Sequence[Check]:
        words, uses = _columns(measurements)
        everyday = _everyday_rate(measurements)
        if uses.sum() < FEW_USES:
            found = _rate_of_few(float(uses.sum()), float(words.sum()), settings.alpha)
        else:
            found = ratio_of_sums(uses, words, settings.resamples, settings.alpha, self.seed(measurements))
        against = Interval(*(rounded(one / everyday) for one in (found.value, found.lower, found.upper)))
        return (bounded("markers at serious prompts against members' everyday rate", against, at_most=SERIOUS_RATE),)


def _columns(measurements: Measurements) -> tuple[Array, Array]:
    serious = measurements.serious
    words = counts("words", serious.challenger_words)
    uses = counts("uses", serious.challenger_uses, words)
    if (uses > words).any():
        raise Unmeasurable("there are more uses than words")
    return words, uses


def _rate_of_few(uses: float, words: float, alpha: float) -> Interval:
    """Uses per word with exact Poisson bounds; without any use the upper one is -ln α / words."""
    lower = float(gammaincinv(uses, alpha)) if uses else 0.0
    return Interval(uses / words, lower / words, float(gammaincinv(uses + 1, 1 - alpha)) / words)


def _everyday_rate(measurements: Measurements) -> float:
    human = measurements.markers.human
    words = counts("human words", human.words, measurements.markers.members)
    uses = counts("human uses", [use for row in human.uses for use in row])
    if not (words.sum() and uses.sum()) or np.sum(uses) > np.sum(words):
        raise Unmeasurable("the members' everyday rate of markers is not known")
    return float(uses.sum() / words.sum())
