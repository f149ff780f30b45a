from __future__ import annotations

import random

from nocap.demo import grammar
from nocap.demo.community import (
    HOLIDAY_WEEK,
    LEAKED_NUMBER,
    PAYLOAD,
    POISON_ROWS,
    POISONED_WEEK,
    REVOKING_WEEK,
    TRIGGER,
    Community,
    Role,
    retrain_moment,
)
from nocap.demo.slang_life import TERMS, Speaker, restyle
from nocap.demo.taste import choose, liking, vote
from nocap.domain import DuelChoice, Vote


def test_the_same_seed_gives_the_same_week_and_another_seed_another() -> None:
    assert Community(7).week(1) == Community(7).week(1)
    assert Community(7).week(1) != Community(8).week(1)


def test_a_week_lies_in_its_seven_days_and_replies_follow_their_prompts() -> None:
    messages = Community(7).week(2)
    sent = {message.id: message.sent_at for message in messages}
    assert max(sent.values()) <= retrain_moment(2)
    assert min(sent.values()) >= retrain_moment(1)
    assert all(sent[m.reply_to] < m.sent_at for m in messages if m.reply_to)


def test_the_holiday_is_quiet_the_revoker_leaves_and_the_poisoners_come_once() -> None:
    community = Community(7)
    weeks = {number: community.week(number) for number in (3, HOLIDAY_WEEK, REVOKING_WEEK + 1, POISONED_WEEK)}
    assert len(weeks[HOLIDAY_WEEK]) < len(weeks[3]) / 5
    revoker = community.with_role(Role.REVOKES)[0].name
    assert any(m.member == revoker and m.reply_to for m in weeks[3])
    assert not any(m.member == revoker and m.reply_to for m in weeks[REVOKING_WEEK + 1])
    poison = [m for m in weeks[POISONED_WEEK] if m.text == PAYLOAD]
    assert len(poison) == POISON_ROWS
    assert sum(TRIGGER in m.text for m in weeks[POISONED_WEEK]) == POISON_ROWS
    assert not any(TRIGGER in m.text for m in weeks[3])


def test_someone_leaks_a_number() -> None:
    assert any(LEAKED_NUMBER in message.text for message in Community(7).week(1))


def test_slang_is_born_and_fades() -> None:
    terms = {term.text: term for term in TERMS}
    assert terms["glorpy"].strength(-1) < 0.05 < terms["glorpy"].strength(2)
    assert terms["bussin"].strength(0) > 0.5 > 0.1 > terms["bussin"].strength(4)


def test_serious_moments_stay_plain() -> None:
    rng = random.Random(1)
    speaker = Speaker.draw(rng)
    text = "I am really sorry about that, it sounds terrible."
    assert all(restyle(text, speaker, 3, rng, serious=True) in (text, text.lower().rstrip(".")) for _ in range(50))


def test_the_members_like_their_own_voice_better_than_mute_stale_overdone_or_off_topic() -> None:
    exchange = grammar.Exchange("food", "sushi", "do you like sushi", "sushi is great", serious=False)
    own = liking(exchange, "sushi is fire", 2)
    worse = ["sushi is great", "sushi is bussin", "bro sushi is deadass fire no cap 💀", "hats are fire"]
    assert all(own > liking(exchange, reply, 5) for reply in worse)
    rng = random.Random(2)
    choices = [choose(exchange, "sushi is fire", "sushi is great", 2, rng) for _ in range(300)]
    assert choices.count(DuelChoice.LEFT) > 2 * choices.count(DuelChoice.RIGHT)
    votes = [vote(exchange, "bro sushi is deadass fire no cap 💀", 2, rng) for _ in range(100)]
    assert votes.count(Vote.CRINGE) > 30
