"""What members decided after a backup was made: it is decided again when that backup is put back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, insert
from sqlmodel import Session, col, select

from nocap.domain import MemberKey, MessageKey
from storage.messages import delete_message, forget_member
from storage.tables import ConsentEvent, Identity, Tombstone


@dataclass(frozen=True)
class Decisions:
    """Of one database: which it is, its consent ledger, and what was erased in it."""

    made_at: datetime
    ledger: Sequence[dict[str, object]]
    erased: dict[str, datetime]


def decisions(session: Session) -> Decisions:
    """Everything that members decided in this database until now."""
    return Decisions(
        made_at=session.exec(select(Identity.created_at)).one(),
        ledger=[line.model_dump() for line in session.exec(select(ConsentEvent).order_by(col(ConsentEvent.id)))],
        erased={row.key: row.at for row in session.exec(select(Tombstone))},
    )


def decide_again(session: Session, later: Decisions) -> int:
    """Repeats what `later` holds beyond this older copy of the same database; returns how many decisions those were."""
    if session.exec(select(Identity.created_at)).one() != later.made_at:
        return 0
    newest = session.exec(select(func.max(ConsentEvent.id))).one() or 0
    lines = [_without_id(line) for line in later.ledger if int(str(line["id"])) > newest]
    if lines:
        session.execute(insert(ConsentEvent), lines)
    known = {row.key: row.at for row in session.exec(select(Tombstone))}
    erased = {key: at for key, at in later.erased.items() if key not in known or known[key] < at}
    members = set(session.exec(select(ConsentEvent.member).distinct()))
    for key, at in erased.items():
        if key in members:
            forget_member(session, MemberKey(key), at)
        else:
            delete_message(session, MessageKey(key), at)
    return len(lines) + len(erased)


def _without_id(line: dict[str, object]) -> dict[str, object]:
    """The database numbers it anew, in the same order."""
    return {name: value for name, value in line.items() if name != "id"}
