from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bots.guard import guard, guarded

PERSONAL = [
    "+49 170 1234567",
    "+1 (415) 555-2671",
    "555-123-4567 ext 12",
    "bob@example.com",
    "bob at example dot com",
    "bob [at] example . com",
    "4111 1111 1111 1111",
    "GB82 WEST 1234 5698 7654 32",
    "https://x.example/a?b=c",
    "192.168.0.17",
    "@everyone",
    "password: hunter22",
    "my number is 55512 34567",
    "-----BEGIN RSA PRIVATE KEY----- abc def",
]
PLAIN = [
    "no",
    "cap",
    "hello,",
    "at",
    "dot",
    "school",
    "(fr)",
    "it's",
    "\n",
    "🧢",
    "call",
    "me",
    "on",
    "3",
    "a.",
    "“so”",
]


async def stream(pieces: list[str]) -> AsyncIterator[str]:
    for piece in pieces:
        yield piece


async def said(pieces: list[str]) -> list[str]:
    return [piece async for piece in guarded(stream(pieces))]


@pytest.mark.parametrize("secret", PERSONAL[:-1])
def test_personal_data_never_leaves(secret: str) -> None:
    out = guard(f"sure, it is {secret} ok")
    assert secret not in out


@pytest.mark.parametrize("text", ["@everyone", "hey@everyone look", "@here", "@HERE", "x@channel"])
def test_mass_mentions_are_defused(text: str) -> None:
    assert not any(mention in guard(text).lower() for mention in ("@everyone", "@here", "@channel"))


def test_control_characters_cannot_reach_a_terminal() -> None:
    assert guard("a\x1b[2Jb\x07\r\n\tc\x9b") == "a[2Jb\n\tc"


def test_ordinary_text_streams_on_before_it_is_over() -> None:
    pieces = asyncio.run(said([f"word{'s' if number % 2 else ''} " for number in range(30)]))
    assert len(pieces) > 20


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(PERSONAL + PLAIN), max_size=8), st.data())
@example(["call", "me", "at", "dot", "192.168.0.17"], None)
def test_streaming_says_exactly_what_the_whole_text_would(words: list[str], data: st.DataObject | None) -> None:
    text = " ".join(words)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12))) if data else list(range(len(text)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert "".join(asyncio.run(said(pieces))) == guard(text)


async def test_a_blocked_phrase_is_never_said_however_it_is_cut_into_pieces() -> None:
    said = "well, Bad   Phrase here and badly phrased, bad phrase."
    blocked = ("bad phrase", "zzz")
    expected = "well, ************ here and badly phrased, **********."
    assert guard(said, blocked) == expected
    for size in (1, 3, 7, 100):

        async def pieces(size: int = size) -> AsyncIterator[str]:
            for start in range(0, len(said), size):
                yield said[start : start + size]

        assert "".join([piece async for piece in guarded(pieces(), blocked)]) == expected
