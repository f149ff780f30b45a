"""The audit counts as it should, goes on where it stood, and its simulated saboteurs are refused."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from nocap.domain import Verdict
from retrain.gates import audit as audits
from retrain.gates import decide
from retrain.gates.audit import Audit, Rate, audit
from retrain.gates.simulate import SABOTEURS, simulate

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
    for name in ("SABOTEURS", "AT_THE_LIMIT"):
        monkeypatch.setattr(audits, name, dict(list(getattr(audits, name).items())[:1]))
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
    monkeypatch.setattr(audits, "simulate", lambda changes, seed: simulated.append(seed) or simulate(changes, seed))
    again = audit(tmp_path / "cut", 2, TODAY, lambda *_: None)
    assert again.as_json() == whole.as_json()
    assert len(simulated) == 3  # one caricature and two at the limit; the honest ones and the first were kept
    audit(tmp_path / "cut", 2, TODAY, lambda *_: None)
    assert len(simulated) == 3
    assert Audit.from_json(again.as_json()).as_json() == again.as_json()


def test_an_audit_holds_only_where_saboteurs_are_few_and_honest_ones_many() -> None:
    honest, none, many = Rate("honest", 2000, 1800, {}), Rate("a", 2000, 0, {}), Rate("b", 2000, 110, {})
    assert Audit(TODAY, honest, [none], []).holds
    assert not Audit(TODAY, honest, [none, many], []).holds
    assert not Audit(TODAY, Rate("honest", 2000, 1500, {}), [none], []).holds
