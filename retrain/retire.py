"""Taking adapters out of service that learnt from erased texts: by a clean retrain, else by going back."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from nocap.domain import BASE, AdapterName, AdapterStatus, VoiceName
from nocap.errors import AdapterError, RunError
from nocap.settings import Settings
from retrain.promote import Backend, rollback
from storage import registry, runs
from storage.database import Database
from storage.tables import Adapter, Retirement

RETRY = timedelta(days=1)
"""A clean retrain that did not go live is tried again after so long, until the deadline."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Retired:
    """What one pass did for one voice."""

    voice: VoiceName
    adapters: tuple[AdapterName, ...] = ()
    """Out of service now, their files deleted."""
    moved_to: AdapterName | None = None
    """Where the pointer went, because the deadline had come."""
    retrain_started: bool = False


def retire_due(
    database: Database,
    settings: Settings,
    start: Callable[[VoiceName], object],
    backend: Callable[[], Backend | None],
    *,
    actor: str,
    at: datetime,
) -> list[Retired]:
    """One pass over the marked adapters; repeated by the scheduler until none is left.

    A marked adapter that is not live goes at once. For a live one `start` is asked for a clean retrain, once a day;
    at its deadline the pointer goes back to the newest older adapter that is clean and intact, else to the base.
    """
    with database.read() as session:
        marked: dict[str, list[Retirement]] = {}
        for row in registry.retirements(session):
            marked.setdefault(session.get_one(Adapter, row.adapter).voice, []).append(row)
    return [
        _retire(database, settings, VoiceName(voice), rows, start, backend, actor, at)
        for voice, rows in sorted(marked.items())
    ]


def _retire(
    database: Database,
    settings: Settings,
    voice: VoiceName,
    marked: list[Retirement],
    start: Callable[[VoiceName], object],
    backend: Callable[[], Backend | None],
    actor: str,
    at: datetime,
) -> Retired:
    deadlines = {row.adapter: row.requested_at + timedelta(days=settings.privacy.retire_within_days) for row in marked}
    with database.read() as session:
        live = registry.deployment(session, voice).current
        busy = runs.active_run(session, voice)
    moved_to, started = None, False
    if live in deadlines and at >= deadlines[live]:
        moved_to = _go_back(database, settings, voice, AdapterName(live), deadlines.keys(), backend(), actor, at)
        live = moved_to
    elif live in deadlines and busy is None and _is_retrain_due(database, voice, marked, at):
        try:
            start(voice)
            started = True
        except RunError as error:  # the deadline holds all the same
            log.warning("no clean retrain was started", voice=voice, reason=str(error))
    gone = [
        AdapterName(name)
        for name, deadline in deadlines.items()
        # A run under way retires its own challenger when it finds that rows are gone.
        if name != live and (busy is None or busy.challenger != name or at >= deadline)
    ]
    _remove(database, settings, gone, backend, actor, at)
    log.info("retirement", voice=voice, retired=gone, moved_to=moved_to, retrain_started=started)
    return Retired(voice, tuple(gone), moved_to, started)


def _is_retrain_due(database: Database, voice: VoiceName, marked: list[Retirement], at: datetime) -> bool:
    with database.read() as session:
        latest = runs.latest_runs(session, voice, 1)
    newest_mark = max(row.requested_at for row in marked)
    return not latest or latest[0].created_at < newest_mark or at - latest[0].created_at >= RETRY


def _go_back(
    database: Database,
    settings: Settings,
    voice: VoiceName,
    live: AdapterName,
    marked: Collection[str],
    backend: Backend | None,
    actor: str,
    at: datetime,
) -> AdapterName:
    """Moves the pointer to the newest adapter before `live` that is clean, passed and intact, else to the base."""
    with database.read() as session:
        names = [row.name for row in registry.adapters(session, voice) if _is_clean(row, marked)]
        everyone = [row.name for row in registry.adapters(session, voice)]
    older = [name for name in names if everyone.index(name) < everyone.index(live)]
    for target in (*reversed(older), BASE):
        try:
            move = rollback(
                database,
                backend,
                settings,
                voice,
                AdapterName(target),
                actor=actor,
                reason=f"{live} learnt from texts that were erased, and its deadline has come",
                at=at,
            )
        except AdapterError as error:
            log.warning("not intact, going further back", adapter=target, reason=str(error))
            continue
        return move.after
    raise AssertionError("the base model needs no file of ours")


def _is_clean(adapter: Adapter, marked: Collection[str]) -> bool:
    return adapter.status == AdapterStatus.PASSED and adapter.name not in marked


def _remove(
    database: Database,
    settings: Settings,
    names: list[AdapterName],
    backend: Callable[[], Backend | None],
    actor: str,
    at: datetime,
) -> None:
    if not names:
        return
    with database.write() as session:
        for name in names:
            registry.retire_adapter(session, name, actor=actor, at=at)
    if (running := backend()) is not None:
        running.unload_adapters(names)
    for name in names:
        shutil.rmtree(settings.adapters_dir / name, ignore_errors=True)
