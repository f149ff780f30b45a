"""What must be true of the rows, whoever was killed when; and one digest over all of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, LargeBinary, and_, func, or_, text, type_coerce
from sqlalchemy.orm import aliased
from sqlmodel import Session, SQLModel, col

from nocap.domain import BASE, AdapterStatus, DuelChoice, Provenance, Purpose, RunState, Verdict, Vote
from nocap.findings import Finding, ok, problem
from storage.runs import UNFINISHED
from storage.tables import (
    Adapter,
    AuditEvent,
    Channel,
    ConsentEvent,
    Deployment,
    Duel,
    DuelVote,
    EncryptedText,
    Feedback,
    GateOutcome,
    Lease,
    Message,
    Reply,
    Run,
    Tombstone,
    Voice,
)

# SQLModel's columns are typed as the values of their rows, which `select` does not take.
select: Any = sqlalchemy.select

VOLATILE = frozenset({Lease.__tablename__})
"""Tables whose rows come and go with the processes; the digest leaves them out."""
RESTORE = "find out what wrote it (`audit_event` tells who did what), then restore a backup from before that"
LEDGER_TRIGGERS = {
    "sqlite": frozenset(
        {f"{table}_no_{action}" for table in ("consent_event", "audit_event") for action in ("update", "delete")}
        | {"adapter_no_delete", "adapter_no_update"}
    ),
    "postgresql": frozenset(
        {"consent_event_no_change", "audit_event_no_change", "adapter_no_delete", "adapter_no_update"}
    ),
}


@dataclass(frozen=True)
class Rule:
    """A sentence that holds where `broken` selects no row."""

    subject: str
    holds: str
    broken: Any
    remedy: str = RESTORE


def check_rows(session: Session) -> list[Finding]:
    """One finding per rule, and those about the ledgers' protection and the file itself."""
    return [*(_check(session, rule) for rule in _rules()), _last_moves(session), _triggers(session), _pages(session)]


def digest(session: Session) -> str:
    """SHA-256 (hex) over every lasting row as it is stored: equal where two databases hold the same.

    The rows' own digests are added up, so that neither the order of rows nor a server's collation matters.
    """
    whole = hashlib.sha256()
    for table in SQLModel.metadata.sorted_tables:
        if table.name not in VOLATILE:
            count, total = _sum_of_rows(session.connection(), table)
            whole.update(f"{table.name} {count} {total:064x}\n".encode())
    return whole.hexdigest()


def _sum_of_rows(connection: Connection, table: Any) -> tuple[int, int]:
    columns = [
        type_coerce(column, LargeBinary) if isinstance(column.type, EncryptedText) else column
        for column in table.columns
    ]
    count = total = 0
    for row in connection.execution_options(yield_per=1000).execute(select(*columns)):
        values = json.dumps([_plain(value) for value in row], sort_keys=True)
        total = (total + int.from_bytes(hashlib.sha256(values.encode()).digest())) % 2**256
        count += 1
    return count, total


def _plain(value: Any) -> Any:
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    return value.isoformat() if isinstance(value, datetime) else value


def _check(session: Session, rule: Rule) -> Finding:
    count = session.scalar(rule.broken) or 0
    if not count:
        return ok(rule.subject, rule.holds[0].upper() + rule.holds[1:] + ".")
    rows = "1 row breaks" if count == 1 else f"{count} rows break"
    return problem(rule.subject, f"{rows} the rule that {rule.holds}.", rule.remedy)


def _rules() -> Sequence[Rule]:
    return (
        *_vote_rules(),
        *_text_rules(),
        Rule(
            "ledger",
            "every line of the consent ledger names a purpose and a policy version",
            _count(ConsentEvent).where(
                or_(col(ConsentEvent.purpose).not_in(list(Purpose)), col(ConsentEvent.policy_version) == "")
            ),
        ),
        *_run_rules(),
        *_pointer_rules(),
    )


def _vote_rules() -> Sequence[Rule]:
    return (
        Rule(
            "votes",
            "every vote has its reply",
            _count(Feedback).outerjoin(Reply, col(Reply.id) == Feedback.reply_id).where(col(Reply.id).is_(None)),
        ),
        Rule(
            "votes",
            "every duel vote has its duel",
            _count(DuelVote).outerjoin(Duel, col(Duel.id) == DuelVote.duel_id).where(col(Duel.id).is_(None)),
        ),
        Rule("votes", "every vote is one that can be cast", _count(Feedback).where(col(Feedback.vote).not_in(Vote))),
        Rule(
            "votes",
            "every duel vote is one that can be cast",
            _count(DuelVote).where(col(DuelVote.choice).not_in(DuelChoice)),
        ),
    )


def _text_rules() -> Sequence[Rule]:
    forgotten = aliased(Tombstone)
    return (
        Rule(
            "texts",
            "every member's stored message had that member's agreement",
            _count(Message).where(
                Message.provenance != Provenance.OPERATOR_SEED,
                ~_agreed(Message.member, Message.channel),
            ),
            "these texts must not be kept: erase them (`nocap members forget`), and find out what wrote them",
        ),
        Rule(
            "texts",
            "every stored prompt or answer had the asking member's agreement",
            _count(Reply).where(
                or_(col(Reply.prompt).is_not(None), col(Reply.text).is_not(None)),
                ~_agreed(Reply.prompt_member, Reply.channel),
            ),
            "these texts must not be kept: erase them (`nocap members forget`), and find out what wrote them",
        ),
        Rule(
            "texts",
            "nothing erased has come back",
            _count(Message)
            .outerjoin(forgotten, and_(col(forgotten.key) == Message.member, col(Message.sent_at) <= forgotten.at))
            .where(
                or_(
                    col(forgotten.key).is_not(None),
                    select(Tombstone.key).where(col(Tombstone.key) == Message.key).exists(),
                )
            ),
            "erase these texts again, and find out what brought them back",
        ),
        Rule(
            "texts",
            "every stored message belongs to a known channel",
            _count(Message).outerjoin(Channel, col(Channel.key) == Message.channel).where(col(Channel.key).is_(None)),
        ),
    )


def _run_rules() -> Sequence[Rule]:
    unfinished = col(Run.state).in_(UNFINISHED)
    return (
        Rule(
            "runs",
            "every run is in a known state, and has an end where it is over",
            _count(Run).where(
                or_(
                    col(Run.state).not_in(RunState),
                    and_(~unfinished, col(Run.ended_at).is_(None)),
                    and_(unfinished, col(Run.ended_at).is_not(None)),
                )
            ),
        ),
        Rule(
            "runs",
            "every promoted run has its adapter and passed all its gates",
            _count(Run)
            .outerjoin(Adapter, and_(col(Adapter.name) == Run.challenger, col(Adapter.run_id) == Run.id))
            .where(
                Run.state == RunState.PROMOTED,
                or_(
                    col(Adapter.name).is_(None),
                    ~select(GateOutcome.run_id).where(GateOutcome.run_id == Run.id).exists(),
                    select(GateOutcome.run_id)
                    .where(GateOutcome.run_id == Run.id, GateOutcome.verdict != Verdict.PASS)
                    .exists(),
                ),
            ),
            "roll back (`nocap rollback`) and retrain",
        ),
        Rule(
            "runs",
            "every adapter that names a run has it",
            _count(Adapter)
            .outerjoin(Run, col(Run.id) == Adapter.run_id)
            .where(col(Adapter.run_id).is_not(None), col(Run.id).is_(None)),
        ),
    )


def _pointer_rules() -> Sequence[Rule]:
    rules = [
        Rule(
            "pointers",
            "every voice has its pointer",
            _count(Voice)
            .outerjoin(Deployment, col(Deployment.voice) == Voice.name)
            .where(col(Deployment.voice).is_(None)),
            "run `nocap init`",
        )
    ]
    for column in (Deployment.current, Deployment.previous, Deployment.canary):
        name: Any = col(column)
        rules.append(
            Rule(
                "pointers",
                f"every {name.key} adapter is a registered one of its voice" + _unless_retired(name.key),
                _count(Deployment)
                .outerjoin(Adapter, and_(col(Adapter.name) == name, col(Adapter.voice) == Deployment.voice))
                .where(
                    name.is_not(None),
                    name != BASE,
                    or_(col(Adapter.name).is_(None), _is_retired(name.key)),
                ),
                "move the pointer to an adapter that is there: `nocap rollback ADAPTER`",
            )
        )
    return rules


def _unless_retired(column: str) -> str:
    return "" if column == "previous" else ", not a retired one"


def _is_retired(column: str) -> Any:
    """A retired adapter may still be remembered as the previous one; it cannot be moved to."""
    return False if column == "previous" else Adapter.status == AdapterStatus.RETIRED


def _last_moves(session: Session) -> Finding:
    """Whether each pointer stands where the audit log's last move left it."""
    last = (
        select(func.max(AuditEvent.id))
        .where(AuditEvent.action == "move_pointer")
        .group_by(col(AuditEvent.target))
        .scalar_subquery()
    )
    moves = session.scalars(select(AuditEvent).where(col(AuditEvent.id).in_(last)))
    expected = {move.target: str(move.detail.get("after")) for move in moves}
    for pointer in session.scalars(select(Deployment)):
        if pointer.current != expected.get(pointer.voice, pointer.current):
            return problem(
                "pointers",
                f"{pointer.voice} points to {pointer.current}, but the audit log's last move went to"
                f" {expected[pointer.voice]}: somebody changed the row by hand.",
                f"set it right by `nocap rollback {expected[pointer.voice]}`, or record the move by a second one",
            )
    return ok("pointers", "Every pointer stands where the audit log's last move left it.")


def _triggers(session: Session) -> Finding:
    dialect = session.connection().dialect.name
    catalogue = (
        "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        if dialect == "sqlite"
        else "SELECT tgname FROM pg_trigger WHERE tgenabled <> 'D'"
    )
    there = set(session.connection().execute(text(catalogue)).scalars())
    missing = sorted(LEDGER_TRIGGERS[dialect] - there)
    if missing:
        return problem("ledger", f"The ledgers are not protected: the trigger {missing[0]} is gone or off.", RESTORE)
    return ok("ledger", "The ledgers and the adapters' facts are protected from being rewritten.")


def _pages(session: Session) -> Finding:
    """SQLite reads every page and index; PostgreSQL checks its own while it works."""
    connection = session.connection()
    if connection.dialect.name != "sqlite":
        return ok("file", "PostgreSQL answers; it checks its own pages.")
    wrong = [str(line) for line in connection.exec_driver_sql("PRAGMA integrity_check(1)").scalars() if line != "ok"]
    orphan = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
    if wrong:
        return problem("file", f"The file is damaged: {wrong[0]}.", "restore a backup: `nocap db restore`")
    if orphan is not None:
        return problem("file", f"A row of {orphan[0]} points to nothing in {orphan[2]}.", RESTORE)
    return ok("file", "Every page and every index of the file is whole.")


def _agreed(member: Any, channel: Any) -> Any:
    """Whether the ledger has any line by which the member let this channel's texts be stored."""
    return (
        select(ConsentEvent.id)
        .where(
            ConsentEvent.member == member,
            ConsentEvent.channel == channel,
            ConsentEvent.purpose == Purpose.STORE,
            col(ConsentEvent.granted),
        )
        .exists()
    )


def _count(table: type[SQLModel]) -> Any:
    return select(func.count()).select_from(table)
