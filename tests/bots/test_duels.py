from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from sqlmodel import select

from bots import messages
from bots.duels import DuelTurn, draw_duel
from bots.turn import Outcome, Turn
from nocap.domain import BASE, AdapterName, DuelChoice
from nocap.errors import InputError
from storage.channels import set_channel
from storage.feedback import duel_score
from storage.tables import Duel
from tests.bots.support import ADA, BEN, CHANNEL, VOICE, World
from tests.fakes.backend import Refuse, echoes


@dataclass
class Row:
    current: str
    previous: str | None = None
    canary: str | None = None
    canary_share: float = 0.0


def opponents(row: Row, named: str | None = None) -> set[frozenset[str] | None]:
    chance = random.Random(5)
    pairs = [draw_duel(row, AdapterName(named) if named else None, chance) for _ in range(60)]
    return {frozenset(pair) if pair else None for pair in pairs}


def test_the_current_voice_meets_the_previous_one_or_the_base() -> None:
    assert opponents(Row("genz-v2", "genz-v1")) == {
        frozenset({"genz-v2", "genz-v1"}),
        frozenset({"genz-v2", BASE}),
    }
    assert opponents(Row("genz-v1", BASE)) == {frozenset({"genz-v1", BASE})}
    assert opponents(Row(BASE, "genz-v1")) == {frozenset({BASE, "genz-v1"})}


def test_a_canary_and_a_named_opponent_come_first() -> None:
    assert opponents(Row("genz-v2", "genz-v1", "genz-v3")) == {frozenset({"genz-v2", "genz-v3"})}
    assert opponents(Row("genz-v2", "genz-v1", "genz-v3"), BASE) == {frozenset({"genz-v2", BASE})}


def test_there_is_no_duel_with_oneself() -> None:
    assert opponents(Row(BASE)) == {None}
    assert opponents(Row("genz-v1"), "genz-v1") == {None}


def test_the_sides_are_random_and_the_same_for_the_same_seed() -> None:
    def sides(seed: int) -> list[object]:
        chance = random.Random(seed)
        return [draw_duel(Row("genz-v1"), None, chance) for _ in range(200)]

    first_on_left = sides(1).count((AdapterName("genz-v1"), BASE))
    assert 70 < first_on_left < 130
    assert sides(1) == sides(1) != sides(2)


async def test_a_duel_shows_two_answers_hides_who_is_who_and_reveals_after_the_vote(bot: World) -> None:
    bot.promote("genz-v1", "no cap")
    seen = set()
    for _ in range(12):
        duel = await bot.conversation.duel(bot.incoming("is it good?"))
        assert isinstance(duel, DuelTurn)
        assert {duel.left, duel.right} == {"no cap", "base speaking"}
        assert "genz-v1" not in repr(duel) and "base'" not in repr(duel)
        reveal = await bot.conversation.duel_vote(duel.duel_id, ADA, DuelChoice.LEFT)
        assert {reveal.left: duel.left, reveal.right: duel.right} == {"genz-v1": "no cap", BASE: "base speaking"}
        seen.add(reveal.left)
    assert seen == {"genz-v1", BASE}
    with bot.database.read() as session:
        score = duel_score(session, VOICE, AdapterName("genz-v1"), BASE)
    assert score.wins + score.losses == 12


async def test_a_duel_vote_is_changed_and_not_counted_twice(bot: World) -> None:
    bot.promote("genz-v1", "no cap")
    duel = await bot.conversation.duel(bot.incoming("hm?"))
    assert isinstance(duel, DuelTurn)
    for choice in (DuelChoice.LEFT, DuelChoice.TIE, DuelChoice.BOTH_BAD):
        await bot.conversation.duel_vote(duel.duel_id, ADA, choice)
    await bot.conversation.duel_vote(duel.duel_id, BEN, DuelChoice.TIE)
    with bot.database.read() as session:
        score = duel_score(session, VOICE, AdapterName("genz-v1"), BASE)
    assert (score.wins, score.losses, score.ties, score.both_bad) == (0, 0, 1, 1)
    with pytest.raises(InputError):
        await bot.conversation.duel_vote(999, ADA, DuelChoice.LEFT)


async def test_a_duel_is_written_without_texts_unless_its_asker_agreed(bot: World) -> None:
    bot.promote("genz-v1", "no cap")
    bot.collect()
    await bot.conversation.duel(bot.incoming("unheard zebra", BEN))
    bot.consent(ADA)
    await bot.conversation.duel(bot.incoming("heard"))
    with bot.database.read() as session:
        rows = list(session.exec(select(Duel)))
    assert [(row.prompt, row.left_text is None) for row in rows] == [(None, True), ("heard", False)]
    assert b"zebra" not in bot.bytes_on_disk()


async def test_a_duel_that_repeats_what_nobody_agreed_to_is_not_written(bot: World) -> None:
    bot.promote("genz-v1")
    bot.backend.models["genz-v1"] = bot.backend.models["base"] = echoes
    bot.collect()
    bot.consent(ADA)
    await bot.ask("unheard zebra", BEN)
    await bot.conversation.duel(bot.incoming("heard", ADA))
    assert b"heard" in bot.bytes_on_disk()
    assert b"zebra" not in bot.bytes_on_disk()


async def test_a_duel_leaves_the_talk_as_it_was(bot: World) -> None:
    bot.promote("genz-v1", "no cap")
    await bot.conversation.duel(bot.incoming("duel text"))
    await bot.ask("hi")
    assert "duel text" not in str(bot.backend.chats[-1]["messages"])


async def test_why_there_is_no_duel_is_said_in_a_sentence(bot: World) -> None:
    alone = await bot.conversation.duel(bot.incoming("hi"))
    assert isinstance(alone, Turn)
    assert "".join([piece async for piece in alone]) == messages.NO_OPPONENT
    bot.promote("genz-v1", "no cap")
    bot.backend.faults.append(Refuse(503))
    broken = await bot.conversation.duel(bot.incoming("hi"))
    assert isinstance(broken, Turn) and broken.outcome is Outcome.FAILED
    assert "can't reach the machine" in "".join([piece async for piece in broken])
    with bot.database.write() as session:
        set_channel(session, CHANNEL, duels=False)
    off = await bot.conversation.duel(bot.incoming("hi"))
    assert isinstance(off, Turn)
    assert "".join([piece async for piece in off]) == messages.DUELS_OFF
