from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from bots.splitting import FENCE, split, utf16_units

WORDS = st.lists(st.text(alphabet="abcdeéß. \n!?👍مرحبا", min_size=1, max_size=90), max_size=40).map(" ".join)


@given(WORDS, st.integers(64, 400))
def test_no_part_is_too_long_and_no_word_is_lost(text: str, limit: int) -> None:
    parts = split(text, limit)
    assert all(0 < len(part) <= limit for part in parts)
    assert re.sub(r"\s", "", "".join(parts)) == re.sub(r"\s", "", text)


@given(WORDS)
def test_a_limit_in_utf16_units_holds_too(text: str) -> None:
    assert all(utf16_units(part) <= 100 for part in split(text, 100, utf16_units))


def test_parts_end_where_sentences_end() -> None:
    sentences = "This is a sentence of some length. " * 40
    assert all(part.endswith("length.") for part in split(sentences, 500))


def test_a_code_block_that_is_cut_is_closed_and_opened_again_with_its_language() -> None:
    code = "\n".join(f"line = {number}" for number in range(300))
    parts = split(f"Look:\n{FENCE}python\n{code}\n{FENCE}\nThat is all.", 1000)
    assert len(parts) > 3
    assert all(part.count(FENCE) == 2 for part in parts)
    assert all(part.startswith(f"{FENCE}python\n") for part in parts[1:])
    assert re.findall(r"line = \d+", "".join(parts)) == code.split("\n")
    assert parts[-1].endswith("That is all.")


def test_a_code_block_that_fits_whole_into_the_next_part_is_not_cut() -> None:
    text = f"{'A sentence here. ' * 40}\n{FENCE}\n{'x' * 400}\n{FENCE}"
    first, second = split(text, 900)
    assert FENCE not in first
    assert second == f"{FENCE}\n{'x' * 400}\n{FENCE}"


def test_an_emoji_is_never_cut_in_two() -> None:
    family = "👨‍👩‍👧‍👦"
    for part in split(family * 300, 200):
        assert part.replace(family, "") == ""
