"""Is what was trained on still this community's talk?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nocap.settings import GateSettings
from retrain.gates.measurements import Measurements
from retrain.gates.resampling import Array, Interval, Unmeasurable, checked, cluster_weights, counts, interval, rounded
from retrain.gates.result import Check, Evidence, Gate, bounded, enough
from retrain.gates.thresholds import Threshold

MAX_AREA = Threshold(
    0.75,
    "area under the curve; measured: quarters of one college forum lie 0.58 to 0.66 apart, a month of the demo 0.64, "
    "two forums 0.81 to 0.92",
)
MAX_DIVERGENCE = Threshold(
    0.4,
    "bits; measured: quarters of one forum 0.01 to 0.04, a month in which a third of the demo's slang changes 0.12 to "
    "0.24, rows without the community's slang 0.88",
)
MIN_TEXTS = 200
MIN_MEMBERS = 10
MIN_USES = 50
"""Of the lexicon on each side; below, its frequencies are not compared and the classifier decides alone."""


class DataDrift(Gate):
    name = "data_drift"
    reads = ("data",)
    protects_from = "a run whose training rows are another community's: a wrong import, or a flood from elsewhere"
    statistic = (
        "training replies against the last promoted run's, or against held-out members' where there is none or "
        "hardly anything differs: area under the curve of a word classifier, and Jensen-Shannon divergence of slang "
        "frequencies"
    )
    rule = f"area surely below {MAX_AREA:g} and divergence surely below {MAX_DIVERGENCE:g} bits"
    source = (
        "classifier two-sample test (Lopez-Paz and Oquab 2017) as a test of equivalence, bootstrap by member; for the "
        "divergence the basic bootstrap, which takes its bias out (Davison and Hinkley 1997)"
    )
    minimum_evidence = f"{MIN_TEXTS} replies of {MIN_MEMBERS} members on each side"
    cost = "one to two seconds for the classifier"

    def evidence(self, measurements: Measurements, settings: GateSettings) -> Evidence:
        sides, texts, _, _ = _columns(measurements)
        before, now = (texts[sides == side].sum() for side in (0, 1))
        return enough(
            (int(min(before, now)), MIN_TEXTS, "replies on each side"),
            (int(min((sides == 0).sum(), (sides == 1).sum())), MIN_MEMBERS, "members"),
        )

    def checks(self, measurements: Measurements, settings: GateSettings) -> Sequence[Check]:
        sides, _, owners, scores = _columns(measurements)
        if np.ptp(scores) == 0:
            raise Unmeasurable("the classifier gives every reply the same score")
        seed, blocks = self.seed(measurements), np.bincount(sides.astype(np.int64), minlength=2)
        weights = [cluster_weights(int(blocks[side]), settings.resamples, seed + side) for side in (0, 1)]
        fewest = int(blocks.min())
        wins, pairs = _wins(sides, owners, scores)
        areas = ((weights[0] @ wins) * weights[1]).sum(1) / ((weights[0] @ pairs) * weights[1]).sum(1)
        area = interval(float(wins.sum() / pairs.sum()), areas, fewest, settings.alpha)
        checks = [bounded("area under the curve, training rows", area, at_most=MAX_AREA)]
        uses = [_uses(measurements)[sides == side] for side in (0, 1)]
        if min(one.sum() for one in uses) >= MIN_USES:
            whole = float(_divergences(*(one.sum(0, keepdims=True) for one in uses))[0])
            drawn = _divergences(*(some @ one for some, one in zip(weights, uses, strict=True)))
            found = _without_bias(whole, drawn, fewest, settings.alpha)
            checks.append(bounded("divergence of slang frequencies in bits", found, at_most=MAX_DIVERGENCE))
        return checks


def _wins(sides: Array, owners: np.ndarray[tuple[int], np.dtype[np.int64]], scores: Array) -> tuple[Array, Array]:
    """For each block before and each block now: in how many pairs of their replies the later one scores higher, and
    how many pairs there are. Both (blocks before, blocks now)."""
    indicators, parts = [], []
    for side in (0, 1):
        blocks = np.flatnonzero(sides == side)
        chosen = np.isin(owners, blocks)
        indicator = np.zeros((len(blocks), int(chosen.sum())))
        indicator[np.searchsorted(blocks, owners[chosen]), np.arange(indicator.shape[1])] = 1
        indicators.append(indicator)
        parts.append(scores[chosen])
    gap = parts[1][None, :] - parts[0][:, None]
    wins = indicators[0] @ ((gap > 0) + 0.5 * (gap == 0)) @ indicators[1].T
    return wins, np.outer(indicators[0].sum(1), indicators[1].sum(1))


def _without_bias(whole: float, draws: Array, clusters: int, alpha: float) -> Interval:
    """Basic bootstrap bounds: few uses make two samples of one distribution differ, and a resample doubles that."""
    found = interval(whole, draws, clusters, alpha)
    return Interval(
        rounded(2 * whole - float(draws.mean())), rounded(2 * whole - found.upper), rounded(2 * whole - found.lower)
    )


def _columns(measurements: Measurements) -> tuple[Array, Array, np.ndarray[tuple[int], np.dtype[np.int64]], Array]:
    """Side (0 before, 1 now) and texts of each block of a member; block and score of each text."""
    part = measurements.data
    sides = checked("sides", part.sides, low=0, high=1, like=part.members)
    if not np.isin(sides, (0, 1)).all():
        raise Unmeasurable("a side is neither 0 nor 1")
    owners = checked("owners", part.owners, low=0, high=max(0, len(sides) - 1))
    scores = checked("scores", part.scores, low=-1e6, high=1e6, like=owners)
    texts = np.bincount(owners.astype(np.int64), minlength=len(sides)).astype(np.float64)
    if len(sides) and (texts[: len(sides)] == 0).any():
        raise Unmeasurable("a member has no reply")
    return sides, texts, owners.astype(np.int64), scores


def _uses(measurements: Measurements) -> Array:
    part = measurements.data
    width = len(part.uses[0]) if part.uses else 0
    if len(part.uses) != len(part.sides) or any(len(row) != width for row in part.uses):
        raise Unmeasurable("uses are not one row per member and one column per term")
    return counts("uses", [use for row in part.uses for use in row]).reshape(len(part.sides), width)


def _divergences(before: Array, now: Array) -> Array:
    """Jensen-Shannon divergence in bits of the two sides' term frequencies, row by row."""
    with np.errstate(divide="ignore", invalid="ignore"):
        p, q = now / now.sum(1, keepdims=True), before / before.sum(1, keepdims=True)
        middle = (p + q) / 2
        parts = np.where(p > 0, p * np.log2(p / middle), 0) + np.where(q > 0, q * np.log2(q / middle), 0)
    return np.asarray(parts.sum(1) / 2)
