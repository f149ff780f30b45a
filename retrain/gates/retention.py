"""Does the challenger still know what its base knows?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nocap.settings import GateSettings
from retrain.gates.measurements import Measurements
from retrain.gates.resampling import Array, Unmeasurable, checked, cluster_weights, interval
from retrain.gates.result import Check, Evidence, Gate, bounded, enough, exactly
from retrain.gates.thresholds import Threshold

LOST_ACCURACY = Threshold(-0.05, "share of the items right that may be lost")
LOST_LOG_ODDS = Threshold(-0.15, "nats per token, where the base only guesses")
MIN_ITEMS = 200


class Retention(Gate):
    name = "retention"
    reads = ("retention",)
    protects_from = "an adapter that has forgotten what its base could do"
    statistic = (
        "fixed multiple-choice items, choices ranked by loss per token: share right, and log-odds of the right choice "
        "against the others together; challenger minus base"
    )
    rule = (
        f"share right surely above {LOST_ACCURACY:g} where the base is surely better than guessing; where it guesses, "
        f"a share right could not fall, so there the log-odds must surely be above {LOST_LOG_ODDS:g}"
    )
    source = "length-normalised multiple choice (Brown et al. 2020), non-inferiority, bootstrap by item"
    minimum_evidence = f"{MIN_ITEMS} items"
    cost = "one forward pass of base and challenger per choice"

    def evidence(self, measurements: Measurements, settings: GateSettings) -> Evidence:
        _columns(measurements)
        return enough((len(measurements.retention.base), MIN_ITEMS, "items"))

    def checks(self, measurements: Measurements, settings: GateSettings) -> Sequence[Check]:
        base, own = _columns(measurements)
        weights = cluster_weights(len(base), settings.resamples, self.seed(measurements)) / len(base)

        def mean(title: str, values: Array, at_least: float) -> Check:
            found = interval(float(values.mean()), weights @ values, len(values), settings.alpha)
            return bounded(title, found, at_least=at_least)

        above_guessing = _is_right(base) - 1 / base.shape[1]
        is_able = _is_right(base).all() or mean("share right above guessing", above_guessing, 0.0).holds
        if not is_able:
            change = mean(
                "log-odds of the right choice against the base", _log_odds(own) - _log_odds(base), LOST_LOG_ODDS
            )
            return (change,)
        # A new voice makes a sharp base less sure of everything: log-odds fall though nothing was forgotten.
        lost = _is_right(own) - _is_right(base)
        title = "share right against the base"
        kept = mean(title, lost, LOST_ACCURACY) if lost.any() else exactly(title, 0.0, at_least=LOST_ACCURACY)
        return (kept,)


def _columns(measurements: Measurements) -> tuple[Array, Array]:
    """Scores (items, choices) of base and challenger, checked."""
    scores = measurements.retention
    base, own = np.asarray(scores.base, dtype=np.float64), np.asarray(scores.challenger, dtype=np.float64)
    if base.shape != own.shape:
        raise Unmeasurable(f"base and challenger were scored on different items ({base.shape} and {own.shape})")
    if base.size and (base.ndim != 2 or base.shape[1] < 2):
        raise Unmeasurable("an item needs as many choices as every other, and at least two")
    for name, one in (("base", base), ("challenger", own)):
        checked(f"{name} scores", one.ravel(), low=-100, high=0)
    return base, own


def _log_odds(scores: Array) -> Array:
    """Log-odds of the gold choice (the first) against the others together, one per item."""
    return np.asarray(scores[:, 0] - np.logaddexp.reduce(scores[:, 1:], axis=1))


def _is_right(scores: Array) -> Array:
    """1 where the gold choice has the best score, alone."""
    return np.asarray(scores[:, 0] > scores[:, 1:].max(axis=1), dtype=np.float64)
