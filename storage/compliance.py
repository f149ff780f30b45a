"""What an adapter was trained on and under which basis, and what became of that basis since."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from sqlmodel import Session, col, or_, select

from nocap.domain import AdapterName, Provenance, Purpose, RunId
from storage.registry import get_adapter
from storage.runs import TRAINING_ROLES, get_run
from storage.tables import ConsentEvent, Duel, Message, Reply, Retirement, RunSource, Tombstone


@dataclass(frozen=True, slots=True)
class Basis:
    """Rows of one provenance that trained the adapter under one basis."""

    provenance: str | None
    """None for rows that are gone since: where they came from went with them."""
    purpose: str | None
    """`train`, where the basis is their author's consent; None for the operator's seeds and for rows that are gone."""
    policy_version: str | None
    """Of the privacy text agreed to; None with a purpose means that the ledger has no such line."""
    permission_reference: str | None
    """Discord's written permission, where rows of Discord messages needed it."""
    rows: int
    members: int
    revoked_rows: int
    """Still stored, but their author took the consent back since."""
    revoked_members: int
    erased_rows: int
    expired_rows: int
    """Deleted by retention, without anybody having asked."""


@dataclass(frozen=True, slots=True)
class Compliance:
    adapter: str
    voice: str
    status: str
    run: str | None
    trained_at: datetime | None
    """The present of its run; None for an adapter that was not trained here."""
    rows: int
    members: int
    bases: list[Basis]
    retirement_requested_at: datetime | None
    """When the first erasure of what it learnt marked it; None where nothing did."""


class _Place(NamedTuple):
    channel: str
    provenance: str


class _Row(NamedTuple):
    key: str
    member: str
    place: _Place | None
    """None where the text is gone."""


class _Ledger(NamedTuple):
    agreed_under: dict[tuple[str, str], str]
    """The privacy text of (member, channel)'s last yes to training before the run ended."""
    holding: set[tuple[str, str, str]]
    """(member, channel, purpose) whose last line is a yes."""


def compliance(session: Session, name: AdapterName) -> Compliance:
    """By provenance and basis, how much trained the adapter. Raises AdapterError for an unknown one."""
    adapter, mark = get_adapter(session, name), session.get(Retirement, name)
    run = get_run(session, RunId(adapter.run_id)) if adapter.run_id else None
    rows = _training_rows(session, run.id) if run else []
    bases: dict[tuple[str | None, ...], list[_Row]] = defaultdict(list)
    ledger = _ledger(session, run.id, run.ended_at) if run else _Ledger({}, set())
    for row in rows:
        bases[_basis_of(row, ledger, run.permission_reference if run else None)].append(row)
    erased = _erased(session, run.id, [row for row in rows if row.place is None]) if run else set()
    return Compliance(
        adapter=adapter.name,
        voice=adapter.voice,
        status=adapter.status,
        run=adapter.run_id,
        trained_at=run.as_of if run else None,
        rows=len(rows),
        members=len({row.member for row in rows}),
        bases=[
            _counted(basis, bases[basis], ledger, erased)
            for basis in sorted(bases, key=lambda one: tuple(part or "~" for part in one))
        ],
        retirement_requested_at=mark.requested_at if mark else None,
    )


def _training_rows(session: Session, run_id: str) -> list[_Row]:
    """Each text that shaped the adapter, once, in whichever roles."""
    statement = (
        select(RunSource.message_key, RunSource.member, Message.channel, Message.provenance)
        .outerjoin(Message, col(Message.key) == RunSource.message_key)
        .where(RunSource.run_id == run_id, col(RunSource.role).in_(TRAINING_ROLES))
        .distinct()
        .order_by(RunSource.message_key)
    )
    found = session.execute(statement).all()
    prompts = _prompts(session, run_id) if any(channel is None for _, _, channel, _ in found) else {}
    return [
        _Row(key, member, prompts.get(key) if channel is None else _Place(channel, provenance))
        for key, member, channel, provenance in found
    ]


def _prompts(session: Session, run_id: str) -> dict[str, _Place]:
    """Where prompts stand that were kept with the bot's answers only, by the key that lineage knows them by."""
    authors = select(RunSource.member).where(RunSource.run_id == run_id)
    places: dict[str, _Place] = {}
    for table in (Reply, Duel):
        statement = select(table.id, table.prompt_key, table.channel, table.provenance).where(
            col(table.prompt_member).in_(authors), col(table.prompt).is_not(None)
        )
        for number, key, channel, provenance in session.exec(statement):
            places[key or f"{table.__name__.lower()}/{number}"] = _Place(channel, provenance)
    return places


def _ledger(session: Session, run_id: str, ended_at: datetime | None) -> _Ledger:
    authors = select(RunSource.member).where(RunSource.run_id == run_id)
    statement = (
        select(ConsentEvent)
        .where(col(ConsentEvent.member).in_(authors), col(ConsentEvent.purpose).in_([Purpose.TRAIN, Purpose.STORE]))
        .order_by(col(ConsentEvent.id))
    )
    agreed_under: dict[tuple[str, str], str] = {}
    holding: set[tuple[str, str, str]] = set()
    for line in session.exec(statement):
        place = line.member, line.channel, line.purpose
        (holding.add if line.granted else holding.discard)(place)
        if line.granted and line.purpose == Purpose.TRAIN and (ended_at is None or line.at <= ended_at):
            agreed_under[line.member, line.channel] = line.policy_version
    return _Ledger(agreed_under, holding)


def _basis_of(row: _Row, ledger: _Ledger, permission_reference: str | None) -> tuple[str | None, ...]:
    """Provenance, purpose, privacy text, permission reference."""
    if row.place is None:
        return None, None, None, None
    if row.place.provenance == Provenance.OPERATOR_SEED:
        return row.place.provenance, None, None, None
    reference = permission_reference if row.place.provenance == Provenance.DISCORD_MESSAGE else None
    policy_version = ledger.agreed_under.get((row.member, row.place.channel))
    return row.place.provenance, Purpose.TRAIN.value, policy_version, reference


def _counted(basis: tuple[str | None, ...], rows: Sequence[_Row], ledger: _Ledger, erased: set[str]) -> Basis:
    provenance, purpose, policy_version, reference = basis
    revoked = [row for row in rows if purpose is not None and not _still_agreed(row, ledger)]
    gone = [row for row in rows if row.place is None]
    return Basis(
        provenance=provenance,
        purpose=purpose,
        policy_version=policy_version,
        permission_reference=reference,
        rows=len(rows),
        members=len({row.member for row in rows}),
        revoked_rows=len(revoked),
        revoked_members=len({row.member for row in revoked}),
        erased_rows=sum(row.key in erased for row in gone),
        expired_rows=sum(row.key not in erased for row in gone),
    )


def _still_agreed(row: _Row, ledger: _Ledger) -> bool:
    assert row.place is not None, "a row with a purpose is there"
    return all(
        (row.member, row.place.channel, purpose.value) in ledger.holding for purpose in (Purpose.TRAIN, Purpose.STORE)
    )


def _erased(session: Session, run_id: str, gone: Sequence[_Row]) -> set[str]:
    """The keys among these whose own tombstone, or their author's, is there."""
    if not gone:
        return set()
    keys, authors = (
        select(column).where(RunSource.run_id == run_id) for column in (RunSource.message_key, RunSource.member)
    )
    buried = set(
        session.exec(select(Tombstone.key).where(or_(col(Tombstone.key).in_(keys), col(Tombstone.key).in_(authors))))
    )
    return {row.key for row in gone if row.key in buried or row.member in buried}
