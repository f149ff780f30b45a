import json
from datetime import timedelta

import pytest
from sqlmodel import select

from nocap.domain import AdapterName, ChannelKey, MessageKey, Provenance, Purpose, Vote
from storage import feedback, registry, runs
from storage.database import Database
from storage.messages import (
    CHUNK_ROWS,
    ErasureReceipt,
    IngestReport,
    delete_message,
    edit_message,
    export_member,
    forget_member,
    ingest,
    recent_messages,
)
from storage.tables import Adapter, ConsentEvent, Feedback, Message, Reply, RunSource
from tests.storage.community import ANA, BEN, FLAT, GENZ, NOW, POLICY, agree, message, open_channel, store

QUIET = ChannelKey("quiet")


@pytest.fixture
def community(database: Database) -> Database:
    """Ana agreed to all, Ben to nothing; one channel collects, the other does not."""
    with database.write() as session:
        open_channel(session)
        open_channel(session, QUIET, collect=False)
        agree(session, ANA)
        agree(session, ANA, channel=QUIET)
    return database


def reply(database: Database, *, to: str = "k1", member: str = ANA) -> int:
    with database.write() as session:
        return feedback.record_reply(
            session,
            channel=FLAT,
            voice=GENZ,
            adapter=AdapterName("base"),
            prompt_member=member,  # type: ignore[arg-type]
            prompt_key=MessageKey(to),
            prompt="what's up",
            text="not much fr",
            provenance=Provenance.TERMINAL,
            policy_version=POLICY,
            at=NOW,
        )


def duel(database: Database) -> int:
    with database.write() as session:
        return feedback.record_duel(
            session,
            channel=FLAT,
            voice=GENZ,
            prompt_member=ANA,
            prompt_key=MessageKey("k1"),
            prompt="what's up",
            left_adapter=AdapterName("base"),
            right_adapter=AdapterName("genz-v1"),
            left_text="hello",
            right_text="yo",
            provenance=Provenance.TERMINAL,
            policy_version=POLICY,
            at=NOW,
        )


def test_every_message_is_accounted_for(community: Database) -> None:
    with community.write() as session:
        delete_message(session, MessageKey("erased"), NOW)
        report = ingest(
            session,
            [
                message("k1"),
                message("k1"),
                message("k2", BEN),
                message("k3", channel=QUIET),
                message("k4", channel=ChannelKey("unknown")),
                message("k5", text=" \n "),
                message("erased"),
            ],
            policy_version=POLICY,
            at=NOW,
        )
        assert report == IngestReport(1, 1, not_collecting=2, not_consented=1, tombstoned=1, empty=1)
        assert [row.key for row in session.exec(select(Message))] == ["k1"]


def test_a_second_time_adds_nothing(community: Database) -> None:
    batch = [message(f"k{number}") for number in range(2 * CHUNK_ROWS + 1)]
    for expected in (IngestReport(added=len(batch)), IngestReport(duplicates=len(batch))):
        with community.write() as session:
            assert ingest(session, batch, policy_version=POLICY, at=NOW) == expected


def test_consent_to_an_older_policy_stores_nothing(community: Database) -> None:
    with community.write() as session:
        report = ingest(session, [message("k1")], policy_version="2027-01", at=NOW)
        assert report == IngestReport(not_consented=1)


def test_texts_are_scrubbed_before_they_are_stored(community: Database) -> None:
    with community.write() as session:
        store(session, message("k1", text="call me at ana@example.org bestie"))
        text = session.exec(select(Message)).one().text
    assert "example.org" not in text
    assert "bestie" in text


@pytest.mark.parametrize("doubtful", ["ask Jordan about it", "Patel now"])
def test_with_drop_on_doubt_what_may_name_somebody_is_not_stored(community: Database, doubtful: str) -> None:
    batch = [message("k1", text=doubtful), message("k2", text="that slaps no cap"), message("k3", text="hi @someone")]
    with community.write() as session:
        report = ingest(session, batch, policy_version=POLICY, at=NOW, drop_on_doubt=True)
        assert report == IngestReport(added=2, doubtful=1)
        assert edit_message(session, MessageKey("k2"), doubtful, NOW, drop_on_doubt=True)
        assert [row.key for row in session.exec(select(Message))] == ["k3"]
        assert ingest(session, [batch[0]], policy_version=POLICY, at=NOW) == IngestReport(added=1)


def test_the_operators_seeds_need_no_consent(community: Database) -> None:
    with community.write() as session:
        store(session, message("k1", BEN, channel=QUIET, provenance=Provenance.OPERATOR_SEED))


def test_recent_messages_are_the_last_ones_in_order(community: Database) -> None:
    with community.write() as session:
        for number in (3, 1, 2, 0):
            store(session, message(f"k{number}", sent_at=NOW - timedelta(minutes=number)))
        assert [row.key for row in recent_messages(session, FLAT, 3)] == ["k2", "k1", "k0"]
        agree(session, ANA, [Purpose.STORE], granted=False)
        assert recent_messages(session, FLAT, 3) == []


def test_a_deleted_message_takes_its_answers_texts_along_and_never_comes_back(community: Database) -> None:
    with community.write() as session:
        store(session, message("k1"), message("k2"))
    answer, kept, fight = reply(community), reply(community, to="k2"), duel(community)
    with community.write() as session:
        assert delete_message(session, MessageKey("k1"), NOW)
        assert not delete_message(session, MessageKey("k1"), NOW)
        assert ingest(session, [message("k1")], policy_version=POLICY, at=NOW) == IngestReport(tombstoned=1)
    with community.read() as session:
        rows = [session.get_one(Reply, answer), session.get_one(feedback.Duel, fight)]
        assert (rows[0].prompt, rows[0].text) == (None, None)
        assert (rows[1].prompt, rows[1].left_text, rows[1].right_text) == (None, None, None)
        assert session.get_one(Reply, kept).text == "not much fr"
        assert [row.key for row in session.exec(select(Message))] == ["k2"]


def trained_on_ana(database: Database) -> None:
    with database.write() as session:
        registry.ensure_voice(session, GENZ, "You are a bot.", [], NOW)
        facts = {"voice": GENZ, "base": "b", "base_digest": "d", "status": "passed", "created_at": NOW}
        for name, role in (("genz-v1", "train"), ("genz-v2", "evaluate"), ("genz-v3", "validation")):
            run = runs.create_run(
                session,
                voice=GENZ,
                trigger="operator",
                as_of=NOW,
                incumbent="base",
                options={},
                permission_reference=None,
                at=NOW,
            )
            source = RunSource(run_id=run.id, message_key="k1", role=role, member=ANA)
            runs.set_sources(session, run.id, [source])  # type: ignore[arg-type]
            registry.register_adapter(session, Adapter(name=name, run_id=run.id, digest=name, **facts))
            runs.finish_run(session, run.id, runs.RunState.PROMOTED, "fine", NOW)  # type: ignore[arg-type]


def test_a_forgotten_member_leaves_no_text_and_no_vote(community: Database) -> None:
    with community.write() as session:
        agree(session, BEN)
        store(session, message("k1"), message("k2"), message("k3", BEN))
    mine, theirs, fight = reply(community), reply(community, to="k3", member=BEN), duel(community)
    with community.write() as session:
        feedback.cast_vote(session, theirs, ANA, Vote.UP, NOW)
        feedback.cast_vote(session, mine, BEN, Vote.DOWN, NOW)
        feedback.cast_duel_vote(session, fight, ANA, feedback.DuelChoice.LEFT, NOW)
    trained_on_ana(community)
    with community.write() as session:
        loaded = session.get_one(Reply, mine)
        receipt = forget_member(session, ANA, NOW)
        assert session.get_one(Reply, mine).text is loaded.text is None
    assert receipt == ErasureReceipt(messages=2, replies=1, feedback=2, duels=1, adapters=["genz-v1", "genz-v3"])
    with community.read() as session:
        assert [row.key for row in session.exec(select(Message))] == ["k3"]
        assert [vote.member for vote in session.exec(select(Feedback))] == [BEN]
        assert session.get_one(Reply, mine).text is None
        assert session.get_one(Reply, theirs).text == "not much fr"
        assert runs.adapters_trained_on(session, ANA) == ["genz-v1", "genz-v3"]
        exported = export_member(session, ANA)
        assert exported["messages"] == exported["votes"] == exported["duel_votes"] == []
        last = {
            line.purpose: line.granted
            for line in session.exec(select(ConsentEvent).order_by("id"))
            if line.member == ANA
        }
        assert last == dict.fromkeys(Purpose, False)


def test_what_a_forgotten_member_said_never_comes_back_but_they_may_start_anew(community: Database) -> None:
    old, new = message("k1", sent_at=NOW - timedelta(days=1)), message("k2", sent_at=NOW + timedelta(hours=2))
    with community.write() as session:
        forget_member(session, ANA, NOW - timedelta(days=9))
        forget_member(session, ANA, NOW)
        assert ingest(session, [new], policy_version=POLICY, at=NOW) == IngestReport(not_consented=1)
        agree(session, ANA)
        assert ingest(session, [old, new], policy_version=POLICY, at=NOW) == IngestReport(added=1, tombstoned=1)


def test_forgetting_twice_or_a_stranger_changes_nothing_more(community: Database) -> None:
    nothing = ErasureReceipt(messages=0, replies=0, feedback=0, duels=0, adapters=[])
    with community.write() as session:
        store(session, message("k1"))
        assert forget_member(session, BEN, NOW) == nothing
        assert forget_member(session, ANA, NOW).messages == 1
        assert forget_member(session, ANA, NOW) == nothing


def test_a_member_gets_all_that_is_stored_about_them_and_nothing_else(community: Database) -> None:
    with community.write() as session:
        agree(session, BEN)
        store(session, message("k1", text="my words"), message("k2", BEN, text="not mine"))
    mine = reply(community)
    duel(community)
    with community.write() as session:
        feedback.cast_vote(session, mine, ANA, Vote.CRINGE, NOW)
        exported = export_member(session, ANA)
    assert [row["text"] for row in exported["messages"]] == ["my words"]
    assert exported["messages"][0]["sent_at"] == "2026-10-25T12:00:00Z"
    assert [row["text"] for row in exported["replies"]] == ["not much fr"]
    assert [row["vote"] for row in exported["votes"]] == ["cringe"]
    assert [row["right_text"] for row in exported["duels"]] == ["yo"]
    assert {row["purpose"] for row in exported["consent"]} == set(Purpose)
    assert "not mine" not in json.dumps(exported)
