"""Who is answered, where, and how the answer looks."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from bots import messages
from bots.limits import RateLimits
from bots.telegram import outbox, sentences
from bots.telegram.answers import MOST_EDITS
from bots.telegram.outbox import BUSY_PER_MINUTE
from tests.bots.telegram.support import TelegramWorld
from tests.fakes.backend import Refuse, echoes, says
from tests.fakes.telegram_objects import NOW, Json, buttons

SAID = "base speaking"


def asked(world: TelegramWorld) -> list[str]:
    """The last message of every prompt that reached the backend."""
    return [chat["messages"][-1]["content"] for chat in world.bot.backend.chats]


async def test_a_private_message_is_answered_with_buttons_below(live: TelegramWorld) -> None:
    answer = await live.ask(live.telegram.private(live.ada), live.ada, "hey there")
    assert answer["text"] == SAID
    assert [one["text"] for one in buttons(answer)] == ["👍", "👎", "😬 cringe"]


async def test_in_a_group_only_mentions_replies_and_commands_are_answered(live: TelegramWorld) -> None:
    group = live.telegram.group()
    live.telegram.say(group, live.ada, "nobody asked you")
    answer = await live.ask(group, live.ada, "@nocap_bot what's up")
    await live.ask(group, live.ben, "and you?", reply_to=answer)
    await live.ask(group, live.ben, "/ask@nocap_bot why")
    live.telegram.say(group, live.ben, "/ask@other_bot why")
    live.telegram.say(group, live.ben, "/nonsense")
    await live.settle()
    assert asked(live) == ["what's up", "and you?", "why"]
    replied = [one["reply_to_message"]["text"] for one in live.telegram.answers(group)]
    assert replied == ["@nocap_bot what's up", "and you?", "/ask@nocap_bot why"]


async def test_a_mention_is_found_behind_emoji_and_right_to_left_text(live: TelegramWorld) -> None:
    group = live.telegram.group()
    await live.ask(group, live.ada, "👩‍👩‍👧‍👦🏳️‍🌈 שלום @nocap_bot مرحبا 🫡")
    assert asked(live) == ["👩‍👩‍👧‍👦🏳️‍🌈 שלום مرحبا 🫡"]


async def test_an_always_channel_answers_everything_at_once_and_an_off_one_nothing(live: TelegramWorld) -> None:
    group = live.telegram.group()
    group.members[live.ada.id] = "administrator"
    await live.ask(group, live.ada, "/channel mode always")
    assert (await live.ask(group, live.ben, "just talking"))["text"] == SAID
    await live.ask(group, live.ada, "/channel disable")
    before = len(live.telegram.answers(group))
    live.telegram.say(group, live.ben, "@nocap_bot hello?")
    await live.settle()
    assert len(live.telegram.answers(group)) == before


async def test_bots_channels_forwards_and_what_came_through_a_bot_are_ignored(live: TelegramWorld) -> None:
    group = live.telegram.group()
    other = live.telegram.person(77, "Robot", "robot")
    other.is_bot = True
    channel = {"id": -100500, "type": "channel", "title": "news"}
    live.telegram.say(group, other, "@nocap_bot hi")
    live.telegram.say(group, live.ada, "@nocap_bot hi", via_bot=other.as_json)
    live.telegram.say(group, live.ada, "@nocap_bot hi", sender_chat=channel)
    origin = {"type": "hidden_user", "date": NOW, "sender_user_name": "x"}
    live.telegram.say(group, live.ada, "@nocap_bot hi", forward_origin=origin)
    await live.settle()
    assert live.telegram.answers(group) == []
    private = live.telegram.private(live.ada)
    assert (await live.ask(private, live.ada, "not my words", forward_origin=origin))["text"] == messages.EMPTY
    assert asked(live) == []


async def test_a_topic_keeps_its_answers_and_its_talk_to_itself(live: TelegramWorld) -> None:
    forum = live.telegram.group(is_forum=True)
    live.bot.backend.models["base"] = echoes
    first = await live.ask(forum, live.ada, "@nocap_bot I like plums", thread=5)
    await live.ask(forum, live.ada, "@nocap_bot what do I like", thread=6)
    answer = await live.ask(forum, live.ada, "@nocap_bot what do I like", thread=5)
    assert (first["message_thread_id"], answer["message_thread_id"]) == (5, 5)
    prompts = [" ".join(one["content"] for one in chat["messages"]) for chat in live.bot.backend.chats]
    assert ["plums" in prompt for prompt in prompts] == [True, False, True]


async def test_a_reply_to_somebody_else_brings_their_words_along(live: TelegramWorld) -> None:
    group = live.telegram.group()
    original = live.telegram.say(group, live.ben, "pineapple belongs on pizza")
    await live.ask(group, live.ada, "@nocap_bot is he right", reply_to=original)
    assert asked(live) == ["pineapple belongs on pizza\nis he right"]


@pytest.mark.parametrize("kind", ["sticker", "photo"])
async def test_what_holds_no_words_gets_one_short_sentence(live: TelegramWorld, kind: str) -> None:
    chat = live.telegram.private(live.ada)
    size = {"file_id": "f", "file_unique_id": "u", "width": 1, "height": 1}
    sticker = size | {"type": "regular", "is_animated": False, "is_video": False}
    content: Json = {"sticker": sticker} if kind == "sticker" else {"photo": [size]}
    for _ in range(3):  # an album comes as several messages
        live.telegram.say(chat, live.ada, None, **content, media_group_id="album")
    await live.settle()
    assert [one["text"] for one in live.telegram.answers(chat)] == [messages.EMPTY]
    captioned = await live.ask(chat, live.ada, None, **content, caption="look at this")
    assert captioned["text"] == SAID and asked(live) == ["look at this"]


async def test_a_long_answer_is_split_with_its_code_whole_and_its_buttons_last(live: TelegramWorld) -> None:
    code = "```python\n" + "print('hi 🦄')\n" * 40 + "```"
    text = "\n\n".join(["A sentence with 🏳️‍🌈 in it. " * 120, code, "The end. " * 100])
    live.bot.backend.models["base"] = says(text)
    chat = live.telegram.private(live.ada)
    live.telegram.say(chat, live.ada, "explain")
    await live.telegram.until(lambda: any(buttons(one) for one in live.telegram.answers(chat)))
    parts = live.telegram.answers(chat)
    assert len(parts) > 1 and [bool(buttons(one)) for one in parts] == [False] * (len(parts) - 1) + [True]
    assert not any("```" in one["text"] for one in parts)
    blocks = [entity for one in parts for entity in one["entities"] if entity["type"] == "pre"]
    assert sum(one["length"] for one in blocks) >= len("print('hi 🦄')\n") * 40
    assert {one["language"] for one in blocks} == {"python"}


async def test_a_private_answer_is_drafted_while_it_streams_and_sent_once(live: TelegramWorld) -> None:
    live.bot.backend.models["base"] = says(*(f"word{number} " for number in range(12)))
    chat = live.telegram.private(live.ada)
    await live.ask(chat, live.ada, "go on")
    await live.settle()
    drafts = [call.text for call in live.telegram.made("sendMessageDraft")]
    assert drafts and all(later.startswith(earlier) for earlier, later in pairwise(drafts))
    assert len(live.telegram.answers(chat)) == 1 and not live.telegram.made("editMessageText")


async def test_a_group_answer_is_edited_a_few_times_and_a_busy_groups_never(
    live: TelegramWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bots.telegram.answers.GROUP_EDIT_SECONDS", 0.0)
    live.bot.backend.models["base"] = says(*(f"word{number} " for number in range(30)))
    whole = " ".join(f"word{number}" for number in range(30))
    group = live.telegram.group()
    live.telegram.say(group, live.ada, "@nocap_bot go on")
    answer = await live.telegram.answer_in(group)
    await live.telegram.until(lambda: buttons(answer))
    assert answer["text"] == whole
    assert 1 <= len(live.telegram.made("editMessageText")) <= MOST_EDITS
    for _ in range(BUSY_PER_MINUTE):
        await live.ask(group, live.ada, "/privacy")
    edits = len(live.telegram.made("editMessageText"))
    assert (await live.ask(group, live.ada, "@nocap_bot go on"))["text"] == whole
    assert len(live.telegram.made("editMessageText")) == edits


async def test_the_chat_sees_typing_for_as_long_as_the_answer_takes(
    live: TelegramWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "TYPING_DELAY_SECONDS", 0.0)
    monkeypatch.setattr(outbox, "TYPING_SECONDS", 0.01)
    live.bot.backend.gate = asyncio.Event()
    forum = live.telegram.group(is_forum=True)
    live.telegram.say(forum, live.ada, "@nocap_bot think", thread=9)
    await live.telegram.until(lambda: len(live.telegram.made("sendChatAction")) > 2)
    assert {call.params["message_thread_id"] for call in live.telegram.made("sendChatAction")} == {"9"}
    live.bot.backend.gate.set()
    await live.telegram.answer_in(forum)
    await live.settle()
    await asyncio.sleep(0.05)  # the last one may be under way
    typed = len(live.telegram.made("sendChatAction"))
    await live.settle()
    assert len(live.telegram.made("sendChatAction")) == typed


async def test_while_inference_is_down_a_button_tries_again_in_place(live: TelegramWorld) -> None:
    live.bot.backend.faults.append(Refuse(500))
    live.bot.backend.is_down = True
    group = live.telegram.group()
    failure = await live.ask(group, live.ada, "@nocap_bot you there?")
    assert "can't reach the machine I think with" in failure["text"]
    live.bot.backend.is_down = False
    live.bot.backend.faults.clear()
    await live.restart()
    nosy = live.telegram.press(failure, "try again", live.ben)
    assert (await live.telegram.answered(nosy)).text == sentences.NOT_FOR_YOU
    live.telegram.press(failure, "try again", live.ada)
    await live.telegram.until(lambda: "👍" in str(buttons(failure)))
    assert failure["text"] == SAID and len(live.telegram.answers(group)) == 1
    assert asked(live)[-1] == "you there?"


async def test_an_answer_to_a_message_deleted_meanwhile_is_not_given(live: TelegramWorld) -> None:
    live.bot.backend.gate = asyncio.Event()
    group = live.telegram.group()
    message = live.telegram.say(group, live.ada, "@nocap_bot oops")
    await live.bot.backend.was_asked.wait()
    del group.messages[message["message_id"]]
    live.bot.backend.gate.set()
    await live.telegram.until(lambda: live.telegram.made("sendMessage"))
    await live.settle()
    assert live.telegram.answers(group) == []


async def test_forty_chats_at_once_are_each_answered_once(live: TelegramWorld) -> None:
    groups = [live.telegram.group(-2000 - number, f"group {number}") for number in range(40)]
    live.bot.backend.models["base"] = echoes
    for number, group in enumerate(groups):
        live.telegram.say(group, live.telegram.person(300 + number, f"P{number}"), f"@nocap_bot number{number}")
    await live.telegram.until(lambda: all(live.telegram.answers(group) for group in groups))
    await live.settle()
    texts = [[one["text"] for one in live.telegram.answers(group)] for group in groups]
    assert texts == [[f"number{number}"] for number in range(40)]


async def test_too_many_messages_get_one_friendly_sentence(live: TelegramWorld) -> None:
    await live.stop()
    live.bot.limits = RateLimits(member_per_minute=2, channel_per_minute=60, everyone_per_minute=60)
    await live.start()
    chat = live.telegram.private(live.ada)
    for number in range(5):
        live.telegram.say(chat, live.ada, f"message {number}")
    await live.settle()
    texts = [one["text"] for one in live.telegram.answers(chat)]
    assert sorted(texts)[1:] == [SAID, SAID] and "breather" in sorted(texts)[0]
