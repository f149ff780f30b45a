"""Deleting what is older than the settings allow, by kind."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import ColumnElement, delete, func, or_, update
from sqlmodel import Session, SQLModel, col, select

from nocap.domain import Provenance, RunState
from nocap.settings import Settings
from storage import registry
from storage._sql import lock_texts
from storage.database import Database
from storage.tables import Duel, DuelVote, Feedback, Message, Reply, Run, WithdrawnVote


@dataclass(frozen=True, slots=True)
class Expired:
    """How much of each kind is (or would be) gone."""

    messages: int = 0
    reply_texts: int = 0
    duel_texts: int = 0
    votes: int = 0
    run_folders: int = 0

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))


def expire(database: Database, settings: Settings, at: datetime, *, dry_run: bool = False) -> Expired:
    """Deletes what is too old at `at`, in one transaction; with `dry_run` only counts it and writes nothing."""
    keep = settings.retention
    opened = database.read() if dry_run else database.write()
    with opened as session:
        if not dry_run:
            lock_texts(session, erasing=True)
        folders = _old_run_folders(session, settings, _before(at, keep.run_files_days))
        expired = Expired(
            messages=_delete(session, Message, _old_message(_before(at, keep.messages_days)), dry_run),
            reply_texts=_empty(session, Reply, ("prompt", "text"), _before(at, keep.reply_texts_days), dry_run),
            duel_texts=_empty(
                session, Duel, ("prompt", "left_text", "right_text"), _before(at, keep.reply_texts_days), dry_run
            ),
            votes=_votes(session, _before(at, keep.votes_days), dry_run),
            run_folders=len(folders),
        )
    if not dry_run:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        if expired.total:
            database.wipe_freed()
    return expired


def _before(at: datetime, days: float | None) -> datetime | None:
    return None if days is None else at - timedelta(days=days)


def _old_message(before: datetime | None) -> ColumnElement[bool] | None:
    if before is None:
        return None
    return (col(Message.sent_at) < before) & (col(Message.provenance) != Provenance.OPERATOR_SEED)


def _delete(session: Session, table: type[SQLModel], condition: ColumnElement[bool] | None, dry_run: bool) -> int:
    if condition is None:
        return 0
    count = session.scalar(select(func.count()).select_from(table).where(condition)) or 0
    if not dry_run:
        session.execute(delete(table).where(condition))
    return count


def _empty(
    session: Session, table: type[Reply] | type[Duel], names: tuple[str, ...], before: datetime | None, dry_run: bool
) -> int:
    if before is None:
        return 0
    condition = (col(table.at) < before) & or_(*(col(getattr(table, name)).is_not(None) for name in names))
    count = session.scalar(select(func.count()).select_from(table).where(condition)) or 0
    if not dry_run:
        session.execute(update(table).where(condition).values(dict.fromkeys(names)))
    return count


def _votes(session: Session, before: datetime | None, dry_run: bool) -> int:
    """Old votes; then the replies and duels of that age, on which no younger vote stands."""
    if before is None:
        return 0
    count = _delete(session, Feedback, col(Feedback.at) < before, dry_run)
    count += _delete(session, DuelVote, col(DuelVote.at) < before, dry_run)
    if not dry_run:
        session.execute(delete(WithdrawnVote).where(col(WithdrawnVote.at) < before))
        for table, votes, link in ((Reply, Feedback, Feedback.reply_id), (Duel, DuelVote, DuelVote.duel_id)):
            has_vote = select(votes.id).where(link == table.id).exists()
            session.execute(delete(table).where(col(table.at) < before, ~has_vote))
    return count


def _old_run_folders(session: Session, settings: Settings, before: datetime | None) -> list[Path]:
    if before is None:
        return []
    over = [state for state in RunState if state.is_over]
    rows = session.exec(select(Run).where(col(Run.state).in_(over), col(Run.ended_at) < before)).all()
    deployed = set(registry.deployed_adapters(session))
    folders = [settings.runs_dir / row.id for row in rows if row.challenger not in deployed]
    return [folder for folder in folders if folder.is_dir()]
