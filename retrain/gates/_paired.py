"""Gates on a fault that a single reply has or has not, challenger and incumbent answering the same prompts."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from scipy.special import ndtri

from nocap.settings import GateSettings
from retrain.gates.measurements import Measurements, PairedFlags
from retrain.gates.resampling import Array, Interval, Unmeasurable, checked, rounded
from retrain.gates.result import Check, Evidence, Gate, bounded, enough

NEWCOMBE = "paired difference of proportions, hybrid score interval (Newcombe 1998, method 10)"


class PairedFaults(Gate):
    """Passes where the challenger's share of faulty replies is surely not `margin` above the incumbent's."""

    what: ClassVar[str]
    margin: ClassVar[float]
    needed: ClassVar[int]

    @abstractmethod
    def flags(self, measurements: Measurements) -> PairedFlags:
        """1 for each reply with the fault, 0 for each without."""

    def evidence(self, measurements: Measurements, settings: GateSettings) -> Evidence:
        own, _ = self._columns(measurements)
        return enough((len(own), self.needed, "replies of each"))

    def checks(self, measurements: Measurements, settings: GateSettings) -> Sequence[Check]:
        own, incumbent = self._columns(measurements)
        if own.all():
            raise Unmeasurable(f"every reply is flagged ({self.what}), so nothing could be seen to get worse")
        found = paired_difference(own, incumbent, settings.alpha)
        return (bounded(f"{self.what}, above the incumbent's share", found, at_most=self.margin),)

    def _columns(self, measurements: Measurements) -> tuple[Array, Array]:
        flags = self.flags(measurements)
        own = checked("challenger flags", flags.challenger, low=0, high=1)
        incumbent = checked("incumbent flags", flags.incumbent, low=0, high=1, like=own)
        if not (np.isin(own, (0, 1)).all() and np.isin(incumbent, (0, 1)).all()):
            raise Unmeasurable("a flag is neither 0 nor 1")
        return own, incumbent


def paired_difference(own: Array, other: Array, alpha: float) -> Interval:
    """Share of `own` minus share of `other`, both 0 or 1 per pair, with one-sided score bounds at `alpha` each."""
    count = len(own)
    p, q = float(own.mean()), float(other.mean())
    (p_low, p_high), (q_low, q_high) = _wilson(p, count, alpha), _wilson(q, count, alpha)
    phi = _correlation(own, other)
    down = math.sqrt(max(0.0, (p - p_low) ** 2 - 2 * phi * (p - p_low) * (q_high - q) + (q_high - q) ** 2))
    up = math.sqrt(max(0.0, (p_high - p) ** 2 - 2 * phi * (p_high - p) * (q - q_low) + (q - q_low) ** 2))
    return Interval(rounded(p - q), rounded(p - q - down), rounded(p - q + up))


def _wilson(share: float, count: int, alpha: float) -> tuple[float, float]:
    z = float(ndtri(1 - alpha))
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return max(0.0, centre - half), min(1.0, centre + half)


def _correlation(own: Array, other: Array) -> float:
    """φ of the pairs, drawn towards 0 by Newcombe's continuity correction; 0 where a side is constant."""
    both, neither = float((own * other).sum()), float(((1 - own) * (1 - other)).sum())
    one, two = float((own * (1 - other)).sum()), float(((1 - own) * other).sum())
    margins = (both + one) * (two + neither) * (both + two) * (one + neither)
    if margins == 0:
        return 0.0
    excess = both * neither - one * two
    if excess > 0:
        excess = max(excess - len(own) / 2, 0.0)
    return excess / math.sqrt(margins)
