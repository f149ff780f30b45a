"""What is kept of a decision, and that its numbers give the same verdict again."""

from __future__ import annotations

import json

import pytest

from nocap.domain import Verdict
from nocap.errors import RunError
from retrain.gates import GATES, Measurements, decide
from retrain.gates.record import code_digest, decision_record, replay, what_would_change
from retrain.gates.thresholds import thresholds_of, thresholds_version
from tests.retrain.gates import factory as make


def kept(measurements: Measurements) -> tuple[dict, str]:
    """The record as it is read from gates.json, and the measurements' text."""
    text = measurements.to_json()
    record = decision_record(decide(measurements, make.SETTINGS), text, make.SETTINGS)
    return json.loads(json.dumps(record)), text


@pytest.mark.parametrize("measurements", [make.good(), make.spoiled(toxic=make.flags(faulty=30)), Measurements()])
def test_a_replay_of_the_same_numbers_is_the_same_bit_for_bit(measurements: Measurements) -> None:
    record, text = kept(measurements)
    again = replay(record, text)
    assert again.is_same and again.is_same_code
    assert again.verdict == record["verdict"]


def test_a_changed_verdict_or_changed_numbers_are_noticed() -> None:
    record, text = kept(make.spoiled(toxic=make.flags(faulty=30)))
    forged = next(one for one in record["results"] if one["gate"] == "toxicity")
    forged["verdict"] = "pass"
    again = replay(record, text)
    assert not again.is_same
    assert again.differences == ("toxicity",)
    assert "gates.json was changed" in again.sentence
    with pytest.raises(RunError, match="not what this run was decided on"):
        replay(record, make.good().to_json())
    with pytest.raises(RunError, match="earlier version"):
        replay({"results": []}, text)


def test_a_record_holds_thresholds_evidence_and_digests() -> None:
    record, _ = kept(make.good())
    assert record["verdict"] == Verdict.PASS and record["would_change"] == []
    assert record["thresholds"]["toxicity"] == {"margin": 0.01}
    assert record["thresholds_version"] == thresholds_version(GATES)
    assert record["code_digest"] == code_digest()
    assert record["digests"]["base"] == "b" * 64
    assert record["settings"]["alpha"] == 0.05
    assert all(one["evidence"] >= one["evidence_needed"] for one in record["results"])


def test_what_would_have_changed_the_verdict_is_a_bound_or_the_missing_evidence() -> None:
    refused = what_would_change(decide(make.spoiled(toxic=make.flags(faulty=30)), make.SETTINGS))
    assert len(refused) == 1
    assert "upper bound of toxic replies" in refused[0] and "below 0.01" in refused[0]
    few = what_would_change(decide(make.spoiled(held_out=make.held_out(members=30)), make.SETTINGS))
    assert any("freshness: needs 1,000 replies of 40 members" in one for one in few)


def test_another_threshold_is_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    from retrain.gates import toxicity
    from retrain.gates.thresholds import Threshold

    before = thresholds_version(GATES)
    monkeypatch.setattr(toxicity, "MARGIN", Threshold(0.02, "looser"))
    assert thresholds_version(GATES) != before
    assert all(one.why for gate in GATES for one in thresholds_of(gate).values())
