"""The facts of a made-up run, for the tests of what is written about runs."""

from __future__ import annotations

from datetime import UTC, datetime

from inference.adapter_files import AdapterManifest
from nocap.domain import BASE, AdapterName, RunState
from nocap.settings import Settings
from retrain.cost import Cost
from retrain.facts import RunFacts
from retrain.gates import Measurements, decide
from storage.tables import Run

AT = datetime(2026, 11, 22, 4, tzinfo=UTC)


def build_facts() -> RunFacts:
    settings = Settings()
    return RunFacts(
        run=Run(
            id="run-1",
            voice="genz",
            state="running",
            trigger="schedule",
            as_of=AT,
            created_at=AT,
            incumbent=BASE,
            challenger="genz-v3",
            permission_reference="REF-7",
            options={"snapshot_digest": "s" * 64},
        ),
        state=RunState.ABSTAINED,
        reason="Too little evidence.",
        settings=settings,
        cost=Cost(seconds=90, tokens=5_000, energy_joules=1_800_000, energy_is_estimate=True, currency="USD"),
        members={"train": 9, "evaluate": 4},
        rows={"train": 240, "evaluate": 80},
        examples={"train": 120, "evaluate": 40},
        dropped={"duplicate": 7},
        training={"steps": 12},
        decision=decide(Measurements(), settings.gates),
        adapter=AdapterManifest(AdapterName("genz-v3"), "b" * 64, 8, {"adapter_model.safetensors": "f" * 64}, "d" * 64),
        licence="apache-2.0",
    )
