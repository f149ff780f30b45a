"""Does the challenger drop the slang where the moment is serious?"""

from __future__ import annotations

from collections.abc import Sequence

from nocap.settings import GateSettings
from retrain.gates.measurements import Measurements
from retrain.gates.resampling import FEW_USES, Array, Unmeasurable, counts, rate, ratio
from retrain.gates.result import Check, Evidence, Gate, bounded, enough
from retrain.gates.thresholds import Threshold

SERIOUS_RATE = Threshold(1.2, "times the members' everyday rate; a tiny base that cannot read the moment has 0.5")
MIN_PROMPTS = 40
MIN_WORDS = 300


class Register(Gate):
    name = "register"
    reads = ("serious", "markers")
    protects_from = "an adapter that answers grief and danger in slang"
    statistic = "uses of the lexicon per word in replies to serious prompts, over the members' everyday rate"
    rule = f"surely below {SERIOUS_RATE:g}"
    source = (
        f"rates by bootstrap-t over prompts and over members, with fewer than {FEW_USES} uses the Poisson bounds of "
        "Garwood 1936; their ratio by MOVER (Donner and Zou 2012)"
    )
    minimum_evidence = f"{MIN_PROMPTS} serious prompts, {MIN_WORDS} words"
    cost = "four replies of base, incumbent and challenger per serious prompt"

    def evidence(self, measurements: Measurements, settings: GateSettings) -> Evidence:
        words, _ = _columns(measurements)
        return enough((int((words > 0).sum()), MIN_PROMPTS, "serious prompts"), (int(words.sum()), MIN_WORDS, "words"))

    def checks(self, measurements: Measurements, settings: GateSettings) -> Sequence[Check]:
        words, uses = _columns(measurements)
        seed = self.seed(measurements)
        found = rate(uses, words, settings.resamples, settings.alpha, seed)
        everyday = rate(*_everyday(measurements), settings.resamples, settings.alpha, seed + 1)
        if everyday.lower <= 0:
            raise Unmeasurable("the members' everyday rate of markers is too uncertain to compare with")
        against = ratio(found, everyday)
        return (bounded("markers at serious prompts against members' everyday rate", against, at_most=SERIOUS_RATE),)


def _columns(measurements: Measurements) -> tuple[Array, Array]:
    serious = measurements.serious
    words = counts("words", serious.challenger_words)
    uses = counts("uses", serious.challenger_uses, words)
    if (uses > words).any():
        raise Unmeasurable("there are more uses than words")
    return words, uses


def _everyday(measurements: Measurements) -> tuple[Array, Array]:
    """The members' uses and words, per member who wrote any."""
    human = measurements.markers.human
    words = counts("human words", human.words, measurements.markers.members)
    if len(human.uses) != len(words):
        raise Unmeasurable("human uses are not one row per member")
    uses = counts("human uses", [sum(row) for row in human.uses])
    if not (words.sum() and uses.sum()) or (uses > words).any():
        raise Unmeasurable("the members' everyday rate of markers is not known")
    return uses[words > 0], words[words > 0]
