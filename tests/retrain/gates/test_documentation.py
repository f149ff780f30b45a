from __future__ import annotations

from pathlib import Path

from retrain.gates import GATES
from retrain.gates.describe import describe

PAGE = Path(__file__).parents[3] / "docs" / "gates.md"


def test_the_page_says_what_the_gates_do() -> None:
    assert PAGE.read_text(encoding="utf-8") == describe(), "run: python -m retrain.gates.describe > docs/gates.md"


def test_every_gate_says_what_it_protects_from_and_how() -> None:
    for gate in GATES:
        facts = (gate.protects_from, gate.statistic, gate.rule, gate.source, gate.minimum_evidence, gate.cost)
        assert all(len(fact) > 5 for fact in facts), gate.name
    assert len({gate.name for gate in GATES}) == len(GATES)
