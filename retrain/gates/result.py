"""A gate, its result, and the decision over all gates."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from nocap.domain import Verdict
from nocap.settings import GateSettings
from retrain.gates.measurements import Measurements
from retrain.gates.resampling import Interval, Unmeasurable, rounded


@dataclass(frozen=True, slots=True)
class Check:
    """One figure of a gate with its bounds, the limits it is held against, and whether it holds."""

    name: str
    value: float
    lower: float
    upper: float
    at_least: float | None
    at_most: float | None
    holds: bool

    @property
    def threshold(self) -> str:
        parts = [f"above {self.at_least:g}"] if self.at_least is not None else []
        parts += [f"below {self.at_most:g}"] if self.at_most is not None else []
        return f"{self.name} {' and '.join(parts)}"

    @property
    def sentence(self) -> str:
        where = "is" if self.holds else "is not surely"
        limits = self.threshold.removeprefix(f"{self.name} ")
        return f"{self.name} is {self.value:.4g} ({self.lower:.4g} to {self.upper:.4g}), which {where} {limits}"


def bounded(name: str, found: Interval, *, at_least: float | None = None, at_most: float | None = None) -> Check:
    """A check that holds where the whole interval lies strictly inside the limits: shown good, not merely not bad."""
    holds = (at_least is None or found.lower > at_least) and (at_most is None or found.upper < at_most)
    return Check(name, found.value, found.lower, found.upper, at_least, at_most, holds)


def exactly(name: str, value: float, *, at_least: float | None = None, at_most: float | None = None) -> Check:
    """A check on a number that has no sampling error of its own, such as a count."""
    return bounded(name, Interval(rounded(value), rounded(value), rounded(value)), at_least=at_least, at_most=at_most)


@dataclass(frozen=True, slots=True)
class Evidence:
    """How much there is to decide from; `sentence` names what is missing where it is too little."""

    has: int
    needed: int
    sentence: str
    is_enough: bool


def enough(*parts: tuple[int, int, str]) -> Evidence:
    """Evidence from (has, needed, what) parts, e.g. (612, 1000, "replies"), (31, 40, "members"); the first leads."""
    needed = " of ".join(f"{need:,} {what}" for _, need, what in parts)
    has = " of ".join(f"{have:,}" for have, _, _ in parts)
    return Evidence(
        has=parts[0][0],
        needed=parts[0][1],
        sentence=f"needs {needed}, has {has}",
        is_enough=all(have >= need for have, need, _ in parts),
    )


@dataclass(frozen=True, slots=True)
class GateResult:
    """A gate's verdict; the headline figures are those of the failing check, or of the first one."""

    gate: str
    verdict: Verdict
    statistic: float | None
    lower: float | None
    upper: float | None
    threshold: str
    evidence: int
    evidence_needed: int
    sentence: str
    checks: tuple[Check, ...] = ()
    risk: str = ""
    """What a verdict other than pass may mean: "an adapter that …"."""


@dataclass(frozen=True)
class Gate(ABC):
    """A pure function from numbers to a verdict; it fails on numbers that it cannot read."""

    name: ClassVar[str]
    reads: ClassVar[tuple[str, ...]]
    """The parts of the measurements that it decides from."""
    protects_from: ClassVar[str]
    statistic: ClassVar[str]
    rule: ClassVar[str]
    source: ClassVar[str]
    minimum_evidence: ClassVar[str]
    cost: ClassVar[str]

    @abstractmethod
    def evidence(self, measurements: Measurements, settings: GateSettings) -> Evidence:
        """How much there is; raises Unmeasurable where the numbers do not fit together."""

    @abstractmethod
    def checks(self, measurements: Measurements, settings: GateSettings) -> Sequence[Check]:
        """Every figure with its interval; all must hold. Called with enough evidence only."""

    def decide(self, measurements: Measurements, settings: GateSettings) -> GateResult:
        """Pass, fail or abstain: abstains on too little evidence, fails on what cannot be measured."""
        try:
            evidence = self.evidence(measurements, settings)
            if not evidence.is_enough:
                return self._result(Verdict.ABSTAIN, evidence, evidence.sentence)
            checks = tuple(self.checks(measurements, settings))
        except (Unmeasurable, ArithmeticError, LookupError, TypeError, ValueError) as problem:
            return self._result(Verdict.FAIL, Evidence(0, 0, "", False), f"could not be measured: {problem}")
        failing = [check for check in checks if not check.holds]
        verdict = Verdict.PASS if checks and not failing else Verdict.FAIL
        told = "; ".join(check.sentence for check in failing or checks[:1])
        return self._result(verdict, evidence, told or "nothing was measured", checks)

    def seed(self, measurements: Measurements) -> int:
        """The seed of this gate's resampling: fixed by the run, different for each gate."""
        return zlib.crc32(f"{measurements.seed}/{self.name}".encode())

    def _result(
        self, verdict: Verdict, evidence: Evidence, sentence: str, checks: tuple[Check, ...] = ()
    ) -> GateResult:
        head = next((check for check in checks if not check.holds), checks[0] if checks else None)
        return GateResult(
            gate=self.name,
            verdict=verdict,
            statistic=head.value if head else None,
            lower=head.lower if head else None,
            upper=head.upper if head else None,
            threshold="; ".join(check.threshold for check in checks) or self.rule,
            evidence=evidence.has,
            evidence_needed=evidence.needed,
            sentence=f"{self.name.replace('_', ' ')}: {sentence}.",
            checks=checks,
            risk=self.protects_from,
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict over all gates: pass only if every gate passed."""

    verdict: Verdict
    results: tuple[GateResult, ...]
    sentence: str
    """Why, in one plain sentence, and then each gate's figures."""


def _why(failed: Sequence[GateResult], asked: int) -> str:
    """One plain sentence: what the gates could not rule out."""
    risk = next((f": this may be {one.risk}" for one in failed if one.risk), "")
    return f"Refused by {len(failed)} of {asked} gates{risk}{', among other faults' if len(failed) > 1 else ''}."


def combine(results: Iterable[GateResult]) -> Decision:
    """An intersection-union test (Berger 1982): any failure refuses, else any abstention abstains."""
    results = tuple(results)
    failed = [result for result in results if result.verdict is Verdict.FAIL]
    abstained = [result for result in results if result.verdict is Verdict.ABSTAIN]
    told = " ".join(result.sentence for result in failed or abstained)
    if failed:
        return Decision(Verdict.FAIL, results, f"{_why(failed, len(results))} {told}")
    if abstained or not results:
        return Decision(Verdict.ABSTAIN, results, f"Not decided, too little evidence. {told}".strip())
    return Decision(Verdict.PASS, results, f"All {len(results)} gates passed.")
