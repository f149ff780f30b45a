from datetime import timedelta
from typing import Any

import pytest
from sqlmodel import Session, func, select

from nocap.domain import AdapterName, DuelChoice, MemberKey, MessageKey, Provenance, Purpose, VoiceName, Vote
from nocap.errors import InputError
from storage.channels import set_channel
from storage.database import Database
from storage.feedback import (
    DuelScore,
    VoteCounts,
    cast_duel_vote,
    cast_vote,
    duel_score,
    feedback_since,
    present_vote,
    record_duel,
    record_reply,
)
from storage.messages import delete_message, export_member, forget_member
from storage.tables import Duel, DuelVote, Feedback, Reply, WithdrawnVote
from tests.storage.community import ANA, BEN, FLAT, GENZ, NOW, POLICY, agree, open_channel

V1, V2 = AdapterName("genz-v1"), AdapterName("genz-v2")


def answer(session: Session, **changes: Any) -> int:
    values: dict[str, Any] = {
        "channel": FLAT,
        "voice": GENZ,
        "adapter": V1,
        "prompt_member": ANA,
        "prompt_key": MessageKey("k1"),
        "prompt": "hi, mail ana@example.org",
        "text": "ok, mailing ana@example.org",
        "provenance": Provenance.TERMINAL,
        "policy_version": POLICY,
        "at": NOW,
    }
    return record_reply(session, **(values | changes))


def fight(session: Session, left: AdapterName = V1, right: AdapterName = V2, **changes: Any) -> int:
    values: dict[str, Any] = {
        "channel": FLAT,
        "voice": GENZ,
        "prompt_member": ANA,
        "prompt_key": None,
        "prompt": "hi",
        "left_adapter": left,
        "right_adapter": right,
        "left_text": "hello",
        "right_text": "yo",
        "provenance": Provenance.TERMINAL,
        "policy_version": POLICY,
        "at": NOW,
    }
    return record_duel(session, **(values | changes))


def test_texts_are_kept_scrubbed_with_consent(database: Database) -> None:
    with database.write() as session:
        open_channel(session)
        agree(session, ANA, [Purpose.STORE])
        reply = session.get_one(Reply, answer(session))
        duel = session.get_one(Duel, fight(session))
    assert reply.prompt is not None and reply.prompt.startswith("hi, mail")
    assert reply.text is not None and reply.text.startswith("ok, mailing")
    assert "example.org" not in reply.prompt + reply.text
    assert (duel.prompt, duel.left_text, duel.right_text) == ("hi", "hello", "yo")


@pytest.mark.parametrize("why", ["no consent", "old policy", "taken back", "not collecting", "no channel", "deleted"])
def test_texts_are_dropped_without_leave_and_the_reply_still_counts(database: Database, why: str) -> None:
    with database.write() as session:
        if why != "no channel":
            open_channel(session)
        if why != "no consent":
            agree(session, ANA, [Purpose.STORE], policy="old" if why == "old policy" else POLICY)
        if why == "taken back":
            agree(session, ANA, [Purpose.STORE], granted=False)
        if why == "not collecting":
            set_channel(session, FLAT, collect=False)
        if why == "deleted":
            delete_message(session, MessageKey("k1"), NOW)
        reply = session.get_one(Reply, answer(session))
        duel = session.get_one(Duel, fight(session, prompt_key=MessageKey("k1")))
        assert (reply.prompt, reply.text) == (None, None)
        assert (duel.prompt, duel.left_text, duel.right_text) == (None, None, None)
        assert feedback_since(session, GENZ, NOW).replies == 1


def test_a_late_vote_changes_nothing_that_was_decided_after_it(database: Database) -> None:
    later = NOW + timedelta(minutes=1)
    with database.write() as session:
        open_channel(session)
        reply, duel = answer(session), fight(session)
        cast_vote(session, reply, ANA, Vote.UP, later)
        cast_vote(session, reply, ANA, Vote.DOWN, NOW, only_if_newer=True)
        cast_vote(session, reply, BEN, None, later)
        cast_vote(session, reply, BEN, None, NOW, only_if_newer=True)
        cast_vote(session, reply, BEN, Vote.DOWN, NOW, only_if_newer=True)
        assert (present_vote(session, reply, ANA), present_vote(session, reply, BEN)) == (Vote.UP, None)
        cast_vote(session, reply, BEN, Vote.UP, later + timedelta(minutes=1), only_if_newer=True)
        assert present_vote(session, reply, BEN) is Vote.UP
        assert len(export_member(session, BEN)["withdrawn_votes"]) == 1
        forget_member(session, BEN, later + timedelta(minutes=2))
        cast_vote(session, reply, BEN, Vote.UP, later, only_if_newer=True)
        cast_duel_vote(session, duel, BEN, DuelChoice.TIE, later, only_if_newer=True)
        assert session.exec(select(func.count()).select_from(WithdrawnVote)).one() == 0
        assert [row.member for row in session.exec(select(Feedback))] == [ANA]
        assert session.exec(select(func.count()).select_from(DuelVote)).one() == 0


def test_a_vote_can_be_changed_and_withdrawn_and_is_one(database: Database) -> None:
    with database.write() as session:
        reply = answer(session)
        for vote in (Vote.UP, Vote.UP, Vote.CRINGE):
            cast_vote(session, reply, BEN, vote, NOW)
        assert [row.vote for row in session.exec(select(Feedback))] == ["cringe"]
        cast_vote(session, reply, BEN, None, NOW)
        cast_vote(session, reply, BEN, None, NOW)
        assert session.exec(select(func.count()).select_from(Feedback)).one() == 0


def test_a_vote_needs_its_reply_and_a_duel_vote_its_duel(database: Database) -> None:
    with database.write() as session:
        with pytest.raises(InputError, match="no reply 999999"):
            cast_vote(session, 999_999, BEN, Vote.UP, NOW)
        with pytest.raises(InputError, match="no duel 999999"):
            cast_duel_vote(session, 999_999, BEN, DuelChoice.LEFT, NOW)


def test_an_erased_replys_number_is_never_given_out_again(database: Database) -> None:
    with database.write() as session:
        first = answer(session)
        session.delete(session.get_one(Reply, first))
        session.flush()
        assert answer(session) > first


def test_feedback_is_counted_by_adapter_within_the_window(database: Database) -> None:
    with database.write() as session:
        old = answer(session, at=NOW - timedelta(days=9))
        one, two, other = answer(session), answer(session, adapter=V2), answer(session, voice=VoiceName("boomer"))
        cast_vote(session, old, BEN, Vote.UP, NOW - timedelta(days=9))
        cast_vote(session, old, ANA, Vote.UP, NOW)
        cast_vote(session, one, BEN, Vote.DOWN, NOW)
        cast_vote(session, two, BEN, Vote.CRINGE, NOW)
        cast_vote(session, other, BEN, Vote.UP, NOW)
        week = feedback_since(session, GENZ, NOW - timedelta(days=7))
        earlier = feedback_since(session, GENZ, NOW - timedelta(days=10), NOW)
    assert (week.up, week.down, week.cringe, week.replies) == (1, 1, 1, 2)
    assert week.by_adapter == {V1: VoteCounts(up=1, down=1, replies=1), V2: VoteCounts(cringe=1, replies=1)}
    assert (earlier.up, earlier.down, earlier.cringe, earlier.replies) == (1, 0, 0, 1)


def test_a_duels_score_does_not_depend_on_the_side(database: Database) -> None:
    ballots = [
        (fight_sides, choice, MemberKey(f"m{number}"))
        for number, (fight_sides, choice) in enumerate(
            [
                ((V1, V2), DuelChoice.RIGHT),
                ((V1, V2), DuelChoice.LEFT),
                ((V2, V1), DuelChoice.LEFT),
                ((V2, V1), DuelChoice.LEFT),
                ((V2, V1), DuelChoice.TIE),
                ((V1, V2), DuelChoice.BOTH_BAD),
                ((V2, AdapterName("base")), DuelChoice.LEFT),
            ]
        )
    ]
    with database.write() as session:
        for (left, right), choice, member in ballots:
            duel = fight(session, left, right)
            cast_duel_vote(session, duel, member, DuelChoice.TIE, NOW)
            cast_duel_vote(session, duel, member, choice, NOW)
        assert duel_score(session, GENZ, V2, V1) == DuelScore(wins=3, losses=1, ties=1, both_bad=1)
        assert duel_score(session, GENZ, V1, V2) == DuelScore(wins=1, losses=3, ties=1, both_bad=1)
        assert duel_score(session, VoiceName("boomer"), V1, V2) == DuelScore(0, 0, 0, 0)
