"""The audit counts as it should, goes on where it stood, and its simulated saboteurs are refused."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest

from nocap.domain import Verdict
from retrain.gates import GATES, Measurements, decide
from retrain.gates import audit as audits
from retrain.gates.audit import Audit, Rate, audit
from retrain.gates.simulate import EFFECTS, SABOTEURS, simulate
from retrain.gates.simulate_votes import PREFERRED, UNPREFERRED, Phase, is_ever_promoted

TODAY = date(2026, 11, 25)


def test_bounds_are_exact() -> None:
    none, some = Rate("x", 2000, 0, {}), Rate("x", 100, 5, {})
    assert none.upper == pytest.approx(1 - 0.05 ** (1 / 2000))
    assert none.lower == 0.0
    assert some.lower < 0.05 < some.upper < 0.11


@pytest.mark.parametrize("kind", SABOTEURS)
def test_each_kind_of_saboteur_is_refused_more_often_than_not(kind: str) -> None:
    verdicts = [decide(simulate(SABOTEURS[kind], seed), audits.SETTINGS).verdict for seed in (1, 2)]
    assert verdicts.count(Verdict.FAIL) >= 1


def test_the_same_seed_is_the_same_adapter_and_another_seed_another() -> None:
    assert simulate({}, 3) == simulate({}, 3)
    assert simulate({}, 3) != simulate({}, 4)


def test_an_interrupted_audit_goes_on_and_ends_as_an_unharmed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audits, "BLOCK", 1)
    for name in ("SABOTEURS", "EFFECTS", "UNPREFERRED"):
        monkeypatch.setattr(audits, name, dict(list(getattr(audits, name).items())[:1]))
    monkeypatch.setattr(audits, "PREFERRED", {})
    monkeypatch.setattr(audits, "SIZES", audits.SIZES[:1])
    monkeypatch.setattr(audits, "_CASES", audits._CASES[:1])
    whole = audit(tmp_path / "whole", 2, TODAY, lambda *_: None)

    class Killed(Exception):
        pass

    def kill(kind: str, done: int, total: int) -> None:
        if kind == "caricature":
            raise Killed

    with pytest.raises(Killed):
        audit(tmp_path / "cut", 2, TODAY, kill)
    half_a_line = (tmp_path / "cut" / "caricature.jsonl").open("a")
    half_a_line.write('{"code": ')
    half_a_line.close()
    simulated: list[int] = []
    monkeypatch.setattr(audits, "simulate", lambda *one: simulated.append(one[1]) or simulate(*one))
    again = audit(tmp_path / "cut", 2, TODAY, lambda *_: None)
    assert again.as_json() == whole.as_json()
    asked = len(simulated)
    assert 0 < asked < 2 * len(GATES)  # one caricature and one for one gate; what was done before was kept
    audit(tmp_path / "cut", 2, TODAY, lambda *_: None)
    assert len(simulated) == asked
    assert Audit.from_json(again.as_json()).as_json() == again.as_json()


def test_an_audit_holds_only_where_saboteurs_are_few_and_honest_ones_many() -> None:
    honest, none, many = Rate("honest", 2000, 1800, {}), Rate("a", 2000, 0, {}), Rate("b", 2000, 110, {})

    def holds(honest: Rate = honest, saboteurs: list[Rate] = [none], votes: list[Rate] = [none]) -> bool:  # noqa: B006
        return Audit(TODAY, [honest], saboteurs, [], votes, []).holds

    assert holds()
    assert not holds(saboteurs=[none, many])
    assert not holds(honest=Rate("honest", 2000, 1500, {}))
    assert not holds(votes=[many])


@pytest.mark.parametrize("name", EFFECTS)
def test_each_gate_passes_half_way_to_its_limit_more_often_than_twice_as_far(name: str) -> None:
    effect = EFFECTS[name]
    gate = next(one for one in GATES if one.name == effect.gate)

    def passes(share: float) -> int:
        drawn = [simulate(effect.parts(share), seed, only=gate.reads) for seed in range(4)]
        return sum(gate.decide(one, audits.SETTINGS).verdict is Verdict.PASS for one in drawn)

    assert passes(0.25) >= 3
    assert passes(2.0) == 0


def test_parts_that_are_left_out_change_nothing_in_the_others() -> None:
    assert simulate({}, 3, only=("drift",)).drift == simulate({}, 3).drift
    assert simulate({}, 3, only=("drift",)).markers == Measurements().markers


def test_a_canary_that_is_preferred_is_found_and_one_that_is_not_seldom_is() -> None:
    def promoted(phase: Phase) -> int:
        return sum(is_ever_promoted(phase(np.random.default_rng(seed))) for seed in range(6))

    assert promoted(PREFERRED["70 % of the duels won, 40 members"]) >= 3
    assert all(promoted(phase) <= 1 for phase in UNPREFERRED.values())
