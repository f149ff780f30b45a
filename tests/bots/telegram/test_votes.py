"""Votes by buttons and reactions, and blind duels."""

from __future__ import annotations

from sqlmodel import select

from bots import messages
from nocap.domain import Vote
from storage.tables import DuelVote, Feedback
from tests.bots.telegram.support import TelegramWorld
from tests.fakes.telegram_objects import Json, buttons


def votes(world: TelegramWorld) -> list[tuple[str, str]]:
    with world.bot.database.read() as session:
        return sorted((row.member, row.vote) for row in session.exec(select(Feedback)))


async def toast(world: TelegramWorld, query: str) -> str:
    return str((await world.telegram.answered(query)).params.get("text"))


async def test_a_vote_can_be_cast_changed_and_taken_back_weeks_and_restarts_later(live: TelegramWorld) -> None:
    group = live.telegram.group()
    answer = await live.ask(group, live.ada, "@nocap_bot hi")
    await live.restart()
    assert await toast(live, live.telegram.press(answer, "👍", live.ben)) == messages.voted(Vote.UP)
    assert await toast(live, live.telegram.press(answer, "cringe", live.ben)) == messages.voted(Vote.CRINGE)
    await toast(live, live.telegram.press(answer, "👎", live.ada))
    both = {(live.member(live.ada), "down"), (live.member(live.ben), "cringe")}
    assert set(votes(live)) == both
    await live.restart()
    assert await toast(live, live.telegram.press(answer, "cringe", live.ben)) == messages.voted(None)
    assert votes(live) == [(live.member(live.ada), "down")]


async def test_every_press_is_answered_even_on_what_is_forgotten_or_never_was(live: TelegramWorld) -> None:
    answer = await live.ask(live.telegram.private(live.ada), live.ada, "hi")
    assert await toast(live, live.telegram.press_data(answer, "v:999999:u", live.ada)) == messages.UNKNOWN_REPLY
    assert await toast(live, live.telegram.press_data(answer, "d:999999:l", live.ada)) == messages.UNKNOWN_DUEL
    for nonsense in ("v:x:u", "v:1:z", "zzz", "c:1:perhaps", "q:1:u"):
        assert await toast(live, live.telegram.press_data(answer, nonsense, live.ada))
    old: Json = {"chat": answer["chat"], "message_id": answer["message_id"], "date": 0}  # Telegram no longer shows it
    bot = live.telegram.bots["7:TEST"]
    data = buttons(answer)[0]["callback_data"]
    assert await toast(live, live.telegram.press_data(old, data, live.ada, bot)) == messages.voted(Vote.UP)
    assert await toast(live, live.telegram.press_data(old, "t", live.ada, bot))


async def test_brigading_is_capped_and_says_so(live: TelegramWorld) -> None:
    answer = await live.ask(live.telegram.private(live.ada), live.ada, "hi")
    limit = live.bot.settings.bots.votes_per_minute
    queries = [live.telegram.press(answer, "👍", live.ben) for _ in range(limit + 3)]
    said = [await toast(live, query) for query in queries]
    assert said.count(messages.VOTES_TOO_FAST) == 3


async def test_a_reaction_is_a_vote_where_telegram_tells_of_it(live: TelegramWorld) -> None:
    group = live.telegram.group()
    group.members[7] = "administrator"
    answer = await live.ask(group, live.ada, "@nocap_bot hi")
    await live.settle()
    live.telegram.react(answer, live.ben, ["🔥"])
    await live.settle()
    assert votes(live) == [(live.member(live.ben), "up")]
    live.telegram.react(answer, live.ben, ["💩"], ["🔥"])
    await live.settle()
    assert votes(live) == [(live.member(live.ben), "down")]
    live.telegram.react(answer, live.ben, [], ["💩"])
    live.telegram.react(answer, live.ada, ["🤔"])
    await live.settle()
    assert votes(live) == []


async def test_a_duel_hides_the_voices_until_each_voter_has_chosen(live: TelegramWorld) -> None:
    live.bot.promote("genz-v1", "rizz")
    group = live.telegram.group()
    duel = await live.ask(group, live.ada, "/duel who wins?")
    assert "rizz" in duel["text"] and "base speaking" in duel["text"] and "genz-v1" not in duel["text"]
    await live.restart()
    shown = await live.telegram.answered(live.telegram.press(duel, "left", live.ben))
    assert "genz-v1" in shown.text and "base" in shown.text and shown.params["show_alert"] == "true"
    assert "genz-v1" not in duel["text"] and len(buttons(duel)) == 4, "the others still vote blind"
    await live.telegram.answered(live.telegram.press(duel, "both bad", live.ben))
    with live.bot.database.read() as session:
        assert [row.choice for row in session.exec(select(DuelVote))] == ["both_bad"]


async def test_a_duel_needs_a_prompt_and_two_voices(live: TelegramWorld) -> None:
    chat = live.telegram.private(live.ada)
    assert (await live.ask(chat, live.ada, "/duel"))["text"] == messages.DUEL_USAGE
    assert (await live.ask(chat, live.ada, "/duel hi"))["text"] == messages.NO_OPPONENT
