"""Who is answered, where, and how the answer looks."""

from __future__ import annotations

from tests.bots.telegram.support import TelegramWorld
from tests.fakes.backend import says
from tests.fakes.telegram import buttons


async def test_a_private_message_is_answered_with_buttons_below(live: TelegramWorld) -> None:
    answer = await live.ask(live.telegram.private(live.ada), live.ada, "hey there")
    assert answer["text"] == "base speaking"
    assert [one["text"] for one in buttons(answer)] == ["👍", "👎", "😬 cringe"]


async def test_in_a_group_only_a_mention_or_a_reply_is_answered(live: TelegramWorld) -> None:
    group = live.telegram.group()
    live.telegram.say(group, live.ada, "nobody asked you")
    answer = await live.ask(group, live.ada, "@nocap_bot what's up")
    again = await live.ask(group, live.ben, "and you?", reply_to=answer)
    await live.settle(group)
    assert [one["reply_to_message"]["text"] for one in live.telegram.answers(group)] == [
        "@nocap_bot what's up",
        "and you?",
    ]
    assert again["text"] == "base speaking"
