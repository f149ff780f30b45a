"""Forgetting a member and telling them what is held: the one way, for the command line, the chats and the scheduler."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlmodel import Session, col, select

from nocap.domain import MemberKey, RunState
from nocap.settings import Settings
from storage import registry, slang
from storage._quotes import Quotes, is_quoting, tokens_of
from storage._sql import lock_texts
from storage.database import Database
from storage.messages import ErasureReceipt, export_member, forget_member
from storage.runs import TRAINING_ROLES
from storage.tables import Channel, Duel, Message, Reply, Run, RunSource

SAYING_FILES = ("samples.json", "golden.json", "report.html")
"""Of a run's folder: what its adapter said, which may repeat what it learnt. A report is made anew when asked for."""
SNAPSHOT_FILE = "snapshot.json"
CHECKPOINTS = "checkpoints"
CACHE = "cache"


def forget(database: Database, settings: Settings, member: MemberKey, at: datetime) -> ErasureReceipt:
    """Erases the member everywhere under the data directory, for good, and says what went and what is still to go.

    Messages, votes, the texts of answers and duels, quotes of them in other texts, slang counts that fall below five
    members, the runs' files that may repeat them, caches, freed pages and the write-ahead log. Adapters that learnt
    from them are marked; the scheduler retires them within `privacy.retire_within_days`. May be repeated: a second
    call ends what an interrupted one began. Raises StorageError where the database is in the way.
    """
    with database.write() as session:
        lock_texts(session, erasing=True)
        theirs = _texts_of(session, member)
        quotes = _remove_quotes(session, member, theirs)
        _lower_slang_counts(session, theirs)
        receipt = forget_member(session, member, at)
        traces = _traces(session, member)
        marked = [row for row in registry.retirements(session) if row.adapter in receipt.adapters]
    files = sum(_clean_run(settings.runs_dir / run.id, RunState(run.state), roles, keys) for run, roles, keys in traces)
    shutil.rmtree(settings.data_dir / CACHE, ignore_errors=True)
    database.wipe_freed()
    return replace(receipt, quotes=quotes, files=files, retire_by=retire_by(settings, marked))


def export(database: Database, member: MemberKey) -> dict[str, Any]:
    """All that is held about the member, ready for JSON; moments in ISO 8601."""
    with database.read() as session:
        return export_member(session, member)


def retire_by(settings: Settings, marked: Sequence[Any]) -> datetime | None:
    """When the last of the marked adapters is out of service."""
    latest = max((row.requested_at for row in marked), default=None)
    return None if latest is None else latest + timedelta(days=settings.privacy.retire_within_days)


def _texts_of(session: Session, member: MemberKey) -> list[Message]:
    return list(session.exec(select(Message).where(Message.member == member)))


def _remove_quotes(session: Session, member: MemberKey, theirs: Sequence[Message]) -> int:
    """Empties what the bot said in their words, and cuts quoting lines out of others' messages; how many those were."""
    channels = sorted({row.channel for row in theirs})
    if not channels:
        return 0
    others = session.exec(select(Message).where(col(Message.channel).in_(channels), Message.member != member)).all()
    own_lines = (line for row in others for line in row.text.splitlines() if not is_quoting(line))
    quotes = Quotes((row.text for row in theirs), {word for line in own_lines for word in tokens_of(line)})
    changed = 0
    for row in others:
        if any(map(is_quoting, row.text.splitlines())) and (kept := quotes.cut_from(row.text)) != row.text:
            changed += 1
            if kept:
                row.text = kept
            else:
                session.delete(row)
    for table in (Reply, Duel):
        changed += _empty_if_quoting(session, table, member, channels, quotes)
    session.flush()
    return changed


def _empty_if_quoting(
    session: Session, table: type[Reply] | type[Duel], member: MemberKey, channels: Sequence[str], quotes: Quotes
) -> int:
    names = ("prompt", "text") if table is Reply else ("prompt", "left_text", "right_text")
    emptied = 0
    for row in session.exec(select(table).where(col(table.channel).in_(channels), table.prompt_member != member)):
        if any(quotes.found_in(getattr(row, name)) for name in names):
            emptied += 1
            for name in names:
                setattr(row, name, None)
    return emptied


def _lower_slang_counts(session: Session, theirs: Sequence[Message]) -> None:
    """Takes the member's uses out of the weekly counts; a week left with too few members goes."""
    channels = {row.channel for row in theirs}
    voices = dict(session.exec(select(Channel.key, Channel.voice).where(col(Channel.key).in_(channels))).all())
    by_voice: dict[str, list[tuple[datetime, str]]] = {}
    for row in theirs:
        by_voice.setdefault(voices[row.channel], []).append((row.sent_at, row.text))
    for voice, said in by_voice.items():
        slang.withdraw_uses(session, voice, said)


def _traces(session: Session, member: MemberKey) -> list[tuple[Run, set[str], set[str]]]:
    """Every run that used the member's rows, with the roles and the keys of those rows."""
    roles: dict[str, set[str]] = {}
    keys: dict[str, set[str]] = {}
    for row in session.exec(select(RunSource).where(RunSource.member == member)):
        roles.setdefault(row.run_id, set()).add(row.role)
        keys.setdefault(row.run_id, set()).add(row.message_key)
    return [(session.get_one(Run, run_id), roles[run_id], keys[run_id]) for run_id in sorted(roles)]


def _clean_run(folder: Path, state: RunState, roles: set[str], keys: set[str]) -> int:
    """Removes from a run's folder what may repeat erased rows; how many files that changed.

    A run under way is left its snapshot: it finds that rows are gone, and takes another.
    """
    changed = 0
    if not roles.isdisjoint(TRAINING_ROLES):
        for name in SAYING_FILES:
            if (folder / name).exists():
                (folder / name).unlink()
                changed += 1
        if state.is_over and (folder / CHECKPOINTS).exists():
            shutil.rmtree(folder / CHECKPOINTS)
            changed += 1
    return changed + (_cut_snapshot(folder / SNAPSHOT_FILE, keys) if state.is_over else 0)


def _cut_snapshot(file: Path, keys: set[str]) -> int:
    """Drops the entries of erased rows, so that neither their keys nor their digests stay in the file."""
    if not file.exists():
        return 0
    content = json.loads(file.read_text(encoding="utf-8"))
    kept = [entry for entry in content["examples"] if keys.isdisjoint(entry["rows"])]
    if len(kept) == len(content["examples"]):
        return 0
    content["erased"] = content.get("erased", 0) + len(content["examples"]) - len(kept)
    partial = file.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as stream:
        json.dump(content | {"examples": kept}, stream, separators=(",", ":"))
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(file)
    return 1
