from __future__ import annotations

from typing import Literal

from bots.memory import MESSAGE_CHARACTERS, ContextMemory, Remembered
from nocap.domain import ChannelKey, MemberKey, Provenance

HERE = ChannelKey("here")
ADA, BEN = MemberKey("ada"), MemberKey("ben")


def said(text: str, member: MemberKey = ADA, role: Literal["user", "assistant"] = "user") -> Remembered:
    return Remembered(role, text, member, None, Provenance.TERMINAL, stored=False)


def texts(memory: ContextMemory, channel: ChannelKey = HERE) -> list[str]:
    return [one.text for one in memory.recall(channel)]


def test_a_channel_remembers_its_last_messages_only() -> None:
    memory = ContextMemory(turns=3)
    for number in range(5):
        memory.remember(HERE, [said(str(number))])
    assert texts(memory) == ["2", "3", "4"]


def test_no_context_at_all_can_be_chosen() -> None:
    memory = ContextMemory(turns=0)
    memory.remember(HERE, [said("a"), said("b", BEN)])
    assert texts(memory) == []
    assert memory.knows(HERE)


def test_one_member_cannot_push_everyone_else_out() -> None:
    memory = ContextMemory(turns=6)
    memory.remember(HERE, [said("ben 1", BEN), said("ben 2", BEN)])
    for number in range(20):
        memory.remember(HERE, [said(f"ada {number}")])
    assert texts(memory) == ["ben 1", "ben 2", "ada 16", "ada 17", "ada 18", "ada 19"]


def test_the_channel_that_was_silent_longest_is_dropped_first() -> None:
    memory = ContextMemory(turns=3, channels=2)
    one, two, three = (ChannelKey(name) for name in "123")
    memory.remember(one, [said("a")])
    memory.remember(two, [said("b")])
    memory.remember(one, [said("c")])
    memory.remember(three, [said("d")])
    assert [memory.knows(channel) for channel in (one, two, three)] == [True, False, True]


def test_an_endless_message_is_no_context() -> None:
    memory = ContextMemory(turns=3)
    memory.remember(HERE, [said("x" * (MESSAGE_CHARACTERS + 1)), said("y")])
    assert texts(memory) == ["y"]


def test_a_forgotten_member_takes_the_bots_answers_to_them_along() -> None:
    memory = ContextMemory(turns=6)
    there = ChannelKey("there")
    for channel in (HERE, there):
        memory.remember(channel, [said("a"), said("to a", role="assistant"), said("b", BEN)])
    memory.forget_member(ADA, HERE)
    assert (texts(memory), texts(memory, there)) == (["b"], ["a", "to a", "b"])
    memory.forget_member(ADA)
    assert texts(memory, there) == ["b"]
