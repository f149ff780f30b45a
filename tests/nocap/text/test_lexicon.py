from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from nocap.text.lexicon import Lexicon


def test_terms_count_as_whole_words_in_any_case() -> None:
    lexicon = Lexicon(["cap", "Rizz"])
    assert lexicon.count("CAP! caps recap cap_ rizz rizzler") == {"cap": 1, "Rizz": 1}


def test_the_longest_term_wins_and_a_failed_one_hides_nothing() -> None:
    lexicon = Lexicon(["no cap", "cap", "cap rate"])
    assert lexicon.count("no cap") == {"no cap": 1}
    assert lexicon.count("cap rates") == {"cap": 1}


def test_words_of_other_scripts_have_boundaries_too() -> None:
    assert Lexicon(["кот", "über"]).count("Кот котик ÜBER überall") == {"кот": 1, "über": 1}


def test_a_combining_mark_belongs_to_its_word() -> None:
    assert Lexicon(["x"]).count("x\u0323 x") == {"x": 1}


def test_composed_and_decomposed_letters_are_the_same() -> None:
    assert Lexicon(["café"]).count("cafe\u0301") == {"café": 1}


def test_emoji_count_next_to_anything() -> None:
    assert Lexicon(["💀", "❤"]).count("dead💀💀 ❤️❤") == {"💀": 2, "❤": 2}


def test_an_emoji_counts_in_every_skin_tone_unless_that_tone_is_a_term() -> None:
    assert Lexicon(["👍"]).count("👍🏽👍") == {"👍": 2}
    assert Lexicon(["👍", "👍🏽"]).count("👍🏽👍") == {"👍": 1, "👍🏽": 1}


def test_an_emoji_does_not_count_as_part_of_another() -> None:
    assert Lexicon(["👨", "👧", "🇸🇩"]).count("👨‍👩‍👧 🇺🇸🇩🇪") == {}


def test_an_apostrophe_may_be_straight_or_curly() -> None:
    assert Lexicon(["bussin'"]).count("it's bussin’ fr") == {"bussin'": 1}


def test_the_first_of_equal_terms_gives_the_name_and_blanks_are_ignored() -> None:
    lexicon = Lexicon(["Slay", "slay", " ", ""])
    assert lexicon.terms == ("Slay",)
    assert lexicon.count("SLAY") == {"Slay": 1}


def test_an_empty_lexicon_finds_nothing() -> None:
    assert Lexicon([]).count("anything") == {}
    assert Lexicon([]).density("anything") == 0.0


def test_density_is_uses_per_token() -> None:
    lexicon = Lexicon(["no cap", "💀"])
    assert lexicon.density("no cap bro 💀") == 0.5
    assert lexicon.density("") == 0.0


@given(st.lists(st.sampled_from(["cap", "no", "no cap", "slay", "caps"])), st.sampled_from(["cap", "no", "slay"]))
def test_a_single_word_is_counted_as_a_regular_expression_would(parts: list[str], term: str) -> None:
    text = " ".join(parts)
    assert Lexicon([term]).count(text).get(term, 0) == len(re.findall(rf"\b{term}\b", text))
