"""The decision as `runs/<id>/gates.json` keeps it, and its replay: the same numbers, the same verdict, bit for bit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from nocap.domain import Verdict
from nocap.errors import RunError
from nocap.settings import GateSettings
from retrain.gates import GATES, Measurements, decide
from retrain.gates.result import Check, Decision, GateResult
from retrain.gates.thresholds import thresholds_of, thresholds_version

FORMAT = 1


@dataclass(frozen=True)
class Replay:
    """What came out when a run's numbers were decided on again."""

    verdict: Verdict
    is_same: bool
    is_same_code: bool
    differences: tuple[str, ...]
    """Gates whose result is another than the recorded one."""

    @property
    def sentence(self) -> str:
        if self.is_same:
            return f"The same verdict, bit for bit: {self.verdict}."
        why = "by the same code, so gates.json was changed" if self.is_same_code else "by other code than the run's"
        gates = ", ".join(self.differences) or "none of the gates, only the verdict"
        return f"Another result, {why}; the verdict is now {self.verdict}, and these differ: {gates}."


def decision_record(decision: Decision, measurements: str, settings: GateSettings) -> dict[str, Any]:
    """Everything about a decision on `measurements` (their JSON), ready for JSON."""
    return {
        "format": FORMAT,
        **asdict(decision),
        "would_change": what_would_change(decision),
        "thresholds_version": thresholds_version(GATES),
        "thresholds": {gate.name: {name: float(one) for name, one in thresholds_of(gate).items()} for gate in GATES},
        "settings": settings.model_dump(mode="json"),
        "code_digest": code_digest(),
        "measurements_digest": hashlib.sha256(measurements.encode()).hexdigest(),
        "digests": dict(Measurements.from_json(measurements).digests),
    }


def replay(record: Mapping[str, Any], measurements: str) -> Replay:
    """Decides on `measurements` again, with the settings of the record. Raises RunError where they are not its own."""
    try:
        known, settings = record["measurements_digest"], GateSettings.model_validate(record["settings"])
        recorded = {one["gate"]: one for one in record["results"]}
    except (KeyError, TypeError, ValueError) as error:
        raise RunError("gates.json is from an earlier version or damaged; measure the run again.") from error
    if hashlib.sha256(measurements.encode()).hexdigest() != known:
        raise RunError("measurements.json is not what this run was decided on; take both files from a backup.")
    decision = decide(Measurements.from_json(measurements), settings)
    again = {one["gate"]: one for one in json.loads(json.dumps(asdict(decision)))["results"]}
    differences = tuple(name for name in {**recorded, **again} if recorded.get(name) != again.get(name))
    is_same = not differences and record.get("verdict") == decision.verdict
    return Replay(decision.verdict, is_same, record.get("code_digest") == code_digest(), differences)


def what_would_change(decision: Decision) -> list[str]:
    """For each gate that did not pass, what would have made it pass."""
    return [sentence for result in decision.results for sentence in _missing(result)]


def _missing(result: GateResult) -> list[str]:
    if result.verdict is Verdict.PASS:
        return []
    if result.verdict is Verdict.ABSTAIN:
        return [f"{result.sentence.rstrip('.')}: with that much it would decide."]
    failing = [_distance(result, check) for check in result.checks if not check.holds]
    return failing or [f"{result.sentence.rstrip('.')}: with numbers that can be read it would decide."]


def _distance(result: GateResult, check: Check) -> str:
    gate = result.gate.replace("_", " ")
    if check.at_most is not None and not check.upper < check.at_most:
        return (
            f"{gate}: the upper bound of {check.name} would have to fall from {check.upper:.4g} to below"
            f" {check.at_most:.4g}."
        )
    assert check.at_least is not None or check.at_most is not None, "a check has a limit"
    if check.at_least is None:
        return f"{gate}: {check.name} would have to fall below {check.at_most:.4g}."
    return (
        f"{gate}: the lower bound of {check.name} would have to rise from {check.lower:.4g} to above"
        f" {check.at_least:.4g}."
    )


@cache
def code_digest() -> str:
    """SHA-256 over the sources of the gates, so that another rule is never taken for the same."""
    sources = sorted(
        (one for one in files("retrain.gates").iterdir() if one.name.endswith(".py")), key=lambda one: one.name
    )
    return hashlib.sha256(b"\0".join(one.name.encode() + b"\0" + one.read_bytes() for one in sources)).hexdigest()
