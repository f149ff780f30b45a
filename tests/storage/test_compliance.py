"""What trained an adapter and on which basis, as told later."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import update
from sqlmodel import col, select

from nocap.domain import AdapterName, MemberKey, MessageKey, Provenance, Purpose, RunId, RunState
from storage import registry, runs
from storage.compliance import Basis, compliance
from storage.consent import record_consent
from storage.database import Database
from storage.messages import delete_message, forget_member
from storage.tables import Adapter, Message, RunSource
from tests.storage.community import ANA, BEN, FLAT, GENZ, NOW, POLICY, agree, message, open_channel, store

CLEO, OPERATOR = MemberKey("cleo"), MemberKey("operator")
NAME = AdapterName("genz-v1")
LATER = NOW + timedelta(days=3)


@pytest.fixture
def trained(database: Database) -> Database:
    """genz-v1, which learnt from Ana's k1 and k2, Ben's k3, Cleo's k4 of Discord and the operator's k5."""
    with database.write() as session:
        registry.ensure_voice(session, GENZ, "Be a bot.", ["no cap"], NOW)
        open_channel(session)
        for member in (ANA, BEN, CLEO):
            agree(session, member)
        store(
            session,
            message("k1"),
            message("k2"),
            message("k3", BEN),
            message("k4", CLEO, provenance=Provenance.DISCORD_MESSAGE),
            message("k5", OPERATOR, provenance=Provenance.OPERATOR_SEED),
            message("k6", CLEO),
        )
        run = runs.create_run(
            session,
            voice=GENZ,
            trigger="test",
            as_of=NOW,
            incumbent="base",
            options={},
            permission_reference="DISCORD-7",
            at=NOW,
        )
        rows = [("k1", ANA), ("k2", ANA), ("k3", BEN), ("k4", CLEO), ("k5", OPERATOR)]
        used = [RunSource(run_id=run.id, message_key=key, role="train", member=member) for key, member in rows]
        used.append(RunSource(run_id=run.id, message_key="k1", role="thumb", member=ANA))
        used.append(RunSource(run_id=run.id, message_key="k6", role="evaluate", member=CLEO))
        runs.set_sources(session, RunId(run.id), used)
        adapter = {"voice": GENZ, "base": "b", "base_digest": "b", "status": "passed", "created_at": NOW}
        registry.register_adapter(session, Adapter(name=NAME, run_id=run.id, digest="d", **adapter))
        runs.finish_run(session, RunId(run.id), RunState.REFUSED, "over", NOW)
    return database


def by_provenance(database: Database) -> dict[str | None, Basis]:
    with database.read() as session:
        return {basis.provenance: basis for basis in compliance(session, NAME).bases}


def basis(provenance: Provenance | None, rows: int, members: int, **others: object) -> Basis:
    values: dict[str, object] = {
        "purpose": "train",
        "policy_version": POLICY,
        "permission_reference": None,
        "revoked_rows": 0,
        "revoked_members": 0,
        "erased_rows": 0,
        "expired_rows": 0,
    }
    return Basis(provenance=provenance, rows=rows, members=members, **(values | others))  # type: ignore[arg-type]


def test_every_training_row_is_told_once_with_its_basis(trained: Database) -> None:
    with trained.read() as session:
        found = compliance(session, NAME)
    assert (found.rows, found.members, found.retirement_requested_at) == (5, 4, None)
    assert found.bases == [
        basis(Provenance.DISCORD_MESSAGE, 1, 1, permission_reference="DISCORD-7"),
        basis(Provenance.OPERATOR_SEED, 1, 1, purpose=None, policy_version=None),
        basis(Provenance.TELEGRAM_MESSAGE, 3, 2),
    ]


@pytest.mark.parametrize("purpose", [Purpose.TRAIN, Purpose.STORE])
def test_a_revocation_counts_and_a_later_yes_does_not_change_what_it_was_trained_under(
    trained: Database, purpose: Purpose
) -> None:
    with trained.write() as session:
        record_consent(session, ANA, FLAT, [purpose], False, POLICY, LATER)
        record_consent(session, BEN, FLAT, list(Purpose), True, "2027-01", LATER)
    assert by_provenance(trained)[Provenance.TELEGRAM_MESSAGE] == basis(
        Provenance.TELEGRAM_MESSAGE, 3, 2, revoked_rows=2, revoked_members=1
    )


def test_what_is_gone_is_told_apart_and_an_erasure_marks_the_adapter(trained: Database) -> None:
    with trained.write() as session:
        delete_message(session, MessageKey("k3"), LATER)
        session.delete(session.exec(select(Message).where(Message.key == "k4")).one())
    gone = basis(None, 2, 2, purpose=None, policy_version=None, erased_rows=1, expired_rows=1)
    assert by_provenance(trained)[None] == gone
    with trained.write() as session:
        forget_member(session, ANA, LATER)
    with trained.read() as session:
        found = compliance(session, NAME)
    assert found.retirement_requested_at == LATER
    assert found.bases[-1] == basis(None, 4, 3, purpose=None, policy_version=None, erased_rows=3, expired_rows=1)


def test_a_row_without_a_line_in_the_ledger_is_told_as_such(trained: Database) -> None:
    with trained.write() as session:
        session.execute(update(Message).where(col(Message.key) == "k3").values(member="dan"))
        session.execute(update(RunSource).where(col(RunSource.message_key) == "k3").values(member="dan"))
    with trained.read() as session:
        bases = compliance(session, NAME).bases
    missing = [one for one in bases if one.purpose and one.policy_version is None]
    assert [(one.rows, one.revoked_rows) for one in missing] == [(1, 1)]
