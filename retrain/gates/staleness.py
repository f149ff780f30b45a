"""Does the challenger speak last season's slang?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nocap.settings import GateSettings
from retrain.gates.measurements import Measurements
from retrain.gates.resampling import Array, Interval, Unmeasurable, checked, cluster_weights, counts, interval
from retrain.gates.result import Check, Evidence, Gate, bounded, enough, exactly
from retrain.gates.thresholds import Threshold

MORE_STALE = Threshold(0.1, "share of all marker uses; the last words to fade are used by people too")
MIN_MESSAGES = Threshold(500, "of each window: at a rate of 1 % a fall by half is 5 uses to 2.5")
MIN_USES = Threshold(50, "of the challenger's: at a share of 10 % its error is 4 %")


class Staleness(Gate):
    name = "staleness"
    reads = ("stale",)
    protects_from = "an adapter that speaks in words which the members have stopped using"
    statistic = (
        "share of marker uses that are of terms whose human rate fell by half against the eight weeks before, or "
        "which nobody uses any more; challenger above whichever of members and incumbent has more"
    )
    rule = f"upper bound below {MORE_STALE:g}"
    source = "difference of shares, bootstrap by member; fading terms by an exact conditional test (Przyborowski 1940)"
    minimum_evidence = (
        f"{MIN_MESSAGES:g} messages of the last two weeks and of the eight before, {MIN_USES:g} markers in the "
        "challenger's replies"
    )
    cost = "one pass over ten weeks of messages"

    def evidence(self, measurements: Measurements, settings: GateSettings) -> Evidence:
        stale = measurements.stale
        checked("messages", [stale.new_messages, stale.old_messages], low=0, high=1e12)
        uses = {name: _columns(measurements, name)[0] for name in ("human", "incumbent", "challenger")}
        return enough(
            (int(uses["challenger"].sum()), int(MIN_USES), "markers in its replies"),
            (stale.new_messages, int(MIN_MESSAGES), "messages of the last two weeks"),
            (stale.old_messages, int(MIN_MESSAGES), "of the eight before"),
        )

    def checks(self, measurements: Measurements, settings: GateSettings) -> Sequence[Check]:
        title = "fading terms among its markers, above the reference's share"
        columns = {name: _columns(measurements, name) for name in ("human", "incumbent", "challenger")}
        if not columns["human"][0].any():
            raise Unmeasurable("members used no marker")
        if not any(fading.any() for _, fading in columns.values()):
            return (exactly(title, 0.0, at_most=MORE_STALE),)
        members = len(measurements.stale.members)
        weights = cluster_weights(members, settings.resamples, self.seed(measurements))

        def above(reference: str) -> Interval:
            def excess(drawn: Array) -> Array:
                own, other = ((drawn @ columns[name][1] + 0.5) / (drawn @ columns[name][0] + 1) for name in sides)
                return np.asarray(own - other)

            sides = ("challenger", reference)
            # Either reference excuses it, so each gets half the level (Bonferroni).
            whole = float(excess(np.ones((1, members)))[0])
            return interval(whole, excess(weights), members, settings.alpha / 2)

        found = above("human")
        if columns["incumbent"][0].sum() >= MIN_USES:  # a side that hardly uses markers has no share to compare with
            found = min(found, above("incumbent"), key=lambda one: one.upper)
        return (bounded(title, found, at_most=MORE_STALE),)


def _columns(measurements: Measurements, speaker: str) -> tuple[Array, Array]:
    """Uses of all markers and of fading ones per member."""
    stale = measurements.stale
    uses = counts(f"{speaker} uses", getattr(stale, f"{speaker}_uses"), stale.members)
    fading = counts(f"{speaker} fading uses", getattr(stale, f"{speaker}_fading"), stale.members)
    if (fading > uses).any():
        raise Unmeasurable("there are more fading uses than uses")
    return uses, fading
