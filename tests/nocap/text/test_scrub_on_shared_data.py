"""How much the scrubber finds, and leaves alone, in texts that nobody here wrote, and in chat written for it."""

from __future__ import annotations

import pytest

from benchmarks.privacy import (
    SHARED,
    as_labelled,
    generated_set,
    ordinary_chat,
    own_set,
    score_by_kind,
    score_names,
    share_changed,
)
from nocap.text.scrub import Found, scrub

needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="the shared data are not here")
CERTAIN = {Found.EMAIL, Found.PHONE, Found.ACCOUNT, Found.IP, Found.LINK, Found.SECRET}


@needs_shared
def test_what_has_a_shape_is_found_and_nothing_else_in_generated_texts() -> None:
    scores = score_by_kind(as_labelled(generated_set()))
    assert scores.keys() == CERTAIN - {Found.SECRET}
    assert {kind: score for kind, score in scores.items() if min(score.recall, score.precision) < 0.95} == {}


@needs_shared
def test_names_are_found_in_generated_texts() -> None:
    score = score_names(generated_set())
    assert score.recall >= 0.7
    assert score.precision >= 0.8


def test_every_kind_is_found_in_chat_and_slang_is_left_alone() -> None:
    scores = score_by_kind(own_set())
    assert scores.keys() == set(Found)
    assert {kind: score for kind, score in scores.items() if score.precision < 0.95} == {}
    assert {kind: score for kind, score in scores.items() if score.recall < (0.95 if kind in CERTAIN else 0.7)} == {}


def test_scrubbing_chat_twice_changes_nothing() -> None:
    for message in own_set():
        once = scrub(message.text)
        assert scrub(once) == once


@needs_shared
def test_ordinary_chat_is_hardly_touched() -> None:
    pytest.importorskip("pyarrow.parquet")
    assert share_changed(ordinary_chat(8000)) <= 0.02
