"""Does the challenger pile several markers into one reply?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nocap.settings import GateSettings
from retrain.gates.measurements import Measurements
from retrain.gates.resampling import Array, Unmeasurable, cluster_weights, counts, interval
from retrain.gates.result import Check, Evidence, Gate, bounded, enough, exactly
from retrain.gates.thresholds import Threshold

MORE_STACKED = Threshold(0.1, "share of replies; the founding run's trying-too-hard was 8 % of votes")


class Stacking(Gate):
    name = "stacking"
    reads = ("stacked",)
    protects_from = "an adapter that tries too hard: three or more markers in one reply where members use one"
    statistic = "share of replies with three or more uses of the lexicon, challenger minus held-out human replies"
    rule = f"upper bound below {MORE_STACKED:g}"
    source = "difference of shares, bootstrap by member"
    minimum_evidence = "four fifths of `gates.sampled_replies` replies, half of `gates.min_members` members"
    cost = "none beyond the replies that human-or-bot draws"

    def evidence(self, measurements: Measurements, settings: GateSettings) -> Evidence:
        _, _, replies, _ = _columns(measurements)
        return enough(
            (int(replies.sum()), settings.sampled_replies * 4 // 5, "replies"),
            (int((replies > 0).sum()), max(2, settings.min_members // 2), "members"),
        )

    def checks(self, measurements: Measurements, settings: GateSettings) -> Sequence[Check]:
        replies, stacked, own_replies, own_stacked = _columns(measurements)
        title = "stacked replies, above the members' share"
        if not own_stacked.any():
            return (exactly(title, -float(stacked.sum() / replies.sum()), at_most=MORE_STACKED),)
        weights = cluster_weights(len(replies), settings.resamples, self.seed(measurements))

        def excess(drawn: Array) -> Array:
            return np.asarray((drawn @ own_stacked) / (drawn @ own_replies) - (drawn @ stacked) / (drawn @ replies))

        whole = float(excess(np.ones((1, len(replies))))[0])
        found = interval(whole, excess(weights), len(replies), settings.alpha)
        return (bounded(title, found, at_most=MORE_STACKED),)


def _columns(measurements: Measurements) -> tuple[Array, Array, Array, Array]:
    """Replies and stacked replies per member: of people, of the challenger."""
    part = measurements.stacked
    replies = counts("human replies", part.human_replies, part.members)
    stacked = counts("human stacked replies", part.human_stacked, part.members)
    own_replies = counts("challenger replies", part.challenger_replies, part.members)
    own_stacked = counts("challenger stacked replies", part.challenger_stacked, part.members)
    if (stacked > replies).any() or (own_stacked > own_replies).any():
        raise Unmeasurable("there are more stacked replies than replies")
    if own_replies.sum() and not replies.sum():
        raise Unmeasurable("there are no human replies")
    return replies, stacked, own_replies, own_stacked
