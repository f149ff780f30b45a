"""`nocap db check`: what must be true of an installation, whoever was killed when; looks and changes nothing.

Beyond the rows (`storage.invariants`): the adapters' files, the runs' processes and folders, and what a killed
process left behind.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlmodel import Session, col, select

from nocap.domain import AdapterStatus, RunState
from nocap.errors import AdapterError, KeyMismatchError
from nocap.findings import Finding, ok, problem, warning
from nocap.settings import Settings
from retrain.job import is_running, is_waiting
from retrain.promote import verify_registered
from storage import registry
from storage.database import Database
from storage.invariants import check_rows, digest
from storage.runs import unfinished
from storage.tables import Adapter, Message, Run

SAMPLED_TEXTS = 200


@dataclass(frozen=True)
class CheckReport:
    findings: list[Finding]
    digest: str
    """Of every lasting row; equal before a backup and after its restoration."""


def check_installation(settings: Settings, database: Database, now: datetime) -> CheckReport:
    """Every finding, and the digest of the rows."""
    with database.read() as session:
        findings = check_rows(session)
        findings.append(_texts(session))
        findings.append(_deployed(session, settings))
        findings.append(_kept_adapters(session, settings))
        findings.append(_runs(session, now))
        rows = digest(session)
    return CheckReport([*findings, _leftovers(settings, database)], rows)


def leftovers(settings: Settings, database: Database) -> list[Path]:
    """What a killed process left: halves of files, and folders of adapters and runs that no row knows."""
    with database.read() as session:
        adapters = {*session.exec(select(Adapter.name)), *session.exec(select(Run.challenger))}
        runs = dict(session.exec(select(Run.id, Run.state)).all())
    unknown = [
        *_unknown(settings.adapters_dir, {name for name in adapters if name}),
        *_unknown(settings.runs_dir, set(runs)),
    ]
    over = [settings.runs_dir / run for run, state in runs.items() if RunState(state).is_over]
    halves = [path for folder in over if folder.is_dir() for path in folder.iterdir() if path.name.startswith(".")]
    return sorted([*unknown, *halves, *settings.data_dir.glob(".restoring-*"), *settings.data_dir.glob("*.restoring")])


def remove(paths: Sequence[Path]) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _texts(session: Session) -> Finding:
    """Whether the newest texts can be read with this key."""
    newest = select(Message.text).order_by(col(Message.id).desc()).limit(SAMPLED_TEXTS)
    try:
        count = len(session.exec(newest).all())
    except KeyMismatchError as error:
        return problem("texts", f"A stored text cannot be decrypted: {error}", "bring back the right key file")
    return ok("texts", f"The newest {count} texts can be decrypted with this key." if count else "No text is stored.")


def _deployed(session: Session, settings: Settings) -> Finding:
    names = registry.deployed_adapters(session)
    for name in names:
        adapter = session.get(Adapter, name)
        if adapter is None or adapter.status == AdapterStatus.RETIRED:
            continue  # the rules on rows say so where it matters
        try:
            verify_registered(settings, adapter)
        except AdapterError as error:
            return problem("adapters", str(error), "roll back (`nocap rollback`), then restore it from a backup")
    if not names:
        return ok("adapters", "Only the base is deployed.")
    live = f"{len(names)} adapter{'s are' if len(names) != 1 else ' is'}"
    return ok("adapters", f"{live} deployed, and every file of them is what was registered.")


def _kept_adapters(session: Session, settings: Settings) -> Finding:
    """A refused or retired adapter may be gone; one that may be promoted must be there."""
    kept = (AdapterStatus.CANDIDATE, AdapterStatus.PASSED)
    names = session.exec(select(Adapter.name).where(col(Adapter.status).in_(kept)))
    missing = sorted(name for name in names if not (settings.adapters_dir / name / "manifest.json").is_file())
    if missing:
        return problem("adapters", f"The folder of {missing[0]} is gone or not whole.", "restore it from a backup")
    return ok("adapters", "Every adapter that may be promoted has its folder.")


def _runs(session: Session, now: datetime) -> Finding:
    for run in unfinished(session):
        if is_waiting(run):
            return warning(
                "runs",
                f"Run {run.id} waits for a worker since {run.created_at:%Y-%m-%d %H:%M} UTC.",
                "`nocap retrain work` takes it up where torch is installed; so does a running scheduler there",
            )
        if not is_running(run, now):
            return problem(
                "runs",
                f"Run {run.id} stands at {run.stage or 'its start'} and no process works on it.",
                f"`nocap retrain resume {run.id}` goes on; a running scheduler does so by itself",
            )
    return ok("runs", "No run is stuck.")


def _leftovers(settings: Settings, database: Database) -> Finding:
    found = leftovers(settings, database)
    if not found:
        return ok("leftovers", "Every file belongs to something.")
    return warning(
        "leftovers",
        f"{len(found)} files or folders belong to nothing, {found[0]} among them: a killed process left them.",
        "`nocap db check --clean` removes them",
    )


def _unknown(folder: Path, known: set[str]) -> Iterator[Path]:
    if folder.is_dir():
        yield from (path for path in folder.iterdir() if path.name not in known)
