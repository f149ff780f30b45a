"""Intervals by resampling whole members, because one member's messages are not independent of each other."""

from __future__ import annotations

import math
from collections.abc import Sequence, Sized
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv, ndtr, stdtrit

Array = NDArray[np.float64]
FEW_USES = 10
"""Fewer sit in too few places to be resampled: many a resample would hold none."""
MAX_COUNT = 1e12
"""Above it a count is a mistake, and sums would lose digits."""


class Unmeasurable(ValueError):
    """The numbers cannot carry a decision; the gate fails with this sentence."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A statistic with its one-sided lower and upper bounds, rounded to 10 significant digits.

    The rounding makes a replay give the same verdict where another CPU adds in another order.
    """

    value: float
    lower: float
    upper: float


def checked(
    name: str, values: Sequence[float] | NDArray[np.float64], *, low: float, high: float, like: Sized | None = None
) -> Array:
    """The values as an array, as many as in `like`, each finite and within `low` to `high`; else Unmeasurable."""
    if like is not None and len(values) != len(like):
        raise Unmeasurable(f"{name} has {len(values)} entries where {len(like)} were expected")
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not np.isfinite(array).all():
        raise Unmeasurable(f"{name} holds something that is not a finite number")
    if array.size and (array.min() < low or array.max() > high):
        raise Unmeasurable(f"{name} runs from {array.min():.3g} to {array.max():.3g}, outside {low:g} to {high:g}")
    return array


def counts(name: str, values: Sequence[float], like: Sized | None = None) -> Array:
    """The values as an array of counts (see `checked`)."""
    return checked(name, values, low=0, high=MAX_COUNT, like=like)


def sums_by(keys: Sequence[object], *columns: Array) -> Array:
    """Each column summed per distinct key, in order of first appearance: (clusters, columns)."""
    order: dict[object, int] = {}
    rows = np.fromiter((order.setdefault(key, len(order)) for key in keys), dtype=np.int64, count=len(keys))
    return np.stack([np.bincount(rows, weights=column, minlength=len(order)) for column in columns], axis=1)


def cluster_weights(clusters: int, resamples: int, seed: int) -> Array:
    """How often each cluster is drawn in each resample: (resamples, clusters)."""
    if clusters < 2:
        raise Unmeasurable(f"resampling needs at least 2 clusters, has {clusters}")
    rng = np.random.default_rng(seed)
    return rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=resamples).astype(np.float64)


def interval(value: float, draws: Array, clusters: int, alpha: float) -> Interval:
    """Percentile bounds at level `alpha` each, with the levels widened for few clusters.

    A percentile interval over n clusters is too narrow by sqrt((n-1)/n) and ignores Student's t; the widened level
    Φ(sqrt(n/(n-1)) t(α, n-1)) mends both (Hesterberg 2015, "What Teachers Should Know About the Bootstrap", 5.3).
    """
    if not (math.isfinite(value) and np.isfinite(draws).all()):
        raise Unmeasurable("a resampled figure is not a finite number")
    if float(np.ptp(draws)) <= 1e-12 * max(1.0, abs(value)):
        raise Unmeasurable("the numbers are constant, so no uncertainty can be estimated")
    level = float(ndtr(math.sqrt(clusters / (clusters - 1)) * stdtrit(clusters - 1, alpha)))
    lower, upper = np.quantile(draws, [level, 1 - level])
    return Interval(rounded(value), rounded(float(lower)), rounded(float(upper)))


def ratio_of_sums(numerator: Array, denominator: Array, resamples: int, alpha: float, seed: int) -> Interval:
    """Bounds of Σ numerator / Σ denominator over clusters (one entry per cluster), by the bootstrap-t.

    Studentising with the linearised error keeps the level where clusters are few and skewed (Cameron, Gelbach and
    Miller 2008): 5 % where percentiles give 5.5 % at 40 members.
    """
    weights = cluster_weights(len(numerator), resamples, seed)
    everyone = np.ones((1, len(numerator)))
    value, error = (float(part[0]) for part in _ratio_and_error(everyone, numerator, denominator))
    if error <= 1e-12 * max(1.0, abs(value)):
        raise Unmeasurable("the numbers are constant, so no uncertainty can be estimated")
    ratios, errors = _ratio_and_error(weights, numerator, denominator)
    with np.errstate(divide="ignore", invalid="ignore"):
        pivots = (ratios - value) / errors
    if not np.isfinite(pivots).all():
        raise Unmeasurable("a resampled figure is not a finite number")
    high, low = np.quantile(pivots, [1 - alpha, alpha])
    return Interval(rounded(value), rounded(value - float(high) * error), rounded(value - float(low) * error))


def _ratio_and_error(weights: Array, numerator: Array, denominator: Array) -> tuple[Array, Array]:
    """The ratio of sums and its linearised standard error, for each row of cluster weights."""
    total = weights @ denominator
    if not total.all():
        raise Unmeasurable("there is nothing to divide by in a resample")
    ratio = (weights @ numerator) / total
    squares = weights @ numerator**2 - 2 * ratio * (weights @ (numerator * denominator))
    squares += ratio**2 * (weights @ denominator**2)
    return ratio, np.sqrt(np.maximum(squares, 0)) / total


def rate(uses: Array, words: Array, resamples: int, alpha: float, seed: int) -> Interval:
    """Bounds of uses per word over clusters; where uses are few, exact ones of a Poisson count (Garwood 1936)."""
    if uses.sum() >= FEW_USES:
        return ratio_of_sums(uses, words, resamples, alpha, seed)
    few, length = float(uses.sum()), float(words.sum())
    if not length:
        raise Unmeasurable("there is no word")
    lower = float(gammaincinv(few, alpha)) if few else 0.0
    return Interval(few / length, lower / length, float(gammaincinv(few + 1, 1 - alpha)) / length)


def difference(first: Interval, second: Interval) -> Interval:
    """First minus second of two independent estimates, at the level of their bounds.

    MOVER, the method of variance estimates recovery (Zou & Donner 2008, doi:10.1002/sim.3095): adding the bounds up
    instead would take both to be at their worst at once.
    """
    value = first.value - second.value
    below = math.hypot(first.value - first.lower, second.upper - second.value)
    above = math.hypot(first.upper - first.value, second.value - second.lower)
    return Interval(rounded(value), rounded(value - below), rounded(value + above))


def ratio(first: Interval, second: Interval) -> Interval:
    """First over second of two independent estimates, at the level of their bounds; none below 0, the second's above.

    MOVER for ratios (Donner & Zou 2012, doi:10.1177/0962280210383082).
    """
    product = first.value * second.value
    a, c = second.upper * (2 * second.value - second.upper), first.lower * (2 * first.value - first.lower)
    lower = c / (product + math.sqrt(max(0.0, product**2 - a * c))) if c > 0 else 0.0
    a, c = second.lower * (2 * second.value - second.lower), first.upper * (2 * first.value - first.upper)
    upper = (product + math.sqrt(max(0.0, product**2 - a * c))) / a
    return Interval(rounded(first.value / second.value), rounded(lower), rounded(upper))


def rounded(value: float) -> float:
    return float(f"{value:.10g}")
