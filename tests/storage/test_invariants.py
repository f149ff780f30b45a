from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlmodel import Session, SQLModel

from nocap.domain import AdapterName, MessageKey, Provenance, Vote
from nocap.findings import Finding, Level
from storage.database import Database
from storage.feedback import cast_vote, record_reply
from storage.invariants import check_rows, digest
from storage.messages import delete_message
from storage.registry import ensure_voice, move_pointer, register_adapter
from storage.tables import Adapter, Deployment, Feedback, Lease, Message, Run
from tests.storage.community import ANA, BEN, FLAT, GENZ, NOW, POLICY, agree, message, open_channel, store


def adapter(name: str = "genz-v1", status: str = "passed", run_id: str | None = None) -> Adapter:
    return Adapter(
        name=name, voice=GENZ, run_id=run_id, base="b", base_digest="b", digest="d", status=status, created_at=NOW
    )


def run(state: str = "promoted", **values: object) -> Run:
    common = {"voice": GENZ, "trigger": "operator", "as_of": NOW, "created_at": NOW, "ended_at": NOW}
    return Run(**{"id": "r1", "state": state, "incumbent": "base", **common, **values})  # type: ignore[arg-type]


@pytest.fixture
def lively(database: Database) -> Database:
    """A community with a stored message, an answer with a vote, and a promoted adapter."""
    with database.write() as session:
        ensure_voice(session, GENZ, "prompt", ["no cap"], NOW)
        open_channel(session)
        agree(session, ANA)
        store(session, message("k1"))
        answered = record_reply(
            session,
            channel=FLAT,
            voice=GENZ,
            adapter=AdapterName("base"),
            prompt_member=ANA,
            prompt_key=MessageKey("k1"),
            prompt="no cap",
            text="fr",
            provenance=Provenance.TELEGRAM_MESSAGE,
            policy_version=POLICY,
            at=NOW,
        )
        cast_vote(session, answered, BEN, Vote.UP, NOW)
        register_adapter(session, adapter())
        move_pointer(session, GENZ, AdapterName("genz-v1"), actor="test", reason="test", at=NOW)
    return database


def problems(database: Database) -> list[Finding]:
    with database.read() as session:
        return [finding for finding in check_rows(session) if finding.level is Level.PROBLEM]


def unprotected(session: Session, statement: str) -> None:
    """Runs a statement that foreign keys and triggers would refuse."""
    connection = session.connection()
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL session_replication_role = replica"))
    else:
        connection.execute(text("PRAGMA defer_foreign_keys = ON"))
    connection.execute(text(statement))


def test_a_sound_database_has_no_problem(lively: Database) -> None:
    assert problems(lively) == []


@pytest.mark.parametrize(
    ("row", "subject", "rule"),
    [
        (Message(key="k2", channel=FLAT, member=BEN, provenance="donation", sent_at=NOW, received_at=NOW, text="x"),
         "texts", "agreement"),
        (Message(key="k2", channel="nowhere", member="x", provenance="operator_seed", sent_at=NOW, received_at=NOW,
                 text="x"), "texts", "known channel"),
        (Feedback(reply_id=1, member="carl", vote="meh", at=NOW), "votes", "can be cast"),
        (run("promoted", challenger="genz-v9"), "runs", "passed all its gates"),
        (run("refused", ended_at=None), "runs", "has an end"),
        (adapter("genz-v2", run_id="never"), "runs", "names a run"),
        (Deployment(voice="other", current="genz-v1", since=NOW), "pointers", "of its voice"),
    ],
)  # fmt: skip
def test_a_row_that_breaks_a_rule_is_found(lively: Database, row: SQLModel, subject: str, rule: str) -> None:
    with lively.write() as session:
        if isinstance(row, Feedback):
            row.reply_id = session.connection().execute(text("SELECT id FROM reply")).scalar_one()
        session.add(type(row)(**row.model_dump()))
    (found,) = problems(lively)
    assert (found.subject, rule in found.sentence) == (subject, True), found
    assert found.remedy


def test_a_vote_without_its_reply_is_found(lively: Database) -> None:
    if lively.url.get_backend_name() == "sqlite":
        import sqlite3

        with sqlite3.connect(str(lively.url.database)) as raw:
            raw.execute("DELETE FROM reply")
    else:
        with lively.write() as session:
            unprotected(session, "DELETE FROM reply")
    assert any("every vote has its reply" in finding.sentence for finding in problems(lively))


def test_a_pointer_changed_by_hand_is_found(lively: Database) -> None:
    with lively.write() as session:
        session.get_one(Deployment, GENZ).current = "base"
    (found,) = problems(lively)
    assert "audit log" in found.sentence
    assert "nocap rollback genz-v1" in found.remedy


def test_a_text_that_came_back_after_its_erasure_is_found(lively: Database) -> None:
    with lively.write() as session:
        delete_message(session, MessageKey("k1"), NOW)
        columns = {"key": "k1", "channel": FLAT, "member": ANA, "provenance": "donation", "text": "x"}
        session.add(Message(**columns, sent_at=NOW, received_at=NOW))
    (found,) = problems(lively)
    assert "nothing erased has come back" in found.sentence


def test_a_missing_trigger_is_found(lively: Database) -> None:
    sqlite = lively.url.get_backend_name() == "sqlite"
    create = ""
    with lively.write() as session:
        if sqlite:
            name = "consent_event_no_delete"
            create = session.connection().exec_driver_sql(
                f"SELECT sql FROM sqlite_master WHERE name = '{name}'"
            ).scalar_one()  # fmt: skip
            session.connection().exec_driver_sql(f"DROP TRIGGER {name}")
        else:
            session.connection().exec_driver_sql("ALTER TABLE consent_event DISABLE TRIGGER consent_event_no_change")
    (found,) = problems(lively)
    assert "not protected" in found.sentence
    with lively.write() as session:
        session.connection().exec_driver_sql(
            create if sqlite else "ALTER TABLE consent_event ENABLE TRIGGER consent_event_no_change"
        )
    assert problems(lively) == []


def test_the_digest_sees_every_lasting_change_and_no_lease(lively: Database) -> None:
    def now() -> str:
        with lively.read() as session:
            return digest(session)

    before = now()
    with lively.write() as session:
        session.add(Lease(name="x", owner="y", expires_at=NOW))
    assert now() == before
    with lively.write() as session:
        cast_vote(session, session.connection().execute(text("SELECT id FROM reply")).scalar_one(), BEN, Vote.DOWN, NOW)
    assert now() != before
