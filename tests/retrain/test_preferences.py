from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nocap.domain import DuelChoice, MemberKey, Vote
from nocap.settings import PreferenceSettings
from retrain.preferences import Scope, Thumb, choose_pairs, choose_thumbs, label_weights
from storage.eligibility import Ballot
from storage.tables import Duel, Reply

NOW = datetime(2026, 11, 1, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=300)


def _scope(**changes) -> Scope:
    settings = PreferenceSettings(min_labels=1, min_pairs=1, min_members=1).model_copy(update=changes)
    return Scope(NOW, {"genz-v2", "genz-v1"}, frozenset({"held-out"}), timedelta(hours=72), settings, seed=7)


def _reply(number: int, **changes) -> Reply:
    values = {
        "id": number,
        "channel": "flat",
        "voice": "genz",
        "adapter": "genz-v2",
        "prompt_member": "asker",
        "prompt_key": f"prompt-{number}",
        "prompt": f"what about thing {number}?",
        "text": f"thing {number} is fire",
        "provenance": "telegram_submission",
        "at": NOW - timedelta(days=10, hours=3 * number),
    }
    return Reply(**(values | changes))


def _ballot(reply: Reply, member: str, choice: str = Vote.UP, *, known_since=LONG_AGO, minutes: float = 1) -> Ballot:
    return Ballot(reply.id, MemberKey(member), choice, reply.at + timedelta(minutes=minutes), known_since)


def _both_kinds() -> tuple[list[Reply], list[Ballot]]:
    replies = [_reply(number) for number in (1, 2)]
    return replies, [_ballot(replies[0], "ana"), _ballot(replies[1], "ben", Vote.CRINGE)]


def test_thumbs_and_cringe_become_labels_of_the_answers():
    chosen = choose_thumbs(*_both_kinds(), _scope())
    assert [(one.reply_id, one.is_good, one.example.reply) for one in chosen.thumbs] == [
        (1, True, "thing 1 is fire"),
        (2, False, "thing 2 is fire"),
    ]
    assert chosen.votes_dropped == {}


@pytest.mark.parametrize(
    ("reply", "ballot", "fault"),
    [
        ({"adapter": "genz-v0"}, {}, "not_served"),
        ({"prompt_key": "held-out"}, {}, "held_out_row"),
        ({"at": NOW - timedelta(hours=71)}, {}, "quarantined"),
        ({}, {"minutes": 60 * 24 * 14}, "quarantined"),
        ({}, {"known_since": NOW - timedelta(days=17)}, "new_account"),
        ({"text": "kys"}, {}, "text"),
        ({"text": "  "}, {}, "text"),
    ],
)
def test_a_vote_that_does_not_count_has_a_reason(reply, ballot, fault):
    replies, ballots = _both_kinds()
    odd = _reply(3, **reply)
    chosen = choose_thumbs([*replies, odd], [*ballots, _ballot(odd, "cat", **ballot)], _scope())
    assert [one.reply_id for one in chosen.thumbs] == [1, 2]
    assert chosen.votes_dropped == {fault: 1}


def test_a_vote_on_an_answer_that_may_not_be_used_does_not_count():
    replies, ballots = _both_kinds()
    assert choose_thumbs(replies, [*ballots, _ballot(_reply(9), "cat")], _scope()).votes_dropped == {"not_eligible": 1}


def test_members_who_disagree_leave_an_answer_without_a_label():
    replies, ballots = _both_kinds()
    chosen = choose_thumbs(replies, [*ballots, _ballot(replies[0], "cat", Vote.DOWN)], _scope(min_labels=1))
    assert chosen.votes_dropped["undecided"] == 2


def test_of_the_answers_to_ones_own_prompts_one_counts():
    replies = [_reply(number) for number in range(1, 7)]
    ballots = [_ballot(reply, "asker") for reply in replies] + [_ballot(_r, "ben", Vote.DOWN) for _r in replies[:2]]
    chosen = choose_thumbs(replies, ballots, _scope())
    assert chosen.votes_dropped["own_prompt"] == 5


def test_nobody_gives_more_votes_than_the_cap_and_who_counts_is_drawn():
    replies = [_reply(number) for number in range(1, 30)]
    ballots = [_ballot(reply, "ana", Vote.UP if reply.id % 2 else Vote.DOWN) for reply in replies]
    chosen = choose_thumbs(replies, ballots, _scope(max_votes_per_member=10))
    assert len(chosen.thumbs) == 10 and chosen.votes_dropped == {"voter_cap": 19}
    assert [one.reply_id for one in chosen.thumbs] != list(range(1, 11))


def test_a_brigades_burst_does_not_count_and_honest_votes_of_the_same_hour_do():
    replies = [_reply(number) for number in range(1, 101)]
    honest = [_ballot(reply, f"m{reply.id % 30}", Vote.DOWN if reply.id % 4 == 0 else Vote.UP) for reply in replies]
    target = replies[50]
    brigade = [_ballot(target, f"raider-{number}", Vote.DOWN, minutes=2 + number) for number in range(12)]
    chosen = choose_thumbs(replies, [*honest, *brigade], _scope())
    assert chosen.votes_dropped == {"burst": 12}
    assert {one.reply_id: one.is_good for one in chosen.thumbs} == {
        one.reply_id: one.is_good for one in choose_thumbs(replies, honest, _scope()).thumbs
    }


def test_a_lively_hour_of_the_usual_votes_is_no_burst():
    replies = [_reply(number) for number in range(1, 101)]
    honest = [_ballot(reply, f"m{reply.id % 30}", Vote.DOWN if reply.id % 4 == 0 else Vote.UP) for reply in replies]
    lively = [_ballot(replies[1], f"fan-{number}", minutes=2 + number) for number in range(12)]
    assert choose_thumbs(replies, [*honest, *lively], _scope()).votes_dropped == {}


@pytest.mark.parametrize("lacking", [{"min_labels": 3}, {"min_members": 3}])
def test_too_few_votes_teach_nothing_and_say_so(lacking):
    chosen = choose_thumbs(*_both_kinds(), _scope(**lacking))
    assert (chosen.thumbs, chosen.votes_dropped) == ((), {"too_few": 2})


def test_votes_of_one_kind_alone_teach_nothing():
    replies, _ = _both_kinds()
    chosen = choose_thumbs(replies, [_ballot(reply, "ana") for reply in replies], _scope())
    assert (chosen.thumbs, chosen.votes_dropped) == ((), {"too_few": 2})


def _duel(number: int, **changes) -> Duel:
    values = {
        "id": number,
        "channel": "flat",
        "voice": "genz",
        "prompt_member": "asker",
        "prompt_key": f"prompt-{number}",
        "provenance": "telegram_submission",
        "prompt": "sushi?",
        "left_adapter": "genz-v2",
        "right_adapter": "base",
        "left_text": "no cap sushi slaps",
        "right_text": "Sushi is a Japanese dish.",
        "at": NOW - timedelta(days=10),
    }
    return Duel(**(values | changes))


@pytest.mark.parametrize(
    ("duel", "choice", "expected"),
    [
        ({}, DuelChoice.LEFT, ("no cap sushi slaps", "Sushi is a Japanese dish.", True)),
        ({}, DuelChoice.RIGHT, ("Sushi is a Japanese dish.", "no cap sushi slaps", False)),
        ({}, DuelChoice.TIE, "undecided"),
        ({}, DuelChoice.BOTH_BAD, "undecided"),
        ({"right_text": "no cap sushi slaps"}, DuelChoice.LEFT, "text"),
        ({"left_text": "kys"}, DuelChoice.LEFT, "text"),
        ({"left_adapter": "genz-v0", "right_adapter": "genz-v-1"}, DuelChoice.LEFT, "not_served"),
    ],
)
def test_a_decided_duel_becomes_a_pair(duel, choice, expected):
    row = _duel(1, **duel)
    chosen = choose_pairs([row], [_ballot(row, "ana", choice)], _scope())
    if isinstance(expected, str):
        assert chosen.pairs == () and chosen.votes_dropped == {expected: 1}
    else:
        assert [(one.chosen.reply, one.rejected, one.left_won) for one in chosen.pairs] == [expected]


@given(st.integers(1, 500), st.integers(1, 500))
def test_weights_bring_any_mix_of_labels_into_balance(good, bad):
    example = choose_thumbs(*_both_kinds(), _scope()).thumbs[0].example
    weights = label_weights([Thumb(1, example, True)] * good + [Thumb(1, example, False)] * bad)
    ratio = good * weights[0] / (bad * weights[1])
    assert 1 - 1e-9 <= ratio <= 4 / 3 + 1e-9 and min(weights) == 1.0
