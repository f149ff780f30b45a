"""Has the challenger learned something, and moved no further from its base than the community's speech demands?"""

from __future__ import annotations

from collections.abc import Sequence

from nocap.settings import GateSettings
from retrain.gates.measurements import Measurements
from retrain.gates.resampling import Array, checked, counts, difference, ratio_of_sums, sums_by
from retrain.gates.result import Check, Evidence, Gate, bounded, enough
from retrain.gates.thresholds import Threshold

NO_OP = Threshold(0.005, "nats per token below which the adapter does nothing that could be noticed")
UNEARNED = Threshold(
    1.0,
    "nats per token; a model that speaks as members do must be as far from its base as they are, and that is what it "
    "saves on their held-out replies: an absolute limit would refuse every honest adapter of a base that knows no chat",
)
MIN_ANCHORS = 200


class Drift(Gate):
    name = "drift"
    reads = ("drift", "held_out")
    protects_from = "an adapter that does nothing, or one that left its base further than the members' speech demands"
    statistic = (
        "KL(challenger ‖ base) per token of the challenger's own replies to fixed anchor prompts; the same less the "
        "loss per token that the challenger saves against the base on held-out human replies"
    )
    rule = f"KL surely above {NO_OP:g} nats; KL beyond what it saves surely below {UNEARNED:g} nats"
    source = (
        "the KL penalty of RLHF (Ziegler et al. 2019), here a bound; bootstrap by anchor and by member, joined by "
        "MOVER (Zou & Donner 2008)"
    )
    minimum_evidence = f"{MIN_ANCHORS} anchor prompts, held-out replies of `gates.min_members` members"
    cost = "one reply and two forward passes per anchor"

    def evidence(self, measurements: Measurements, settings: GateSettings) -> Evidence:
        kl, _ = _columns(measurements)
        _saved(measurements)
        return enough(
            (len(kl), MIN_ANCHORS, "anchor prompts"),
            (len(set(measurements.held_out.members)), settings.min_members, "members"),
        )

    def checks(self, measurements: Measurements, settings: GateSettings) -> Sequence[Check]:
        seed = self.seed(measurements)
        kl = ratio_of_sums(*_columns(measurements), settings.resamples, settings.alpha, seed)
        sums = sums_by(measurements.held_out.members, *_saved(measurements))
        saved = ratio_of_sums(sums[:, 0], sums[:, 1], settings.resamples, settings.alpha, seed + 1)
        return (
            bounded("KL per token from the base", kl, at_least=NO_OP),
            bounded("KL beyond the loss saved on held-out replies", difference(kl, saved), at_most=UNEARNED),
        )


def _columns(measurements: Measurements) -> tuple[Array, Array]:
    drift = measurements.drift
    tokens = counts("tokens", drift.tokens)
    kl = checked("KL", drift.kl, low=-1e-3, high=1e8, like=drift.tokens)
    return kl, tokens


def _saved(measurements: Measurements) -> tuple[Array, Array]:
    """Loss saved on each held-out reply, base minus challenger, and its tokens."""
    held_out = measurements.held_out
    tokens = checked("tokens", held_out.tokens, low=1, high=1e6, like=held_out.members)
    base = checked("base loss", held_out.base, low=0, high=1e8, like=held_out.members)
    challenger = checked("challenger loss", held_out.challenger, low=0, high=1e8, like=held_out.members)
    return base - challenger, tokens
