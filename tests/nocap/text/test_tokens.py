from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nocap.text.tokens import ngrams, words


def test_words_keep_their_case_and_lose_their_punctuation() -> None:
    assert words("Don’t say NO cap, low-key!!") == ["Don’t", "say", "NO", "cap", "low-key"]


def test_punctuation_can_be_kept_as_tokens() -> None:
    assert words("ok, so?!", punctuation=True) == ["ok", ",", "so", "?", "!"]


@pytest.mark.parametrize("emoji", ["💀", "👍🏽", "👨‍👩‍👧", "🇺🇸", "❤️", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "🏳️‍🌈", "🫶🏿"])
def test_an_emoji_is_one_token(emoji: str) -> None:
    assert words(f"so{emoji}{emoji} true") == ["so", emoji, emoji, "true"]


def test_a_keycap_is_one_token() -> None:
    assert words("1️⃣ 2️⃣ 3") == ["1️⃣", "2️⃣", "3"]


@pytest.mark.parametrize("word", ["naïve", "nai\u0308ve", "привет", "हिन्दी", "สวัสดี", "日本語"])
def test_words_of_other_scripts_stay_whole(word: str) -> None:
    assert words(f"{word}, {word}!") == [word, word]


def test_placeholders_are_tokens_of_their_own() -> None:
    assert words("mail [email] or [user]") == ["mail", "[email]", "or", "[user]"]


def test_ngrams_are_the_runs_in_order() -> None:
    assert ngrams(["a", "b", "c"], 2) == [("a", "b"), ("b", "c")]
    assert ngrams(["a"], 2) == []


@given(st.text())
def test_tokens_are_parts_of_the_text_in_order(text: str) -> None:
    position = 0
    for token in words(text, punctuation=True):
        position = text.index(token, position) + len(token)
