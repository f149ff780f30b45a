from __future__ import annotations

import json
from dataclasses import replace

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from nocap.errors import RunError
from retrain import bom
from retrain.bom import build_bom, write_bom
from tests.retrain.facts_of_a_run import build_facts


def test_the_bill_is_valid_cyclonedx_1_6_and_names_adapter_base_data_and_libraries(tmp_path):
    facts = build_facts()
    path = write_bom(tmp_path, facts)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(path.read_text()) is None
    content = json.loads(path.read_text())
    component = content["metadata"]["component"]
    assert (component["type"], component["name"]) == ("machine-learning-model", "genz-v3")
    assert component["hashes"][0]["content"] == facts.adapter.digest
    names = {one["name"]: one["type"] for one in content["components"]}
    assert names["embedded"] == "machine-learning-model"
    assert names["trl"] == "library"
    assert names["snapshot of run run-1"] == "data"


def test_energy_is_in_kwh_and_says_how_it_was_measured():
    facts = build_facts()
    (energy,) = build_bom(facts)["metadata"]["component"]["modelCard"]["considerations"]["environmentalConsiderations"][
        "energyConsumptions"
    ]
    assert energy["activityEnergyCost"] == {"value": pytest.approx(0.5), "unit": "kWh"}
    assert "assumed watts" in energy["properties"][0]["value"]


def test_the_bill_names_the_preference_stages(tmp_path):
    facts = build_facts()
    stages = {"thumbs": {"examples": 410, "steps": 26}}
    after = replace(facts, training=dict(facts.training) | stages)
    write_bom(tmp_path, after)
    card = build_bom(after)["metadata"]["component"]["modelCard"]
    assert {"name": "nocap:stage:2", "value": "KTO on voted answers: 410 examples, 26 steps"} in card["properties"]
    assert card["modelParameters"]["approach"]["type"] == "reinforcement-learning"
    before = build_bom(facts)["metadata"]["component"]["modelCard"]
    assert before["modelParameters"]["approach"]["type"] == "supervised"


def test_the_same_adapter_has_the_same_serial_number_and_another_another():
    facts = build_facts()
    other = replace(facts, adapter=replace(facts.adapter, digest="e" * 64))
    first, again, different = (build_bom(one)["serialNumber"] for one in (facts, facts, other))
    assert first == again != different


def test_an_invalid_bill_is_never_written(tmp_path, monkeypatch):
    monkeypatch.setattr(bom, "build_bom", lambda facts: {"bomFormat": "CycloneDX", "specVersion": "1.6", "color": 1})
    with pytest.raises(RunError, match="not valid CycloneDX"):
        write_bom(tmp_path, build_facts())
    assert not list(tmp_path.iterdir())
