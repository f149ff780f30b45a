"""Streamed text: no piece ends inside a character, and the pieces joined are the whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import regex  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from inference.server.text import TextStream, decode
from tests.inference.server import tiny

HARD = "a👍🏽b 👩‍👩‍👧‍👦🏳️‍🌈 🇩🇪🇫🇷 e\u0301n\u0303 क्षि 한국어 ٱلسَّلَامُ 😀\r\n1\ufe0f\u20e3 ünï"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny.write_tokenizer(folder)
    return AutoTokenizer.from_pretrained(folder)


def pieces(tokenizer: Any, token_ids: list[int], stop: tuple[str, ...] = ()) -> tuple[list[str], TextStream]:
    stream = TextStream(tokenizer, stop)
    given_out = []
    for token in token_ids:
        given_out.append(stream.push(token))
        if stream.stopped:
            break
    return [*given_out, stream.finish()], stream


def test_no_piece_splits_an_emoji_or_a_combining_sequence(tokenizer: Any) -> None:
    token_ids = tokenizer.encode(HARD, add_special_tokens=False)
    assert len(token_ids) > 2 * len(regex.findall(r"\X", HARD))
    parts, stream = pieces(tokenizer, token_ids)
    assert "".join(parts) == stream.text == HARD
    clusters = regex.findall(r"\X", HARD)
    assert [cluster for part in parts for cluster in regex.findall(r"\X", part)] == clusters


@given(text=st.text(max_size=40))
def test_the_pieces_of_any_text_join_to_it(text: str, tokenizer: Any) -> None:
    token_ids = tokenizer.encode(text, add_special_tokens=False)
    assert "".join(pieces(tokenizer, token_ids)[0]) == decode(tokenizer, token_ids)


@given(token_ids=st.lists(st.integers(0, 399), max_size=40))
def test_the_pieces_of_any_tokens_join_to_their_whole_text(token_ids: list[int], tokenizer: Any) -> None:
    token_ids = [token % len(tokenizer) for token in token_ids]
    assert "".join(pieces(tokenizer, token_ids)[0]) == decode(tokenizer, token_ids)


@given(text=st.text(alphabet="ab😀 ", max_size=30), stop=st.lists(st.text("ab😀 ", min_size=1, max_size=4), max_size=3))
def test_nothing_from_the_first_stop_string_on_is_given_out(text: str, stop: list[str], tokenizer: Any) -> None:
    token_ids = tokenizer.encode(text, add_special_tokens=False)
    parts, stream = pieces(tokenizer, token_ids, tuple(stop))
    places = [text.index(found) for found in stop if found in text]
    assert stream.stopped == bool(places)
    if places:
        assert not any(found in "".join(parts) for found in stop)
        assert text.startswith("".join(parts))
        assert len("".join(parts)) >= min(places) - 3
    else:
        assert "".join(parts) == text


def test_special_tokens_are_not_text(tokenizer: Any) -> None:
    token_ids = tokenizer.encode("hi<|im_end|>", add_special_tokens=False)
    assert "".join(pieces(tokenizer, token_ids)[0]) == "hi"


def test_a_sentencepiece_tokenizer_keeps_its_spaces() -> None:
    folder = Path(__file__).parents[3].parent / "shared" / "models" / "stories260K"
    if not folder.is_dir():
        pytest.skip("needs ../shared/models/stories260K")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    token_ids = tokenizer.encode("once upon a time there was a cat", add_special_tokens=False)
    parts, _ = pieces(tokenizer, token_ids)
    assert "".join(parts) == decode(tokenizer, token_ids)
    assert len(parts) > 4
