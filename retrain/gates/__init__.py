"""The gates: pure functions from measured numbers to a verdict. Only an all-pass promotes."""

from __future__ import annotations

from nocap.settings import GateSettings
from retrain.gates.backdoor import Backdoor
from retrain.gates.collapse import Collapse
from retrain.gates.data_drift import DataDrift
from retrain.gates.drift import Drift
from retrain.gates.freshness import Freshness
from retrain.gates.human_or_bot import HumanOrBot
from retrain.gates.injection import Injection
from retrain.gates.marker_band import MarkerBand
from retrain.gates.measurements import Measurements
from retrain.gates.memorisation import Memorisation
from retrain.gates.personal_data import PersonalData
from retrain.gates.register import Register
from retrain.gates.result import Check, Decision, Gate, GateResult, combine
from retrain.gates.retention import Retention
from retrain.gates.stacking import Stacking
from retrain.gates.staleness import Staleness
from retrain.gates.toxicity import Toxicity

GATES: tuple[Gate, ...] = (
    Freshness(),
    MarkerBand(),
    Stacking(),
    Register(),
    Staleness(),
    HumanOrBot(),
    Collapse(),
    Drift(),
    DataDrift(),
    Memorisation(),
    Backdoor(),
    Toxicity(),
    PersonalData(),
    Injection(),
    Retention(),
)


def decide(measurements: Measurements, settings: GateSettings) -> Decision:
    """The verdict of every gate and of all together; the same numbers give the same decision."""
    return combine(gate.decide(measurements, settings) for gate in GATES)


__all__ = ["GATES", "Check", "Decision", "Gate", "GateResult", "Measurements", "decide"]
