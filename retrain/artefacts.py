"""What a run leaves behind when it ends: its report, and its adapter's card and bill of materials."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from sqlmodel import col, select

from nocap.domain import RunId, RunState
from nocap.settings import Settings
from retrain.bom import write_bom
from retrain.card import write_card
from retrain.cost import Cost
from retrain.facts import RunFacts, gather_facts, library_versions
from retrain.gates import GATES
from retrain.gates.measurements import AnchorDrift
from retrain.gates.record import code_digest
from retrain.gates.thresholds import thresholds_version
from retrain.report import ReportData, write_report
from storage.database import Database
from storage.tables import SlangCount, SlangTerm

SHOWN_TERMS = 8


def write_artefacts(
    folder: Path, settings: Settings, database: Database, run_id: RunId, state: RunState, reason: str, cost: Cost
) -> None:
    """Writes report.html, and README.md and bom.json where an adapter was trained."""
    facts = gather_facts(folder, settings, database, run_id, state, reason, cost)
    write_report(folder, report_data(facts, weekly_uses(database, facts.run.voice)))
    if facts.adapter is not None:
        write_card(folder, facts)
        write_bom(folder, facts)


def weekly_uses(database: Database, voice: str) -> dict[str, list[tuple[datetime, float]]]:
    """Uses per 1,000 messages, week by week, of the terms that stand out most."""
    with database.read() as session:
        best = select(SlangTerm).where(SlangTerm.voice == voice).order_by(col(SlangTerm.score).desc())
        terms = {row.id: row.term for row in session.exec(best.limit(SHOWN_TERMS))}
        counts = select(SlangCount).where(col(SlangCount.term_id).in_(terms)).order_by(col(SlangCount.week))
        weekly: dict[str, list[tuple[datetime, float]]] = {term: [] for term in terms.values()}
        for row in session.exec(counts):
            weekly[terms[row.term_id]].append((row.week, 1000 * row.uses / max(1, row.messages)))
    return {term: points for term, points in weekly.items() if points}


def report_data(facts: RunFacts, weekly: dict[str, list[tuple[datetime, float]]]) -> ReportData:
    """The run in the report's words."""
    return ReportData(
        run=facts.run.id,
        voice=facts.run.voice,
        state=facts.state,
        reason=facts.reason,
        as_of=facts.run.as_of,
        incumbent=facts.run.incumbent,
        challenger=facts.run.challenger,
        decision=facts.decision,
        counts=_counts(facts),
        dropped=facts.dropped,
        losses=[(step, loss) for step, loss in facts.training.get("losses", ())],
        validation_losses=[(step, loss) for step, loss in facts.training.get("validation_losses", ())],
        weekly=weekly,
        drift=facts.measurements.drift if facts.measurements else AnchorDrift(),
        cost=worded_cost(facts.cost),
        samples=facts.samples,
        provenance=_provenance(facts),
    )


def worded_cost(cost: Cost) -> dict[str, str]:
    """A run's cost as a person reads it."""
    estimated = " (estimated from assumed watts)" if cost.energy_is_estimate else " (the GPU's counter)"
    return {
        "time": f"{cost.seconds:.0f} s",
        **{f"time: {stage}": f"{seconds:.1f} s" for stage, seconds in cost.seconds_by_stage},
        "peak memory": f"{cost.peak_bytes / 2**30:.2f} GiB",
        "tokens": f"{cost.tokens:,}",
        "money": f"{cost.money:.4f} {cost.currency}",
        "energy": f"{cost.energy_joules / 1000:.2f} kJ{estimated}",
    }


def _counts(facts: RunFacts) -> dict[str, int]:
    told: dict[str, int] = {}
    for role in facts.examples:
        told |= {f"{role} examples": facts.examples[role], f"{role} members": facts.members[role]}
    mixed_in = [name for name in ("canaries", "base_replies", "too_long") if name in facts.training]
    return told | {name.replace("_", " "): facts.training[name] for name in mixed_in}


def _provenance(facts: RunFacts) -> dict[str, str]:
    values = {
        "trigger": facts.run.trigger,
        "base": facts.settings.model.base,
        "base digest": facts.adapter.base_digest if facts.adapter else "",
        "adapter digest": facts.adapter.digest if facts.adapter else "",
        "snapshot digest": facts.snapshot_digest,
        "gates' code digest": code_digest() if facts.decision else "",
        "thresholds": thresholds_version(GATES) if facts.decision else "",
        **{f"{what} digest, as measured": digest for what, digest in _measured_digests(facts)},
        "permission reference": facts.run.permission_reference or "",
        "consent policy": facts.settings.policy_version,
        **library_versions(),
    }
    return {name: value for name, value in values.items() if value}


def _measured_digests(facts: RunFacts) -> tuple[tuple[str, str], ...]:
    return facts.measurements.digests if facts.measurements else ()
