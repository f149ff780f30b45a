import random

import pytest
from sqlalchemy import delete, text, update
from sqlalchemy.exc import IntegrityError

from nocap.domain import ChannelKey, MemberKey, Purpose
from storage.consent import consent_state, has_consent, record_consent
from storage.database import Database
from storage.tables import AuditEvent, ConsentEvent
from tests.storage.community import ANA, BEN, FLAT, NOW, POLICY, agree


def test_the_default_is_no(database: Database) -> None:
    with database.read() as session:
        assert consent_state(session, ANA, FLAT, POLICY) == dict.fromkeys(Purpose, False)


def test_each_purpose_is_agreed_to_on_its_own(database: Database) -> None:
    with database.write() as session:
        agree(session, ANA, [Purpose.STORE, Purpose.TRAIN])
        assert has_consent(session, ANA, FLAT, Purpose.STORE, POLICY)
        assert has_consent(session, ANA, FLAT, Purpose.TRAIN, POLICY)
        assert not has_consent(session, ANA, FLAT, Purpose.EVALUATE, POLICY)


def test_consent_holds_for_its_member_and_channel_alone(database: Database) -> None:
    with database.write() as session:
        agree(session, ANA)
        assert not has_consent(session, BEN, FLAT, Purpose.STORE, POLICY)
        assert not has_consent(session, ANA, ChannelKey("elsewhere"), Purpose.STORE, POLICY)


def test_taking_it_back_holds_in_the_very_next_statement(database: Database) -> None:
    with database.write() as session:
        agree(session, ANA)
        agree(session, ANA, [Purpose.TRAIN], granted=False)
        assert not has_consent(session, ANA, FLAT, Purpose.TRAIN, POLICY)
        assert has_consent(session, ANA, FLAT, Purpose.STORE, POLICY)


def test_a_new_policy_asks_again_and_a_later_no_counts_whatever_its_policy(database: Database) -> None:
    with database.write() as session:
        agree(session, ANA, [Purpose.STORE], policy="2025-01")
        assert not has_consent(session, ANA, FLAT, Purpose.STORE, POLICY)
        agree(session, ANA, [Purpose.STORE])
        assert has_consent(session, ANA, FLAT, Purpose.STORE, POLICY)
        agree(session, ANA, [Purpose.STORE], granted=False, policy="2025-01")
        assert not has_consent(session, ANA, FLAT, Purpose.STORE, POLICY)


def test_the_last_line_decides_over_any_history(database: Database) -> None:
    dice = random.Random(7)
    members = [MemberKey(f"m{number}") for number in range(3)]
    channels = [ChannelKey("a"), ChannelKey("b")]
    last: dict[tuple[str, str, Purpose], bool] = {}
    with database.write() as session:
        for _ in range(200):
            member, channel, purpose = dice.choice(members), dice.choice(channels), dice.choice(list(Purpose))
            granted, policy = dice.random() < 0.7, dice.choice([POLICY, "older"])
            record_consent(session, member, channel, [purpose], granted, policy, NOW)
            last[member, channel, purpose] = granted and policy == POLICY
        for member in members:
            for channel in channels:
                expected = {purpose: last.get((member, channel, purpose), False) for purpose in Purpose}
                assert consent_state(session, member, channel, POLICY) == expected


@pytest.mark.parametrize("table", [ConsentEvent, AuditEvent])
@pytest.mark.parametrize("action", ["update", "delete"])
def test_a_ledger_line_can_neither_be_changed_nor_deleted(
    database: Database, table: type[ConsentEvent] | type[AuditEvent], action: str
) -> None:
    with database.write() as session:
        agree(session, ANA)
        session.add(AuditEvent(at=NOW, actor="op", action="x", target="y", detail={}))
    statement = update(table).values(at=NOW) if action == "update" else delete(table)
    with pytest.raises(IntegrityError, match="append-only"), database.write() as session:
        session.execute(statement)
    with database.read() as session:
        assert has_consent(session, ANA, FLAT, Purpose.STORE, POLICY)


def test_the_ledger_cannot_be_truncated(postgres_database: Database) -> None:
    with pytest.raises(IntegrityError, match="append-only"), postgres_database.write() as session:
        session.connection().execute(text("TRUNCATE consent_event"))
