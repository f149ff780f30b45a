"""The adapter's bill of materials: CycloneDX 1.6 JSON with a model card (https://cyclonedx.org/docs/1.6/json/)."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from nocap.domain import Verdict
from nocap.errors import RunError
from retrain.facts import RunFacts, library_versions
from retrain.run_folder import write_file

BOM_FILE = "bom.json"
JOULES_PER_KWH = 3_600_000
BASE_REF, DATASET_REF = "base-model", "training-data"


def write_bom(folder: Path, facts: RunFacts) -> Path:
    """Writes `folder`/bom.json. Raises RunError where it would not be valid CycloneDX 1.6."""
    text = json.dumps(build_bom(facts), indent=1, ensure_ascii=False)
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if problem is not None:
        raise RunError(f"The bill of materials of run {facts.run.id} is not valid CycloneDX 1.6; report this as a bug.")
    write_file(folder / BOM_FILE, text)
    return folder / BOM_FILE


def build_bom(facts: RunFacts) -> dict[str, Any]:
    """The document; the same run always has the same serial number."""
    assert facts.adapter is not None, "only a trained adapter has a bill of materials"
    adapter, libraries = _adapter(facts), _libraries()
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, facts.adapter.digest)}",
        "version": 1,
        "metadata": {"timestamp": facts.ended_at.isoformat(timespec="seconds"), "component": adapter},
        "components": [_base(facts), _dataset(facts), *libraries],
        "dependencies": [
            {"ref": facts.adapter.name, "dependsOn": [BASE_REF, DATASET_REF, *(one["bom-ref"] for one in libraries)]}
        ],
    }


def _adapter(facts: RunFacts) -> dict[str, Any]:
    assert facts.adapter is not None
    return {
        "type": "machine-learning-model",
        "bom-ref": facts.adapter.name,
        "name": facts.adapter.name,
        "version": facts.adapter.digest[:12],
        "description": f"LoRA adapter of rank {facts.adapter.rank} that speaks as the community {facts.run.voice}.",
        "licenses": [_licence(facts.licence)],
        "hashes": [{"alg": "SHA-256", "content": facts.adapter.digest}],
        "components": [
            {"type": "file", "name": name, "hashes": [{"alg": "SHA-256", "content": digest}]}
            for name, digest in sorted(facts.adapter.files.items())
        ],
        "modelCard": {
            "modelParameters": _parameters(facts),
            "quantitativeAnalysis": {"performanceMetrics": _metrics(facts)},
            "considerations": _considerations(facts),
            "properties": _properties(facts),
        },
    }


def _parameters(facts: RunFacts) -> dict[str, Any]:
    return {
        "approach": {"type": "reinforcement-learning" if facts.preference_stages else "supervised"},
        "task": "text-generation",
        "architectureFamily": "transformer",
        "modelArchitecture": f"LoRA on {facts.settings.model.base}",
        "datasets": [{"ref": DATASET_REF}],
        "inputs": [{"format": "text"}],
        "outputs": [{"format": "text"}],
    }


def _metrics(facts: RunFacts) -> list[dict[str, Any]]:
    results = facts.decision.results if facts.decision else ()
    return [
        {
            "type": one.gate,
            "value": f"{one.statistic:.6g}",
            "slice": f"verdict: {one.verdict}",
            **(
                {"confidenceInterval": {"lowerBound": f"{one.lower:.6g}", "upperBound": f"{one.upper:.6g}"}}
                if one.lower is not None and one.upper is not None
                else {}
            ),
        }
        for one in results
        if one.statistic is not None
    ]


def _considerations(facts: RunFacts) -> dict[str, Any]:
    return {
        "users": ["Members of the community that it learnt from."],
        "useCases": ["A chat bot that says it is a bot and answers in its community's own voice."],
        "technicalLimitations": [
            "It knows no more than its base model, and may be wrong.",
            "It dates: slang moves on, and the adapter is meant to be retrained.",
        ],
        "ethicalConsiderations": [
            {
                "name": "It imitates how consenting members write.",
                "mitigationStrategy": "Consent is looked up for every row, rare phrases need several members, planted"
                " canaries test memorisation, and erased rows are absent from the next adapter.",
            }
        ],
        "environmentalConsiderations": {"energyConsumptions": [_energy(facts)]},
    }


def _energy(facts: RunFacts) -> dict[str, Any]:
    energy = {"value": facts.cost.energy_joules / JOULES_PER_KWH, "unit": "kWh"}
    source = "assumed watts times seconds" if facts.cost.energy_is_estimate else "the GPU's energy counter"
    return {
        "activity": "fine-tuning",
        "energyProviders": [{"organization": {"name": "unknown"}, "energySource": "unknown", "energyProvided": energy}],
        "activityEnergyCost": energy,
        "properties": [{"name": "nocap:measured_by", "value": source}],
    }


def _properties(facts: RunFacts) -> list[dict[str, str]]:
    verdict = facts.decision.verdict if facts.decision else Verdict.ABSTAIN
    recipe = facts.settings.retrain.model_dump(mode="json", include={"rank", "alpha", "targets", "learning_rate"})
    values = {"run": facts.run.id, "state": facts.state, "gates": verdict, "seed": facts.settings.retrain.seed} | recipe
    for order, (told, stage) in enumerate(facts.preference_stages.items(), start=2):
        values[f"stage:{order}"] = f"{told}: {stage['examples']} examples, {stage['steps']} steps"
    return [{"name": f"nocap:{name}", "value": str(value)} for name, value in values.items()]


def _base(facts: RunFacts) -> dict[str, Any]:
    assert facts.adapter is not None
    return {
        "type": "machine-learning-model",
        "bom-ref": BASE_REF,
        "name": facts.settings.model.base,
        "licenses": [_licence(facts.licence)],
        "hashes": [{"alg": "SHA-256", "content": facts.adapter.base_digest}],
    }


def _dataset(facts: RunFacts) -> dict[str, Any]:
    counts = {
        **{f"examples:{role}": count for role, count in facts.examples.items()},
        **{f"members:{role}": count for role, count in facts.members.items()},
    }
    return {
        "type": "data",
        "bom-ref": DATASET_REF,
        "name": f"snapshot of run {facts.run.id}",
        "version": facts.snapshot_digest[:12],
        "description": "Scrubbed chat messages; encrypted in the operator's database, not part of this document.",
        "data": [
            {
                "type": "dataset",
                "name": "training and evaluation examples",
                "classification": "personal data",
                "sensitiveData": [facts.consent_basis],
                "contents": {
                    "properties": [{"name": f"nocap:{name}", "value": str(count)} for name, count in counts.items()]
                },
            }
        ],
    }


def _libraries() -> list[dict[str, Any]]:
    return [
        {
            "type": "library",
            "bom-ref": f"pkg:pypi/{name}@{number.partition('+')[0]}",
            "name": name,
            "version": number,
            "purl": f"pkg:pypi/{name}@{number.partition('+')[0]}",
        }
        for name, number in library_versions().items()
    ]


def _licence(name: str) -> dict[str, Any]:
    """The SPDX identifier where the hub's name is one but for its case, else the name."""
    spdx = {"apache-2.0": "Apache-2.0", "mit": "MIT"}
    return {"license": {"id": spdx[name]}} if name in spdx else {"license": {"name": name}}
