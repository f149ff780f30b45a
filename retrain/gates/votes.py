"""Do members prefer the canary, blind, and does nothing get worse where it answers? Decided again at every look."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import betainc, betaln
from scipy.stats import fisher_exact

from nocap.domain import Verdict
from nocap.settings import CanarySettings
from retrain.gates.measurements import Counts
from retrain.gates.resampling import Array, Unmeasurable, counts, rounded
from retrain.gates.result import Check, GateResult
from retrain.gates.thresholds import Threshold

STRONGEST_LEFT_OUT = Threshold(3, "so that three friends of the canary alone never decide; costs about 20 voters")
MIN_HARMED = Threshold(3, "members or requests; fewer could be one person's temper")
VOTES_A_MEMBER = Threshold(
    3, "a third of a bet each: by simulation 2.5 % false promotions where members' tastes differ, 7.5 % without a cap"
)
BRIGADE_LEVEL = Threshold(0.001, "looked at often, so far below 0.05")
_STAKES: Array = (np.arange(32) + 0.5) / 32
"""λ of the mixture: its prior is uniform over win rates (1 + λ)/2 between one half and one."""
_KINDS = 3
"""Harms that are watched for; each may withdraw a harmless canary with a third of alpha."""


@dataclass(frozen=True, slots=True)
class Harm:
    """How many of those who met each adapter since the canary began were harmed."""

    canary: int = 0
    canary_met: int = 0
    live: int = 0
    live_met: int = 0


@dataclass(frozen=True, slots=True)
class Trial:
    """The canary phase so far; one entry per duel vote that chose a side, the oldest first."""

    hours: float = 0.0
    voters: tuple[str, ...] = ()
    wins: Counts = ()
    """1 where the canary was preferred, 0 where the live adapter was."""
    newcomers: Counts = ()
    """1 where nothing of the voter was known before the canary began; such votes do not count."""
    undecided: int = 0
    """Ties, and votes that found both bad."""
    disliked: Harm = Harm()
    """Members who called an answer cringe or reported one; met: members who were answered."""
    failed: Harm = Harm()
    """Requests without an answer."""
    slow: Harm = Harm()
    """Requests that took too long."""


class CommunityVotes:
    """The gate of the canary phase: pass promotes, fail withdraws, abstain goes on."""

    name = "community_votes"
    protects_from = "an adapter that passes every measurement but that members like less, or that harms where it serves"
    statistic = (
        "e-process of blind duels, the canary against the live adapter, a member's first "
        f"{VOTES_A_MEMBER:g} votes together one bet; and of members or "
        "requests harmed, the canary's share against its share of the traffic"
    )
    rule = (
        f"promoted where the duels' e-value without the canary's {STRONGEST_LEFT_OUT:g} strongest friends reaches"
        " 1/alpha; withdrawn where the opposite's or a harm's does, or time is up"
    )
    source = (
        "testing by betting with a mixture of stakes (Waudby-Smith & Ramdas 2024, doi:10.1093/jrsssb/qkad009);"
        " newcomers against known members by Fisher's exact test"
    )
    minimum_evidence = "`canary.min_voters` known members' votes and `canary.min_hours`"
    cost = "none beyond members' votes"

    def decide(self, trial: Trial, settings: CanarySettings) -> GateResult:
        """Pass, fail or abstain; fails on numbers that cannot be read."""
        try:
            return self._decide(trial, settings)
        except (Unmeasurable, ArithmeticError, LookupError, TypeError, ValueError) as problem:
            return self._result(Verdict.FAIL, 0, settings, f"could not be measured: {problem}")

    def _decide(self, trial: Trial, settings: CanarySettings) -> GateResult:
        bets, newcomers = _voters(trial)
        voters = len(bets)
        for what, harm in (("disliked", trial.disliked), ("failed", trial.failed), ("slow", trial.slow)):
            found = harm_evidence(harm)
            if found >= _KINDS / settings.alpha:
                told = (
                    f"{harm.canary} of {harm.canary_met} {what} with the canary, {harm.live} of {harm.live_met} with"
                    " the live adapter"
                )
                return self._result(Verdict.FAIL, voters, settings, told, found)
        against = duel_evidence(-bets)
        if against >= 1 / settings.alpha:
            told = f"{voters} members' duels prefer the live adapter (evidence {against:.3g})"
            return self._result(Verdict.FAIL, voters, settings, told, against)
        evidence = duel_evidence(_without_strongest(bets))
        if (brigade := _brigade(bets, newcomers)) is not None:
            return self._result(Verdict.ABSTAIN, voters, settings, brigade, evidence)
        missing = _missing(bets, evidence, trial, settings)
        if missing is None:
            told = f"{voters} members' duels prefer the canary (evidence {evidence:.3g})"
            return self._result(Verdict.PASS, voters, settings, told, evidence)
        if trial.hours >= settings.max_hours:
            told = f"not shown to be preferred within {settings.max_hours:g} hours: {missing}"
            return self._result(Verdict.FAIL, voters, settings, told, evidence)
        return self._result(Verdict.ABSTAIN, voters, settings, missing, evidence)

    def _result(
        self, verdict: Verdict, voters: int, settings: CanarySettings, told: str, evidence: float | None = None
    ) -> GateResult:
        limit = 1 / settings.alpha
        value = None if evidence is None else rounded(min(evidence, 1e12))
        holds = verdict is Verdict.PASS
        checks = () if value is None else (Check("evidence", value, value, value, limit, None, holds),)
        return GateResult(
            gate=self.name,
            verdict=verdict,
            statistic=value,
            lower=value,
            upper=value,
            threshold=f"evidence above {limit:g}",
            evidence=voters,
            evidence_needed=settings.min_voters,
            sentence=f"community votes: {told}.",
            checks=checks,
        )


def duel_evidence(bets: Array) -> float:
    """The e-value against "the canary is not preferred": mean over stakes λ of the product of 1 + λ·bet.

    `bets`: each member's, from -1 (only the live adapter) to 1 (only the canary). A member is one bet however often
    they vote, because one member's votes are not independent of each other.
    """
    if not len(bets):
        return 1.0
    return float(np.exp(np.log1p(np.outer(_STAKES, bets)).sum(axis=1)).mean())


def harm_evidence(harm: Harm) -> float:
    """The e-value against "harm falls on the canary at most by its share of those who met it".

    Mixture of likelihood ratios over all larger shares, uniformly. 1 where too few were harmed to tell.
    """
    columns = counts("harm", (harm.canary, harm.canary_met, harm.live, harm.live_met))
    if harm.canary > harm.canary_met or harm.live > harm.live_met:
        raise Unmeasurable(f"more were harmed than met: {columns.astype(int).tolist()}")
    if harm.canary < MIN_HARMED or not harm.live_met:
        return 1.0
    share = harm.canary_met / (harm.canary_met + harm.live_met)
    tail = float(1 - betainc(harm.canary + 1, harm.live + 1, share))
    if tail <= 0:
        return 0.0
    log_evidence = float(betaln(harm.canary + 1, harm.live + 1)) + math.log(tail)
    log_evidence -= harm.canary * math.log(share) + (harm.live + 1) * math.log1p(-share)
    return math.exp(min(log_evidence, 300.0))


def _voters(trial: Trial) -> tuple[Array, Array]:
    """Each known member's and each newcomer's bet: their first votes, a third each, -1 to 1."""
    if not len(trial.voters) == len(trial.wins) == len(trial.newcomers):
        raise Unmeasurable("votes, voters and newcomers differ in number")
    if not math.isfinite(trial.hours) or trial.hours < 0:
        raise Unmeasurable(f"the canary phase has lasted {trial.hours} hours")
    if not set(trial.wins) | set(trial.newcomers) <= {0, 1}:
        raise Unmeasurable("a vote is neither won nor lost")
    sides: tuple[dict[str, list[int]], dict[str, list[int]]] = (defaultdict(list), defaultdict(list))
    for voter, win, is_new in zip(trial.voters, trial.wins, trial.newcomers, strict=True):
        sides[is_new][voter].append(2 * win - 1)
    return _bets(sides[0]), _bets(sides[1])


def _bets(votes: Mapping[str, Sequence[int]]) -> Array:
    cap = int(VOTES_A_MEMBER)
    return np.array([sum(one[:cap]) / cap for one in votes.values()], dtype=np.float64)


def _without_strongest(bets: Array) -> Array:
    kept = max(0, len(bets) - int(STRONGEST_LEFT_OUT))
    return np.sort(bets)[:kept]


def _brigade(known: Array, new: Array) -> str | None:
    """A sentence where newcomers favour the canary far more than known members do."""
    if len(new) < 5 or not len(known):
        return None
    table = [_sides(new), _sides(known)]
    if fisher_exact(table, alternative="greater").pvalue >= BRIGADE_LEVEL:
        return None
    return f"{len(new)} newcomers vote unlike the {len(known)} known members; look whether votes are bought"


def _sides(bets: Array) -> list[int]:
    return [int((bets > 0).sum()), int((bets < 0).sum())]


def _missing(bets: Array, evidence: float, trial: Trial, settings: CanarySettings) -> str | None:
    """What the decision still waits for, in words; None where nothing is missing."""
    if len(bets) < settings.min_voters:
        return f"needs votes of {settings.min_voters} known members, has {len(bets)}"
    if trial.hours < settings.min_hours:
        return f"needs {settings.min_hours:g} hours, has {trial.hours:.0f}"
    if evidence >= 1 / settings.alpha:
        return None
    growth = float(np.log1p(np.outer(_STAKES, bets)).mean(axis=1).max())
    if growth <= 0:
        return "members do not prefer it so far, so no number of votes can be named"
    voters = math.ceil(math.log(1 / settings.alpha / evidence) / growth)
    return f"needs about {voters} more members' votes at the present rate, {(bets > 0).mean():.0%} of them for it"
