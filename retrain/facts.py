"""What is known about a run when it ends: numbers, names and digests, never a member's text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from inference.adapter_files import AdapterManifest, verify_adapter
from inference.base_model import resolve_base
from nocap.domain import AdapterName, RunState
from nocap.errors import InputError, NocapError
from nocap.settings import Settings
from retrain import run_folder
from retrain.cost import Cost
from retrain.dataset import DIGEST_OPTION, PREFERENCES, SNAPSHOT_FILE
from retrain.gates import Decision, Measurements, decide
from retrain.samples import Sample
from storage import runs
from storage.database import Database
from storage.tables import Run

LIBRARIES = ("torch", "transformers", "peft", "trl", "bitsandbytes", "datasets")
EMBEDDED_LICENCE = "apache-2.0"
UNKNOWN_LICENCE = "other"


@dataclass(frozen=True)
class RunFacts:
    """One run, as its report, card and bill of materials tell it; what it did not get to is empty."""

    run: Run
    state: RunState
    reason: str
    settings: Settings
    cost: Cost
    members: Mapping[str, int] = field(default_factory=dict)
    """Distinct members by role: train, validation, evaluate, thumb, duel."""
    rows: Mapping[str, int] = field(default_factory=dict)
    """Distinct stored messages by role."""
    examples: Mapping[str, int] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    """`TrainReport` as JSON."""
    measurements: Measurements | None = None
    decision: Decision | None = None
    samples: tuple[Sample, ...] = ()
    adapter: AdapterManifest | None = None
    licence: str = UNKNOWN_LICENCE

    @property
    def snapshot_digest(self) -> str:
        return str(self.run.options.get(DIGEST_OPTION, ""))

    @property
    def preference_stages(self) -> Mapping[str, Mapping[str, Any]]:
        """`TrainReport` of each kind of training on votes that the run did, by what it is called: KTO, then DPO."""
        names = {"thumbs": "KTO on voted answers", "duels": "DPO on decided duels"}
        return {told: self.training[step] for step, told in names.items() if step in self.training}

    @property
    def ended_at(self) -> datetime:
        return self.run.ended_at or self.run.heartbeat_at or self.run.created_at

    @property
    def consent_basis(self) -> str:
        reference = self.run.permission_reference
        return (
            "Members' individual, recorded and revocable consent to training and to evaluation (policy version"
            f" {self.settings.policy_version}), and seeds that the operator wrote."
            + (f" Discord messages under Discord's written permission {reference}." if reference else "")
        )


def gather_facts(
    folder: Path, settings: Settings, database: Database, run_id: str, state: RunState, reason: str, cost: Cost
) -> RunFacts:
    """Reads the run's row and folder, as far as they go."""
    with database.read() as session:
        run = runs.get_run(session, run_id)
        sources = runs.sources(session, run.id)  # type: ignore[arg-type]
    snapshot = _optional(folder / SNAPSHOT_FILE) or {"examples": [], PREFERENCES: [], "dropped": {}}
    samples = (_optional(folder / run_folder.SAMPLES_FILE) or {}).get("samples", [])
    measurements = _measurements(folder)
    entries = [*snapshot["examples"], *snapshot[PREFERENCES]]
    roles = sorted({source.role for source in sources})
    return RunFacts(
        run=run,
        state=state,
        reason=reason,
        settings=settings,
        cost=cost,
        members={role: len({one.member for one in sources if one.role == role}) for role in roles},
        rows={role: sum(one.role == role for one in sources) for role in roles},
        examples={role: sum(one["role"] == role for one in entries) for role in roles},
        dropped=snapshot["dropped"],
        training=_optional(folder / run_folder.TRAIN_FILE) or {},
        measurements=measurements,
        decision=decide(measurements, settings.gates) if measurements and run.stage in ("gates", "promote") else None,
        samples=tuple(Sample(**one) for one in samples),
        adapter=_manifest(settings, run),
        licence=base_licence(settings),
    )


def base_licence(settings: Settings) -> str:
    """The licence that an adapter inherits: the base's own, as its model card states it."""
    if settings.model.base == "embedded":
        return EMBEDDED_LICENCE
    try:
        card = resolve_base(settings.base_path) / "README.md"
        return str(getattr(ModelCard(card.read_text(encoding="utf-8")).data, "license", None) or UNKNOWN_LICENCE)
    except (OSError, ValueError, NocapError):
        return UNKNOWN_LICENCE


def library_versions() -> dict[str, str]:
    """Versions of what trained the adapter, of those that are installed."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _optional(path: Path) -> Any:
    return run_folder.read_json(path) if path.exists() else None


def _measurements(folder: Path) -> Measurements | None:
    """None also where an earlier version measured: its figures stay in gates.json."""
    path = folder / run_folder.MEASUREMENTS_FILE
    try:
        return Measurements.from_json(path.read_text(encoding="utf-8")) if path.exists() else None
    except InputError:
        return None


def _manifest(settings: Settings, run: Run) -> AdapterManifest | None:
    if run.challenger is None:
        return None
    try:
        return verify_adapter(settings.adapters_dir / AdapterName(run.challenger), base_digest=None)
    except NocapError:
        return None
