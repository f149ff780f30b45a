import itertools
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, insert, text
from sqlmodel import Session

from nocap.domain import ChannelKey, Provenance, Purpose, VoiceName
from storage.channels import set_channel
from storage.database import Database
from storage.eligibility import EligibilityQuery, Exclusion, eligible_messages, exclusion_counts
from storage.messages import delete_message, forget_member
from storage.tables import ConsentEvent, Message, Tombstone
from tests.storage.community import ANA, BEN, FLAT, GENZ, NOW, POLICY, agree, message, open_channel, store

CONSENTS = ("granted", "never", "revoked", "older policy", "other channel")
QUIET = ChannelKey("quiet")
PROVENANCES = (*Provenance, "carrier_pigeon")


def query(
    purpose: Purpose = Purpose.TRAIN, *, permission: str | None = None, since_days: float | None = None
) -> EligibilityQuery:
    assert purpose in (Purpose.TRAIN, Purpose.EVALUATE)
    since = None if since_days is None else NOW - timedelta(days=since_days)
    return EligibilityQuery(GENZ, purpose, POLICY, permission, since, NOW)  # type: ignore[arg-type]


def expected_reason(
    provenance: str, store: str, purpose_consent: str, collect: bool, permission: str | None, purpose: Purpose
) -> Exclusion | None:
    if provenance == "operator_seed":
        return None if purpose is Purpose.TRAIN else Exclusion.PROVENANCE
    if provenance in ("bot_reply", "synthetic", "carrier_pigeon"):
        return Exclusion.PROVENANCE
    if provenance == "discord_message" and permission != "DISCORD-2026-17":
        return Exclusion.NO_PERMISSION
    if not collect:
        return Exclusion.CHANNEL_NOT_COLLECTING
    if store != "granted":
        return Exclusion.NO_STORE_CONSENT
    return None if purpose_consent == "granted" else Exclusion.NO_PURPOSE_CONSENT


def ledger(member: str, channel: str, purpose: Purpose, state: str) -> list[ConsentEvent]:
    """The lines that leave the consent in `state`."""

    def line(granted: bool = True, **changes: str) -> ConsentEvent:
        facts = {"member": member, "channel": channel, "purpose": purpose, "policy_version": POLICY} | changes
        return ConsentEvent(granted=granted, at=NOW, **facts)

    elsewhere = QUIET if channel == FLAT else FLAT
    return {
        "granted": [line(granted=False), line()],
        "never": [],
        "revoked": [line(), line(granted=False)],
        "older policy": [line(policy_version="older")],
        "other channel": [line(channel=elsewhere)],
    }[state]


def test_every_cell_of_the_rule(database: Database) -> None:
    cells = list(itertools.product(PROVENANCES, CONSENTS, CONSENTS, (True, False)))
    with database.write() as session:
        open_channel(session, FLAT, collect=True)
        open_channel(session, QUIET, collect=False)
        for number, (provenance, store_consent, purpose_consent, collect) in enumerate(cells):
            member, channel = f"m{number}", FLAT if collect else QUIET
            session.add_all(ledger(member, channel, Purpose.STORE, store_consent))
            session.add_all(ledger(member, channel, Purpose.TRAIN, purpose_consent))
            session.add_all(ledger(member, channel, Purpose.EVALUATE, purpose_consent))
            row = {"channel": channel, "member": member, "provenance": provenance, "sent_at": NOW - timedelta(days=7)}
            session.add(Message(key=f"k{number}", received_at=NOW, text=f"text {number}", **row))
    for purpose, permission in itertools.product(
        (Purpose.TRAIN, Purpose.EVALUATE), (None, "", "  ", "DISCORD-2026-17")
    ):
        reasons = [
            expected_reason(provenance, store_consent, purpose_consent, collect, permission, purpose)
            for provenance, store_consent, purpose_consent, collect in cells
        ]
        with database.read() as session:
            eligible = eligible_messages(session, query(purpose, permission=permission))
            counts = exclusion_counts(session, query(purpose, permission=permission))
        assert {row.key for row in eligible} == {f"k{n}" for n, reason in enumerate(reasons) if reason is None}
        assert all(row.text == f"text {row.key[1:]}" for row in eligible)
        assert counts == Counter(reason for reason in reasons if reason is not None)


def test_taking_consent_back_counts_in_the_very_next_statement(database: Database) -> None:
    with database.write() as session:
        open_channel(session)
        agree(session, ANA)
        store(session, message("k1"))
        assert [row.key for row in eligible_messages(session, query())] == ["k1"]
        agree(session, ANA, [Purpose.TRAIN], granted=False)
        assert eligible_messages(session, query()) == []
        assert [row.key for row in eligible_messages(session, query(Purpose.EVALUATE))] == ["k1"]
        agree(session, ANA, [Purpose.STORE], granted=False)
        assert eligible_messages(session, query(Purpose.EVALUATE)) == []


def test_closing_a_channel_counts_in_the_very_next_statement(database: Database) -> None:
    with database.write() as session:
        open_channel(session)
        agree(session, ANA)
        store(session, message("k1"))
        set_channel(session, FLAT, collect=False)
        assert eligible_messages(session, query()) == []
        assert exclusion_counts(session, query()) == {Exclusion.CHANNEL_NOT_COLLECTING: 1}


def test_one_members_consent_says_nothing_about_another_in_the_same_channel(database: Database) -> None:
    with database.write() as session:
        open_channel(session)
        agree(session, ANA)
        agree(session, BEN, [Purpose.STORE])
        store(session, message("k1", ANA), message("k2", BEN))
        assert [row.key for row in eligible_messages(session, query())] == ["k1"]
        assert exclusion_counts(session, query()) == {Exclusion.NO_PURPOSE_CONSENT: 1}


def test_the_window_holds_its_start_and_not_its_end(database: Database) -> None:
    moments = {"before": NOW - timedelta(days=8), "start": NOW - timedelta(days=7), "end": NOW}
    with database.write() as session:
        open_channel(session)
        agree(session, ANA)
        store(session, *(message(key, sent_at=moment) for key, moment in moments.items()))
        assert [row.key for row in eligible_messages(session, query(since_days=7))] == ["start"]
        assert exclusion_counts(session, query(since_days=7)) == {Exclusion.OUTSIDE_WINDOW: 2}
        assert [row.key for row in eligible_messages(session, query())] == ["before", "start"]


def test_another_voices_channels_are_not_looked_at(database: Database) -> None:
    with database.write() as session:
        open_channel(session)
        agree(session, ANA)
        store(session, message("k1"))
        set_channel(session, FLAT, voice=VoiceName("boomer"))
        assert eligible_messages(session, query()) == []
        assert exclusion_counts(session, query()) == {}


@pytest.mark.parametrize("erase", ["message", "member"])
def test_rows_that_a_restored_backup_brings_back_stay_out(database: Database, erase: str) -> None:
    with database.write() as session:
        open_channel(session)
        agree(session, ANA)
        store(session, message("k1"))
        if erase == "message":
            delete_message(session, message("k1").key, NOW)
        else:
            forget_member(session, ANA, NOW)
            agree(session, ANA)
        assert session.get(Tombstone, "k1") is not None
        key = "k1" if erase == "message" else "k2"
        row = {"channel": FLAT, "member": ANA, "provenance": "terminal", "sent_at": NOW - timedelta(days=7)}
        session.add(Message(key=key, received_at=NOW, text="back again", **row))
        assert eligible_messages(session, query()) == []
        assert exclusion_counts(session, query()) == {Exclusion.TOMBSTONED: 1}


def test_messages_come_by_channel_and_time(database: Database) -> None:
    with database.write() as session:
        open_channel(session)
        open_channel(session, QUIET)
        agree(session, ANA)
        agree(session, ANA, channel=QUIET)
        early, late = NOW - timedelta(days=3), NOW - timedelta(days=1)
        store(
            session,
            message("q1", channel=QUIET, sent_at=early),
            message("f2", sent_at=late),
            message("f1", sent_at=early),
        )
        assert [row.key for row in eligible_messages(session, query())] == ["f1", "f2", "q1"]


def test_the_window_is_looked_up_in_an_index(database: Database) -> None:
    """As many messages as make reading them all dear, of a year, in the order in which they were said."""
    with database.write() as session:
        for number in range(10):
            open_channel(session, ChannelKey(f"c{number}"))
        session.connection().execute(insert(Message), [_said(number) for number in range(5000)])
        session.connection().execute(text("ANALYZE"))
    with database.read() as session:
        with _asked(session) as statements:
            eligible_messages(session, query(since_days=28))
        ((statement, parameters),) = statements
        explain = "EXPLAIN" if database.url.get_backend_name() == "postgresql" else "EXPLAIN QUERY PLAN"
        rows = session.connection().exec_driver_sql(f"{explain} {statement}", parameters).all()
    plan = "\n".join(row[-1] for row in rows)
    if database.url.get_backend_name() == "postgresql":
        assert "Scan using ix_message_sent_at on message" in plan or "Bitmap Index Scan on ix_message_sent_at" in plan
    else:
        assert "ix_message_window (channel=? AND sent_at>? AND sent_at<?)" in plan


def _said(number: int) -> dict[str, Any]:
    at = NOW - timedelta(days=365 * (1 - number / 5000))
    return {
        "key": f"k{number}", "channel": f"c{number % 10}", "member": ANA, "provenance": Provenance.DONATION,
        "sent_at": at, "received_at": at, "text": "no cap, said at some length", "reply_to": None,
    }  # fmt: skip


@contextmanager
def _asked(session: Session) -> Iterator[list[tuple[str, Any]]]:
    """The statements that run inside, with their parameters."""
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        asked.append((statement, parameters))

    engine = session.get_bind()
    event.listen(engine, "before_cursor_execute", note)
    yield asked
    event.remove(engine, "before_cursor_execute", note)
