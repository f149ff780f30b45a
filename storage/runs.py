"""Retrains: their state, their sources and their gates' verdicts."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, SQLModel, col, select

from nocap.domain import AdapterName, MemberKey, RunId, RunState, Stage, VoiceName
from nocap.errors import RunError
from storage.tables import Adapter, GateOutcome, Run, RunSource

UNFINISHED = (RunState.QUEUED, RunState.RUNNING)
TRAINING_ROLES = ("train", "validation", "thumb", "duel")
"""Roles whose texts shaped the adapter: by its gradients, or by choosing when to stop. The last two are prompts to
the bot whose answers were voted on."""


def create_run(
    session: Session,
    *,
    voice: VoiceName,
    trigger: str,
    as_of: datetime,
    incumbent: AdapterName | str,
    options: Mapping[str, Any],
    permission_reference: str | None,
    at: datetime,
) -> Run:
    """A queued run with a new id that sorts by time. Raises RunError where one of the voice is not over yet."""
    active = active_run(session, voice)
    if active is not None:
        raise RunError(f"Run {active.id} of {voice} is {active.state}; let it end, resume it or cancel it first.")
    run = Run(
        id=f"{at:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}",
        voice=voice,
        state=RunState.QUEUED,
        trigger=trigger,
        as_of=as_of,
        created_at=at,
        incumbent=incumbent,
        options=dict(options),
        permission_reference=permission_reference,
    )
    session.add(run)
    try:
        session.flush()
    except IntegrityError as error:  # another process made one since we looked
        raise RunError(f"A run of {voice} was started this moment; `nocap retrain status` shows it.") from error
    session.refresh(run)  # so that changes inside `options` and `cost` are noticed from now on
    return run


def get_run(session: Session, run_id: RunId | str, *, alone: bool = False) -> Run:
    """With `alone` nobody else changes it until this transaction ends. Raises RunError for an unknown id."""
    run = session.get(Run, run_id, with_for_update=alone)
    if run is None:
        raise RunError(f"There is no run {run_id}; `nocap retrain status` shows the latest.")
    return run


def active_run(session: Session, voice: VoiceName) -> Run | None:
    """The voice's run that is queued or running, if any; a voice never has two."""
    return session.exec(select(Run).where(Run.voice == voice, col(Run.state).in_(UNFINISHED))).first()


def unfinished(session: Session) -> list[Run]:
    """Every voice's run that is queued or running, oldest first."""
    return list(session.exec(select(Run).where(col(Run.state).in_(UNFINISHED)).order_by(col(Run.created_at))))


def latest_runs(session: Session, voice: VoiceName, limit: int) -> list[Run]:
    """Newest first."""
    newest = select(Run).where(Run.voice == voice).order_by(col(Run.created_at).desc(), col(Run.id).desc())
    return list(session.exec(newest.limit(limit)))


def ended_since(session: Session, voice: VoiceName, since: datetime) -> list[Run]:
    """Runs that ended at or after `since`, oldest first."""
    rows = select(Run).where(Run.voice == voice, col(Run.ended_at) >= since)
    return list(session.exec(rows.order_by(col(Run.ended_at), col(Run.id))))


def begin_stage(session: Session, run_id: RunId, stage: Stage, pid: int, at: datetime) -> Run:
    """The run, now running at `stage` in process `pid`. Raises RunError where it is over."""
    run = _unfinished(session, run_id)
    run.state, run.stage, run.pid, run.heartbeat_at = RunState.RUNNING, stage, pid, at
    session.flush()
    return run


def heartbeat(session: Session, run_id: RunId, at: datetime) -> Run:
    """The run after noting that its process lives; read `cancel_requested` from it. Raises RunError if over."""
    run = _unfinished(session, run_id)
    run.heartbeat_at = at
    session.flush()
    return run


def finish_run(
    session: Session,
    run_id: RunId,
    state: RunState,
    reason: str,
    at: datetime,
    cost: Mapping[str, Any] | None = None,
) -> Run:
    """The run, ended for good; ending it again in the same state changes nothing. Else raises RunError."""
    assert state.is_over, f"{state} is not an end"
    run = get_run(session, run_id)
    if run.state == state:
        return run
    run = _unfinished(session, run_id)
    run.state, run.reason, run.ended_at, run.pid = state, reason, at, None
    if cost is not None:
        run.cost = dict(cost)
    session.flush()
    return run


def end_trial(session: Session, run_id: RunId, state: RunState, reason: str, at: datetime) -> Run:
    """The run whose adapter was on trial, with what members' votes came to. Raises RunError where it is not."""
    run = get_run(session, run_id)
    if run.state != RunState.ON_TRIAL:
        raise RunError(f"Run {run_id} is {run.state}, so no trial of it can end.")
    run.state, run.reason, run.ended_at = state, reason, at
    session.flush()
    return run


def request_cancel(session: Session, run_id: RunId) -> Run:
    """Asks the run to stop; its process sees it at the next step. Raises RunError where it is over."""
    run = _unfinished(session, run_id)
    run.cancel_requested = True
    session.flush()
    return run


def set_sources(session: Session, run_id: RunId, sources: Sequence[RunSource]) -> None:
    """Replaces the run's lineage."""
    _replace(session, RunSource, run_id, sources)


def sources(session: Session, run_id: RunId, role: str | None = None) -> list[RunSource]:
    """The run's lineage, by role and message key."""
    rows = select(RunSource).where(RunSource.run_id == run_id)
    if role is not None:
        rows = rows.where(RunSource.role == role)
    return list(session.exec(rows.order_by(col(RunSource.role), col(RunSource.message_key))))


def set_gate_results(session: Session, run_id: RunId, outcomes: Sequence[GateOutcome]) -> None:
    """Replaces the run's verdicts."""
    _replace(session, GateOutcome, run_id, outcomes)


def gate_results(session: Session, run_id: RunId | str) -> list[GateOutcome]:
    """The run's verdicts, by gate."""
    rows = select(GateOutcome).where(GateOutcome.run_id == run_id)
    return list(session.exec(rows.order_by(col(GateOutcome.gate))))


def adapters_trained_on(session: Session, member: MemberKey) -> list[str]:
    """Names of the adapters that the member's texts went into, also after these were erased."""
    names = (
        select(Adapter.name)
        .join(RunSource, col(RunSource.run_id) == Adapter.run_id)
        .where(RunSource.member == member, col(RunSource.role).in_(TRAINING_ROLES))
        .distinct()
    )
    return sorted(session.exec(names))


def _unfinished(session: Session, run_id: RunId) -> Run:
    run = get_run(session, run_id)
    if RunState(run.state).is_over:
        raise RunError(f"Run {run_id} is over ({run.state}); start a new one with `nocap retrain now`.")
    return run


def _replace(
    session: Session, table: type[RunSource] | type[GateOutcome], run_id: RunId, rows: Sequence[SQLModel]
) -> None:
    get_run(session, run_id)
    session.execute(delete(table).where(col(table.run_id) == run_id))
    if rows:
        session.execute(insert(table.__table__), [row.model_dump() | {"run_id": run_id} for row in rows])  # type: ignore[union-attr]
