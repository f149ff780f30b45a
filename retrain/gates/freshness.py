"""Is the challenger nearer to how members write now?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nocap.settings import GateSettings
from retrain.gates.measurements import Measurements
from retrain.gates.resampling import Array, Unmeasurable, checked, ratio_of_sums, sums_by
from retrain.gates.result import Check, Evidence, Gate, bounded, enough

MAX_LOSS_PER_TOKEN = 100.0
"""Nats; a model that spreads evenly over 150,000 tokens loses 12, so more is a broken measurement."""


class Freshness(Gate):
    name = "freshness"
    reads = ("held_out",)
    protects_from = "an adapter that predicts the members' newest replies no better than the one that serves now"
    statistic = "loss per token of held-out newest human replies given their prompts, challenger minus incumbent"
    rule = "upper bound below 0"
    source = "paired difference of cross-entropies, bootstrap by member (Cameron, Gelbach and Miller 2008)"
    minimum_evidence = (
        "`gates.min_replies` replies of `gates.min_members` members, worth half as many who write evenly (Kish 1965)"
    )
    cost = "one forward pass of each model over the held-out replies"

    def evidence(self, measurements: Measurements, settings: GateSettings) -> Evidence:
        members = measurements.held_out.members
        tokens, _, _ = _columns(measurements)
        found = enough(
            (len(members), settings.min_replies, "replies"),
            (len(set(members)), settings.min_members, "members"),
        )
        if not found.is_enough:
            return found
        shares = sums_by(members, tokens)[:, 0] / tokens.sum()
        evenly, needed = round(float(1 / (shares**2).sum())), settings.min_members // 2
        sentence = f"a few members wrote most of it, worth {evenly} who write evenly; needs {needed}"
        return replace(found, sentence=sentence, is_enough=evenly >= needed)

    def checks(self, measurements: Measurements, settings: GateSettings) -> Sequence[Check]:
        tokens, incumbent, challenger = _columns(measurements)
        sums = sums_by(measurements.held_out.members, challenger - incumbent, tokens)
        found = ratio_of_sums(sums[:, 0], sums[:, 1], settings.resamples, settings.alpha, self.seed(measurements))
        return (bounded("loss per token against the incumbent", found, at_most=0.0),)


def _columns(measurements: Measurements) -> tuple[Array, Array, Array]:
    held_out = measurements.held_out
    tokens = checked("tokens", held_out.tokens, low=1, high=1e6, like=held_out.members)
    incumbent = checked("incumbent loss", held_out.incumbent, low=0, high=1e8, like=held_out.members)
    challenger = checked("challenger loss", held_out.challenger, low=0, high=1e8, like=held_out.members)
    for losses in (incumbent, challenger):
        if losses.size and (losses / tokens).max() > MAX_LOSS_PER_TOKEN:
            raise Unmeasurable(f"a loss of {(losses / tokens).max():.3g} nats per token is beyond any working model")
    return tokens, incumbent, challenger
