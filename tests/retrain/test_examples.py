"""Who answers whom, and in which words."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from nocap.domain import ChatMessage, MessageKey
from retrain.examples import DropReason, Example, Threads, build_examples, example_of
from storage.tables import Message

START = datetime(2026, 11, 1, 12, tzinfo=UTC)


def row(
    key: str,
    member: str,
    text: str,
    minute: float = 0,
    *,
    reply_to: str | None = None,
    channel: str = "flat",
    provenance: str = "telegram_message",
) -> Message:
    at = START + timedelta(minutes=minute)
    return Message(
        key=key,
        channel=channel,
        member=member,
        provenance=provenance,
        sent_at=at,
        received_at=at,
        text=text,
        reply_to=reply_to,
    )


def built(rows: Iterable[Message], key: str, context_turns: int = 6) -> Example | DropReason:
    rows = list(rows)
    return Threads(rows, context_turns=context_turns).example(next(row for row in rows if row.key == key))


def turns(example: Example | DropReason) -> list[tuple[str, str]]:
    assert isinstance(example, Example), example
    return [(message.role, message.content) for message in example.messages]


def test_the_reply_chain_gives_the_context_and_the_replying_member_is_the_assistant() -> None:
    rows = [
        row("a", "ana", "who's up", 0),
        row("b", "ben", "me", 60, reply_to="a"),
        row("noise", "cem", "unrelated", 61),
        row("c", "ana", "play something?", 120, reply_to="b"),
        row("d", "ben", "bet", 180, reply_to="c"),
    ]
    example = built(rows, "d")
    assert turns(example) == [("user", "who's up"), ("assistant", "me"), ("user", "play something?")]
    assert isinstance(example, Example)
    assert example.reply == "bet"
    assert example.member == "ben"
    assert example.message_keys == ("a", "b", "c", "d")


def test_consecutive_messages_of_others_are_one_turn() -> None:
    rows = [
        row("a", "ana", "anyone here", 0),
        row("b", "ana", "hello?", 1),
        row("c", "cem", "hi", 2),
        row("d", "ben", "yo", 3),
    ]
    assert turns(built(rows, "d")) == [("user", "anyone here\nhello?\nhi")]


def test_without_a_chain_the_previous_message_of_another_member_is_the_prompt() -> None:
    rows = [row("a", "ana", "guess what", 0), row("b", "ben", "hm", 1), row("c", "ben", "what", 2)]
    assert turns(built(rows, "c")) == [("user", "guess what")]


def test_a_message_more_than_ten_minutes_later_answers_nobody() -> None:
    rows = [row("a", "ana", "anyone?", 0), row("b", "ben", "hi all", 10.5)]
    assert built(rows, "b") is DropReason.NO_PROMPT
    assert isinstance(built([rows[0], row("b", "ben", "hi all", 9.5)], "b"), Example)


def test_the_previous_message_of_another_channel_is_no_prompt() -> None:
    rows = [row("a", "ana", "anyone?", 0, channel="other"), row("b", "ben", "hi all", 1)]
    assert built(rows, "b") is DropReason.NO_PROMPT


def test_an_answer_to_a_row_that_is_not_there_is_dropped_and_nothing_else_stands_in_for_it() -> None:
    rows = [row("a", "ana", "unrelated", 0), row("b", "ben", "lol same", 1, reply_to="not eligible")]
    assert built(rows, "b") is DropReason.CONTEXT_NOT_ELIGIBLE


def test_context_beyond_the_prompt_ends_where_a_row_is_missing() -> None:
    rows = [row("b", "ana", "and then?", 1, reply_to="gone"), row("c", "ben", "we left", 2, reply_to="b")]
    assert turns(built(rows, "c")) == [("user", "and then?")]


def test_a_thread_takes_no_context_from_what_merely_stood_above_it() -> None:
    rows = [
        row("noise", "cem", "unrelated", 0),
        row("root", "ana", "new topic", 1),
        row("reply", "ben", "oh nice", 2, reply_to="root"),
    ]
    assert turns(built(rows, "reply")) == [("user", "new topic")]


def test_a_member_who_goes_on_about_their_own_message_answers_the_one_before_it() -> None:
    rows = [
        row("a", "ana", "score?", 0),
        row("b", "ben", "two", 1, reply_to="a"),
        row("c", "ben", "no wait three", 2, reply_to="b"),
    ]
    assert turns(built(rows, "c")) == [("user", "score?")]


def test_replies_that_answer_each_other_in_a_circle_come_to_an_end() -> None:
    rows = [row("a", "ana", "one", 0, reply_to="b"), row("b", "ben", "two", 1, reply_to="a")]
    assert turns(built(rows, "b")) == [("user", "one")]
    alone = [row("a", "ana", "one", 0, reply_to="b"), row("b", "ana", "two", 1, reply_to="a")]
    assert built(alone, "b") is DropReason.NO_PROMPT


def test_no_more_messages_than_the_context_may_hold() -> None:
    rows = [row("0", "ana", "0", 0)] + [
        row(str(at), "ana" if at % 2 == 0 else "ben", str(at), at, reply_to=str(at - 1)) for at in range(1, 12)
    ]
    example = built(rows, "11", context_turns=3)
    assert turns(example) == [("user", "8"), ("assistant", "9"), ("user", "10")]
    assert isinstance(example, Example)
    assert example.message_keys == ("8", "9", "10", "11")


def test_a_context_that_would_open_with_the_replying_member_begins_with_the_next_turn() -> None:
    rows = [
        row("a", "ben", "mine", 0),
        row("b", "ana", "yours", 1, reply_to="a"),
        row("c", "ben", "ours", 2, reply_to="b"),
    ]
    assert turns(built(rows, "c")) == [("user", "yours")]


def test_the_mention_that_a_message_opens_with_is_not_part_of_its_words() -> None:
    rows = [row("a", "ana", "[user] you there?", 0), row("b", "ben", "[user], yes for [user]", 1)]
    example = built(rows, "b")
    assert turns(example) == [("user", "you there?")]
    assert isinstance(example, Example)
    assert example.reply == "yes for [user]"


def test_a_prompt_of_nothing_but_a_mention_is_no_prompt() -> None:
    assert built([row("a", "ana", "[user]", 0), row("b", "ben", "what", 1)], "b") is DropReason.NO_PROMPT


def test_blocked_rows_are_neither_replies_nor_prompts_nor_context() -> None:
    rows = [
        row("a", "ana", "one", 0),
        row("b", "ben", "two", 1, reply_to="a"),
        row("c", "ana", "three", 2, reply_to="b"),
        row("d", "ben", "four", 3, reply_to="c"),
    ]
    threads = Threads(rows, context_turns=6, blocked={MessageKey("b")})
    assert threads.example(rows[1]) is DropReason.HELD_OUT_ROW
    assert threads.example(rows[2]) is DropReason.HELD_OUT_ROW
    assert turns(threads.example(rows[3])) == [("user", "three")]


def test_every_message_is_an_example_or_counted_by_its_reason() -> None:
    rows = [
        row("c", "cem", "late", 500),
        row("a", "ana", "hi", 0),
        row("b", "ben", "hey", 1),
        row("d", "dua", "?", 501, reply_to="gone"),
    ]
    examples, dropped = build_examples(rows, context_turns=6)
    assert [example.key for example in examples] == ["b"]
    assert dropped == {DropReason.NO_PROMPT: 2, DropReason.CONTEXT_NOT_ELIGIBLE: 1}


def test_an_example_is_the_same_when_rebuilt_from_its_own_rows() -> None:
    rows = [
        row("a", "ben", "mine", 0),
        row("b", "ana", "first", 1),
        row("c", "ana", "second", 2),
        row("d", "ben", "ours", 3),
        row("e", "cem", "theirs", 4),
        row("f", "ben", "final", 5),
    ]
    example = built(rows, "f")
    assert isinstance(example, Example)
    by_key = {row.key: row for row in rows}
    assert example_of([by_key[key] for key in example.message_keys]) == example
    assert example.messages[0] == ChatMessage("user", "first\nsecond")


def test_a_message_that_others_answer_by_name_opens_something_and_answers_nobody() -> None:
    rows = [
        row("a", "ana", "hamsters are so fun", 0),
        row("b", "ben", "do you like sushi", 1),
        row("c", "cem", "sushi is fire", 2, reply_to="b"),
        row("d", "dan", "true that", 3),
    ]
    assert built(rows, "b") is DropReason.NO_PROMPT
    assert turns(built(rows, "d")) == [("user", "do you like sushi\nsushi is fire")]


def test_a_prompt_to_the_bot_answers_nobody() -> None:
    rows = [row("a", "ana", "hamsters are so fun", 0), row("b", "ben", "do you like sushi", 1)]
    threads = Threads(rows, context_turns=6, to_the_bot=frozenset({MessageKey("b")}))
    assert threads.example(rows[1]) is DropReason.NO_PROMPT
    assert isinstance(built(rows, "b"), Example)
