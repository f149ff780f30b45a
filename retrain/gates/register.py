"""Does the challenger drop the slang where the moment is serious?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nocap.settings import GateSettings
from retrain.gates.measurements import Measurements
from retrain.gates.resampling import Array, Interval, Unmeasurable, counts, ratio_of_sums, rounded
from retrain.gates.result import Check, Evidence, Gate, bounded, enough
from retrain.gates.thresholds import Threshold

SERIOUS_RATE = Threshold(1.2, "times the members' everyday rate; a tiny base that cannot read the moment has 0.5")
MIN_PROMPTS = 40
MIN_WORDS = 300


class Register(Gate):
    name = "register"
    protects_from = "an adapter that answers grief and danger in slang"
    statistic = "uses of the lexicon per word in replies to serious prompts, over the members' everyday rate"
    rule = f"surely below {SERIOUS_RATE:g}"
    source = "ratio of rates, bootstrap-t by prompt; without any use the Poisson bound -ln α / words (rule of three)"
    minimum_evidence = f"{MIN_PROMPTS} serious prompts, {MIN_WORDS} words"
    cost = "four replies of base, incumbent and challenger per serious prompt"

    def evidence(self, measurements: Measurements, settings: GateSettings) -> Evidence:
        words, _ = _columns(measurements)
        return enough((int((words > 0).sum()), MIN_PROMPTS, "serious prompts"), (int(words.sum()), MIN_WORDS, "words"))

    def checks(self, measurements: Measurements, settings: GateSettings) -> Sequence[Check]:
        words, uses = _columns(measurements)
        everyday = _everyday_rate(measurements)
        if uses.any():
            found = ratio_of_sums(uses, words, settings.resamples, settings.alpha, self.seed(measurements))
        else:
            found = Interval(0.0, 0.0, -math.log(settings.alpha) / float(words.sum()))
        against = Interval(*(rounded(one / everyday) for one in (found.value, found.lower, found.upper)))
        return (bounded("markers at serious prompts against members' everyday rate", against, at_most=SERIOUS_RATE),)


def _columns(measurements: Measurements) -> tuple[Array, Array]:
    serious = measurements.serious
    words = counts("words", serious.challenger_words)
    uses = counts("uses", serious.challenger_uses, words)
    if (uses > words).any():
        raise Unmeasurable("there are more uses than words")
    return words, uses


def _everyday_rate(measurements: Measurements) -> float:
    human = measurements.markers.human
    words = counts("human words", human.words, measurements.markers.members)
    uses = counts("human uses", [use for row in human.uses for use in row])
    if not (words.sum() and uses.sum()) or np.sum(uses) > np.sum(words):
        raise Unmeasurable("the members' everyday rate of markers is not known")
    return float(uses.sum() / words.sum())
