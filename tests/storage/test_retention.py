from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlmodel import select

from nocap.domain import AdapterName, Provenance, Vote
from nocap.settings import RetentionSettings, Settings
from storage.database import Database
from storage.feedback import cast_vote, record_reply
from storage.retention import Expired, expire
from storage.tables import Feedback, Message, Reply
from tests.storage.community import ANA, FLAT, GENZ, NOW, POLICY, agree, message, open_channel, store

AGES = (10, 100, 400)


@pytest.fixture
def aged(database: Database) -> Database:
    """A message, an answer and a vote of each age in days, and an old seed of the operator's."""
    with database.write() as session:
        open_channel(session)
        agree(session, ANA)
        for age in AGES:
            at = NOW - timedelta(days=age)
            store(session, message(f"k{age}", sent_at=at))
            reply_id = record_reply(
                session, channel=FLAT, voice=GENZ, adapter=AdapterName("base"), prompt_member=ANA, prompt_key=None,
                prompt="hi", text="yo", provenance=Provenance.TERMINAL, policy_version=POLICY, at=at,
            )  # fmt: skip
            cast_vote(session, reply_id, ANA, Vote.UP, at)
        seed = message("seed", sent_at=NOW - timedelta(days=999), provenance=Provenance.OPERATOR_SEED)
        store(session, seed)
    return database


def held(database: Database) -> tuple[list[str], list[str | None], int]:
    with database.read() as session:
        return (
            sorted(session.exec(select(Message.key))),
            [row.text for row in session.exec(select(Reply).order_by(Reply.at.desc()))],  # type: ignore[attr-defined]
            len(session.exec(select(Feedback.id)).all()),
        )


def test_a_dry_run_counts_what_the_run_then_deletes(aged: Database, settings: Callable[..., Settings]) -> None:
    before = held(aged)
    planned = expire(aged, settings(), NOW, dry_run=True)
    assert held(aged) == before
    assert planned == Expired(messages=1, reply_texts=2, votes=1)
    assert expire(aged, settings(), NOW) == planned
    assert held(aged) == (["k10", "k100", "seed"], ["yo", None], 2)
    assert expire(aged, settings(), NOW).total == 0


def test_none_keeps_a_kind_for_ever(aged: Database, settings: Callable[..., Settings]) -> None:
    forever = RetentionSettings(messages_days=None, reply_texts_days=None, votes_days=None, run_files_days=None)
    before = held(aged)
    assert expire(aged, settings(retention=forever), NOW) == Expired()
    assert held(aged) == before
