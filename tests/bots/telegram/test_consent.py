"""Consent, one's own data, and what becomes of edited and deleted messages."""

from __future__ import annotations

import json
from datetime import timedelta

from sqlmodel import select

from bots.telegram import sentences
from nocap.domain import Purpose, VoiceName
from storage.channels import ensure_channel
from storage.consent import consent_state
from storage.eligibility import EligibilityQuery, eligible_messages
from storage.tables import ConsentEvent, Message
from tests.bots.support import START, VOICE
from tests.bots.telegram.support import TelegramWorld
from tests.fakes.telegram_objects import Chat, buttons


def collect(world: TelegramWorld, chat: Chat) -> None:
    with world.bot.database.write() as session:
        ensure_channel(
            session, world.channel(chat), platform="telegram", label=chat.title, voice=VOICE, at=START, collect=True
        )


def agreed(world: TelegramWorld, chat: Chat) -> set[Purpose]:
    with world.bot.database.read() as session:
        policy = world.bot.settings.policy_version
        state = consent_state(session, world.member(world.ada), world.channel(chat), policy)
    return {purpose for purpose, given in state.items() if given}


def stored(world: TelegramWorld) -> list[str]:
    with world.bot.database.read() as session:
        return [row.text for row in session.exec(select(Message).order_by(Message.id))]  # type: ignore[arg-type]


def trainable(world: TelegramWorld) -> list[str]:
    query = EligibilityQuery(
        VoiceName("genz"), Purpose.TRAIN, world.bot.settings.policy_version, None, None, START + timedelta(days=9)
    )
    with world.bot.database.read() as session:
        return [row.text for row in eligible_messages(session, query)]


async def test_consent_for_a_group_is_given_in_private_in_one_tap_and_holds_for_that_group_alone(
    live: TelegramWorld,
) -> None:
    group, other = live.telegram.group(title="knitting"), live.telegram.group(-1002, "chess")
    private = live.telegram.private(live.ada)
    collect(live, group)
    collect(live, other)
    said = await live.ask(group, live.ada, "/consent")
    assert said["text"] == sentences.IN_PRIVATE
    overview = live.telegram.answers(private)[0]
    assert "“knitting”" in overview["text"] and "[no] train" in overview["text"]
    await live.telegram.answered(live.telegram.press(overview, "yes to all", live.ada))
    assert agreed(live, group) == set(Purpose) and agreed(live, other) == set()
    assert "[yes] train" in overview["text"]
    await live.telegram.answered(live.telegram.press(overview, "evaluate", live.ada))
    assert agreed(live, group) == set(Purpose) - {Purpose.EVALUATE}


async def test_where_an_age_is_asked_for_a_tap_says_it_and_a_button_without_it_agrees_to_nothing(
    world: TelegramWorld,
) -> None:
    world.bot.set_privacy(minimum_age=16)
    await world.start()
    group, private = world.telegram.group(), world.telegram.private(world.ada)
    collect(world, group)
    await world.ask(group, world.ada, "/consent")
    overview = world.telegram.answers(private)[0]
    assert "I am 16 or older and agree" in overview["text"]
    older = next(button for button in buttons(overview) if "agree to all" in button["text"])
    confirmed, older["callback_data"] = older["callback_data"], older["callback_data"].removesuffix(":16")
    assert confirmed != older["callback_data"]
    await world.telegram.answered(world.telegram.press(overview, "agree to all", world.ada))
    assert agreed(world, group) == set()
    await world.telegram.answered(world.telegram.press(overview, "store (16+)", world.ada))
    assert agreed(world, group) == {Purpose.STORE}
    await world.telegram.answered(world.telegram.press(overview, "I am 16 or older and agree to all", world.ada))
    assert agreed(world, group) == set(Purpose)
    await world.telegram.answered(world.telegram.press(overview, "train", world.ada))
    assert agreed(world, group) == set(Purpose) - {Purpose.TRAIN}


async def test_whom_the_bot_may_not_write_to_is_given_the_way_into_private(live: TelegramWorld) -> None:
    group = live.telegram.group()
    collect(live, group)
    invitation = await live.ask(group, live.ada, "/consent")
    url = buttons(invitation)[0]["url"]
    assert url.startswith("https://t.me/nocap_bot?start=c_")
    private = live.telegram.private(live.ada)
    overview = await live.ask(private, live.ada, f"/start {url.rpartition('=')[2]}")
    assert "“the group”" in overview["text"]
    await live.telegram.answered(live.telegram.press(overview, "yes to all", live.ada))
    assert agreed(live, group) == set(Purpose)


async def test_taking_consent_back_takes_effect_in_the_very_next_snapshot(live: TelegramWorld) -> None:
    group, private = live.telegram.group(), live.telegram.private(live.ada)
    collect(live, group)
    await live.ask(group, live.ada, "@nocap_bot not kept")
    await live.ask(group, live.ada, "/consent grant")
    await live.ask(group, live.ada, "@nocap_bot teach this")
    await live.ask(group, live.ben, "@nocap_bot ben never agreed")
    assert trainable(live) == ["teach this"]
    overview = next(one for one in live.telegram.answers(private) if buttons(one))
    await live.telegram.answered(live.telegram.press(overview, "no to all", live.ada))
    assert trainable(live) == []
    await live.ask(group, live.ada, "@nocap_bot nor this")
    assert stored(live) == ["teach this"]


async def test_in_a_collecting_group_consenting_members_talk_is_kept_unanswered(live: TelegramWorld) -> None:
    group = live.telegram.group()
    collect(live, group)
    await live.ask(group, live.ada, "/consent grant")
    live.telegram.say(group, live.ada, "talking to ben")
    live.telegram.say(group, live.ben, "talking to ada")
    await live.settle()
    assert stored(live) == ["talking to ben"]


async def test_a_member_is_asked_once_in_private_and_never_twice(live: TelegramWorld) -> None:
    group, private = live.telegram.group(), live.telegram.private(live.ada)
    collect(live, group)
    for _ in range(3):
        await live.ask(group, live.ada, "@nocap_bot hi")
        await live.settle()
    await live.restart()
    await live.ask(group, live.ada, "@nocap_bot hi")
    await live.settle()
    assert ["[no] store" in one["text"] for one in live.telegram.answers(private)] == [True]
    with live.bot.database.read() as session:
        assert session.exec(select(ConsentEvent)).all() == [], "asking is not agreeing"


async def test_an_edit_changes_what_is_stored_and_a_message_can_be_taken_back(live: TelegramWorld) -> None:
    group = live.telegram.group()
    collect(live, group)
    await live.ask(group, live.ada, "/consent grant")
    message = live.telegram.say(group, live.ada, "@nocap_bot first wording")
    await live.settle()
    live.telegram.edit(message, "@nocap_bot second wording")
    await live.settle()
    assert stored(live) == ["second wording"]
    denied = await live.ask(group, live.ben, "/forget", reply_to=message)
    assert denied["text"] == sentences.NOT_YOURS and stored(live)
    assert (await live.ask(group, live.ada, "/forget", reply_to=message))["text"] == sentences.FORGOTTEN
    assert stored(live) == []


async def test_an_export_is_a_private_file_with_what_is_held(live: TelegramWorld) -> None:
    group = live.telegram.group()
    collect(live, group)
    invitation = await live.ask(group, live.ada, "/mydata export")
    assert buttons(invitation)[0]["url"].endswith("?start=export")
    private = live.telegram.private(live.ada)
    await live.ask(group, live.ada, "/consent grant")
    await live.ask(group, live.ada, "@nocap_bot keep me")
    await live.ask(group, live.ada, "/mydata export")
    file = next(one for one in live.telegram.answers(private) if "content" in one)
    held = json.loads(file["content"])
    assert [one["text"] for one in held["messages"]] == ["keep me"]
    assert held["member"] == live.member(live.ada)


async def test_erasing_asks_first_and_gives_a_receipt(live: TelegramWorld) -> None:
    private = live.telegram.private(live.ada)
    collect(live, private)
    await live.ask(private, live.ada, "/consent grant")
    await live.ask(private, live.ada, "keep me")
    question = await live.ask(private, live.ada, "/mydata delete")
    assert stored(live) == ["keep me"]
    await live.telegram.answered(live.telegram.press(question, "erase everything", live.ada))
    assert stored(live) == [] and agreed(live, private) == set()
    assert question["text"].startswith("Erased on") and not buttons(question)
