"""Bad days of the network and of Telegram: nothing is lost, and nothing is said twice."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from bots.telegram import requests, sentences
from bots.telegram.bot import run_telegram
from nocap.domain import VoiceName
from nocap.errors import ConfigurationError
from storage.channels import get_channel
from storage.registry import ensure_voice
from tests.bots.support import START, World, free_port
from tests.bots.telegram.support import TOKEN, TelegramWorld, telegram_world
from tests.fakes import telegram_spec
from tests.fakes.backend import echoes
from tests.fakes.telegram import SECRET_HEADER
from tests.fakes.telegram_objects import Fault, Json, button

SAID = "base speaking"


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "RETRY_PAUSES_SECONDS", (0.01, 0.02, 0.05))


def texts(world: TelegramWorld, chat_id: int = 101) -> list[str]:
    return [one["text"] for one in world.telegram.answers(world.telegram.chats[chat_id])]


async def test_an_update_that_is_delivered_twice_is_answered_once(live: TelegramWorld) -> None:
    chat, bot = live.telegram.private(live.ada), live.telegram.bots[TOKEN]
    live.bot.backend.gate = asyncio.Event()
    live.telegram.say(chat, live.ada, "hi")
    update = bot.pending[-1]
    await live.bot.backend.was_asked.wait()
    live.telegram.repeat_last_update(bot, update)
    live.bot.backend.gate.set()
    await live.settle()
    live.telegram.repeat_last_update(bot, update)
    await live.settle()
    assert texts(live) == [SAID]


async def test_what_was_answered_before_a_crash_is_not_answered_again(live: TelegramWorld) -> None:
    chat, bot = live.telegram.private(live.ada), live.telegram.bots[TOKEN]
    live.telegram.say(chat, live.ada, "hi")
    update = bot.pending[-1]
    await live.telegram.answer_in(chat)
    await live.stop()
    live.telegram.repeat_last_update(bot, update)
    live.telegram.say(chat, live.ada, "and this came while you were down")
    await live.restart()
    await live.settle()
    assert texts(live) == [SAID, SAID]
    assert live.bot.backend.chats[-1]["messages"][-1]["content"] == "and this came while you were down"


async def test_stopping_answers_what_was_fetched(live: TelegramWorld) -> None:
    chat = live.telegram.private(live.ada)
    live.bot.backend.gate = asyncio.Event()
    live.telegram.say(chat, live.ada, "hi")
    await live.bot.backend.was_asked.wait()
    stopping = asyncio.create_task(live.stop())
    await asyncio.sleep(0.01)
    live.bot.backend.gate.set()
    await stopping
    assert texts(live) == [SAID]


async def test_a_flood_limit_is_waited_out(live: TelegramWorld) -> None:
    chat = live.telegram.private(live.ada)
    live.telegram.faults["sendMessage"].extend([Fault(429, "Too Many Requests: retry after 1", retry_after=1)] * 2)
    await live.ask(chat, live.ada, "hi")
    sends = live.telegram.made("sendMessage")
    assert texts(live) == [SAID] and len(sends) == 3
    assert sends[1].at - sends[0].at >= 1


async def test_a_chat_with_a_flood_limit_holds_back_no_other(live: TelegramWorld) -> None:
    flooded, other = live.telegram.private(live.ada), live.telegram.private(live.ben)
    limit = Fault(429, "Too Many Requests: retry after 3", retry_after=3, chat_id=flooded.id)
    live.telegram.faults["sendMessage"].append(limit)
    live.telegram.say(flooded, live.ada, "hi")
    await live.telegram.until(lambda: not live.telegram.faults["sendMessage"])
    await live.ask(other, live.ben, "hi")
    assert live.telegram.answers(flooded) == []
    await live.telegram.answer_in(flooded)
    refused, free, again = live.telegram.made("sendMessage")
    assert [one.params["chat_id"] for one in (refused, free, again)] == ["101", "102", "101"]
    assert again.at - refused.at >= 3


async def test_server_errors_are_tried_again(live: TelegramWorld) -> None:
    live.telegram.faults["sendMessage"].extend([Fault(502), Fault(500)])
    live.telegram.faults["getUpdates"].extend([Fault(502)])
    await live.ask(live.telegram.private(live.ada), live.ada, "hi")
    assert texts(live) == [SAID]


async def test_a_message_whose_confirmation_was_lost_is_not_sent_again(live: TelegramWorld) -> None:
    live.telegram.faults["sendMessage"].append(Fault(502, is_lost=True))
    await live.ask(live.telegram.private(live.ada), live.ada, "hi")
    await live.settle()
    assert texts(live) == [SAID] and not live.telegram.faults["sendMessage"]


async def test_a_long_outage_of_telegram_ends_by_itself(live: TelegramWorld) -> None:
    live.telegram.is_down = True
    chat = live.telegram.private(live.ada)
    live.telegram.say(chat, live.ada, "hi")
    await live.telegram.until(lambda: len(live.telegram.made("getUpdates")) > 1)
    live.telegram.is_down = False
    await live.telegram.answer_in(chat)
    await live.settle()
    assert texts(live) == [SAID]


async def test_being_thrown_out_or_silenced_costs_nothing_but_that_answer(live: TelegramWorld) -> None:
    group, private = live.telegram.group(), live.telegram.private(live.ada)
    bot = live.telegram.bots[TOKEN]
    live.bot.backend.gate = asyncio.Event()
    live.telegram.say(group, live.ada, "@nocap_bot hi")
    await live.bot.backend.was_asked.wait()
    live.telegram.set_bot_status(group, bot, "kicked", live.ada)
    live.bot.backend.gate.set()
    await live.settle()
    silenced = live.telegram.group(-1005, "silent")
    live.telegram.faults["sendMessage"].append(Fault(400, "Bad Request: not enough rights to send text messages"))
    live.telegram.say(silenced, live.ada, "@nocap_bot hi")
    await live.telegram.until(lambda: not live.telegram.faults["sendMessage"])
    bot.blocked_by.add(live.ben.id)
    live.telegram.say(live.telegram.private(live.ben), live.ben, "hi")
    await live.ask(private, live.ada, "still there?")
    await live.settle()
    assert texts(live) == [SAID] and not live.telegram.answers(group)


async def test_a_group_that_adds_the_bot_is_told_that_it_is_one(live: TelegramWorld) -> None:
    group = live.telegram.group()
    bot = live.telegram.bots[TOKEN]
    group.members.pop(bot.person.id)
    live.telegram.set_bot_status(group, bot, "member", live.ada)
    assert (await live.telegram.answer_in(group))["text"] == sentences.WELCOME_GROUP


async def test_a_group_keeps_its_settings_and_consents_as_a_supergroup(live: TelegramWorld) -> None:
    group = live.telegram.group(-55, "old", type="group")
    group.members[live.ada.id] = "administrator"
    await live.ask(group, live.ada, "/channel mode always")
    new = live.telegram.migrate(group, -1000055)
    await live.settle()
    assert (await live.ask(new, live.ben, "just talking"))["text"] == SAID
    await live.restart()
    assert (await live.ask(new, live.ben, "still talking"))["text"] == SAID


async def test_a_renamed_group_is_the_same_chat_under_its_new_name(live: TelegramWorld) -> None:
    group = live.telegram.group()
    group.members[live.ada.id] = "administrator"
    await live.ask(group, live.ada, "/channel mode always")
    group.title = "the lounge"
    assert (await live.ask(group, live.ben, "just talking"))["text"] == SAID
    with live.bot.database.read() as session:
        row = get_channel(session, live.channel(group))
    assert row is not None and (row.label, row.mode) == ("the lounge", "always")


async def test_an_answer_that_finds_its_group_moved_follows_it(live: TelegramWorld) -> None:
    group = live.telegram.group(-55, "old", type="group")
    live.bot.backend.gate = asyncio.Event()
    live.telegram.say(group, live.ada, "@nocap_bot hi")
    await live.bot.backend.was_asked.wait()
    bot = live.telegram.bots[TOKEN]
    live.telegram.migrate(group, -1000055)
    bot.pending.clear()
    live.bot.backend.gate.set()
    assert (await live.telegram.answer_in(live.telegram.chats[-1000055]))["text"] == SAID


async def test_only_the_groups_of_the_settings_are_served(world: TelegramWorld) -> None:
    world.settings = {"chats": (-1001,)}
    await world.start()
    stranger = world.telegram.group(-1002, "strangers")
    world.telegram.say(stranger, world.ada, "@nocap_bot hi")
    await world.ask(world.telegram.group(-1001), world.ada, "@nocap_bot hi")
    await world.settle()
    assert world.telegram.answers(stranger) == []


async def test_a_refused_token_is_the_operators_to_mend(world: TelegramWorld) -> None:
    with pytest.raises(ConfigurationError, match=r"refuses the token.*telegram\.token"):
        await run_telegram(world.core(VoiceName("genz")), "8:WRONG")


async def test_two_voices_in_one_process_keep_apart(world: TelegramWorld) -> None:
    world.telegram.add_bot("8:OTHER", "boomer_bot")
    with world.bot.database.write() as session:
        ensure_voice(session, VoiceName("boomer"), "You are a boomer.", [], START)
    await world.start(boomer="8:OTHER")
    group = world.telegram.group()
    first = await world.ask(group, world.ada, "@nocap_bot hi")
    second = await world.ask(group, world.ada, "@boomer_bot hi")
    await world.settle()
    systems = [chat["messages"][0]["content"] for chat in world.bot.backend.chats]
    assert systems[1].startswith("You are a boomer.") and systems[0] != systems[1]
    assert [first["from"]["id"], second["from"]["id"]] == [7, 8]
    assert len(world.telegram.answers(group)) == 2


async def test_a_webhook_takes_updates_that_carry_its_secret_and_no_others(world: TelegramWorld) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/hooks/genz"
    world.settings = {"webhook_url": url, "webhook_port": port}
    chat = world.telegram.private(world.ada)
    world.telegram.say(chat, world.ada, "sent while you were down")
    await world.start()
    assert (await world.telegram.answer_in(chat))["text"] == SAID
    bot = world.telegram.bots[TOKEN]
    assert bot.secret and not world.telegram.made("getUpdates")
    forged: Json = {"update_id": 1, "message": world.telegram.say(chat, world.ada, "hi")}
    await world.telegram.answer_in(chat, 2)
    async with httpx.AsyncClient(trust_env=False) as client:
        for headers in ({}, {SECRET_HEADER: "guess"}):
            assert (await client.post(url, json=forged, headers=headers)).status_code == 403
    assert len(world.telegram.answers(chat)) == 2


async def test_each_voice_has_a_webhook_of_its_own(world: TelegramWorld) -> None:
    world.telegram.add_bot("8:OTHER", "boomer_bot")
    with world.bot.database.write() as session:
        ensure_voice(session, VoiceName("boomer"), "You are a boomer.", [], START)
    port = free_port()
    url = f"http://127.0.0.1:{port}/hooks"
    world.settings = {"webhook_url": url, "webhook_port": port, "voices": {"boomer": "8:OTHER"}}
    bots = world.telegram.bots
    await world.start(boomer="8:OTHER")
    assert [bot.webhook for bot in bots.values()] == [url, f"{url}/boomer"]
    bots["8:OTHER"].webhook = f"http://127.0.0.1:{port + 1}/hooks/boomer"  # where a proxy would lead it
    group = world.telegram.group()
    answer = await world.ask(group, world.ada, "@boomer_bot hi")
    assert answer["from"]["id"] == 8


async def test_stopping_does_not_wait_for_ever(live: TelegramWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bots.telegram.bot.STOP_SECONDS", 0.05)
    live.bot.backend.gate = asyncio.Event()
    chat = live.telegram.private(live.ada)
    live.telegram.say(chat, live.ada, "hi")
    await live.bot.backend.was_asked.wait()
    await asyncio.wait_for(live.stop(), 30)
    assert live.telegram.answers(chat) == []


async def test_a_compatible_server_that_lacks_what_is_not_needed_is_good_enough(bot: World) -> None:
    lacks = frozenset({"sendChatAction", "sendMessageDraft", "setMyCommands", "setMyDescription", "getChatMember"})
    async with telegram_world(bot, lacks=lacks) as world:
        bot.backend.models["base"] = echoes
        await world.start()
        long = " ".join(f"word{number}" for number in range(30))
        answer = await world.ask(world.telegram.private(world.ada), world.ada, long)
        await world.telegram.until(lambda: button(answer, "👍") if "reply_markup" in answer else None)
        assert answer["text"] == long


@pytest.mark.skipif(telegram_spec.description() is None, reason=telegram_spec.WHY_ABSENT)
def test_the_check_of_requests_finds_what_telegram_would_refuse() -> None:
    check = telegram_spec.violations
    assert check("sendMessage", {"chat_id": "1", "text": "hi"}) == []
    assert check("sendMessage", {"chat_id": "1"}) == ["sendMessage: text is missing"]
    assert check("sendMessage", {"chat_id": "1", "text": "hi", "colour": "red"})
    assert check("sendMessage", {"chat_id": "1", "text": "hi", "reply_markup": '{"inline_keyboard": [[{"x": 1}]]}'})
    assert check("sendMassage", {}) == ["sendMassage: no such method"]
