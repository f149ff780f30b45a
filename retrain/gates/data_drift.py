"""Is what was trained on still this community's talk?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from nocap.settings import GateSettings
from retrain.gates.measurements import Measurements
from retrain.gates.resampling import Array, Unmeasurable, checked, counts, rounded
from retrain.gates.result import Check, Evidence, Gate, enough, exactly
from retrain.gates.thresholds import Threshold

MAX_AREA = Threshold(0.75, "area under the curve; two weeks of one forum lie near 0.55, two forums near 0.8")
MAX_DIVERGENCE = Threshold(0.2, "bits above what relabelled members give; a burst of one new term makes about 0.05")
MIN_TEXTS = 200
MIN_MEMBERS = 10
MIN_USES = 50
"""Of the lexicon on each side; below, its frequencies are not compared and the classifier decides alone."""


class DataDrift(Gate):
    name = "data_drift"
    protects_from = "a run whose training rows are another community's: a wrong import, or a flood from elsewhere"
    statistic = (
        "training replies against the last promoted run's, or against held-out members' where there is none or "
        "hardly anything differs: area under the curve of a word classifier, and Jensen-Shannon divergence of slang "
        "frequencies"
    )
    rule = (
        f"neither surely drifted (p < α, members relabelled) and by more than an area of {MAX_AREA:g} or "
        f"{MAX_DIVERGENCE:g} bits"
    )
    source = "classifier two-sample test (Lopez-Paz and Oquab 2017), permutation by member"
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
        rng = np.random.default_rng(self.seed(measurements))
        shuffled = np.stack([rng.permutation(sides) for _ in range(settings.resamples)])
        ranks = rankdata(scores)
        areas = _areas(np.vstack([sides, shuffled])[:, owners], ranks)
        checks = [_drifted("area under the curve, training rows", areas, 0.0, settings.alpha, MAX_AREA)]
        uses = _uses(measurements)
        if min(uses[sides == 0].sum(), uses[sides == 1].sum()) >= MIN_USES:
            bits = _divergences(np.vstack([sides, shuffled]), uses)
            usual = float(np.median(bits[1:]))
            title = "divergence of slang frequencies in bits, above relabelled members'"
            checks.append(_drifted(title, bits, usual, settings.alpha, MAX_DIVERGENCE))
        return checks


def _drifted(name: str, figures: Array, usual: float, alpha: float, limit: float) -> Check:
    """The first figure is the real one, the others are of relabelled members; fails on a drift shown and large."""
    value, p = float(figures[0]), float((1 + (figures[1:] >= figures[0]).sum()) / len(figures))
    found = exactly(f"{name} (p {p:.2g})", rounded(value - usual), at_most=limit)
    if found.holds or p < alpha:
        return found
    return Check(found.name, found.value, found.lower, found.upper, None, found.at_most, True)


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


def _areas(labels: Array, ranks: Array) -> Array:
    """Area under the curve for each row of labels (0 or 1 per text), by Mann and Whitney's rank sum."""
    now = labels.sum(1)
    before = labels.shape[1] - now
    with np.errstate(divide="ignore", invalid="ignore"):
        areas = (labels @ ranks - now * (now + 1) / 2) / (now * before)
    if not np.isfinite(areas).all():
        raise Unmeasurable("a relabelling leaves one side empty")
    return np.asarray(areas)


def _divergences(labels: Array, uses: Array) -> Array:
    """Jensen-Shannon divergence in bits of the two sides' term frequencies, for each row of block labels."""
    now, before = labels @ uses, (1 - labels) @ uses
    with np.errstate(divide="ignore", invalid="ignore"):
        p, q = now / now.sum(1, keepdims=True), before / before.sum(1, keepdims=True)
        middle = (p + q) / 2
        parts = np.where(p > 0, p * np.log2(p / middle), 0) + np.where(q > 0, q * np.log2(q / middle), 0)
    bits = parts.sum(1) / 2
    return np.where(np.isfinite(bits), bits, 0.0)
