"""Text as Telegram takes it: 4,096 UTF-16 units, and code by entities."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from telegram import MessageEntity

from bots.splitting import utf16_units
from bots.telegram.formatting import MESSAGE_UNITS, formatted, parts_of

PIECES = st.one_of(
    st.text(max_size=80),
    st.sampled_from(["```", "```python\n", "\n```\n", "`x`", "👩‍👩‍👧‍👦", "שלום ", "🏳️‍🌈" * 60, "word " * 400, "\n\n"]),
)
TEXTS = st.lists(PIECES, max_size=24).map("".join)


def cut(text: str, entity: MessageEntity) -> str:
    units = text.encode("utf-16-le", "surrogatepass")
    return units[2 * entity.offset : 2 * (entity.offset + entity.length)].decode("utf-16-le", "surrogatepass")


def test_code_is_marked_by_entities_counted_in_utf_16_units() -> None:
    text, entities = formatted("🦄 say `pip` then\n```python\nprint('🦄')\n```\nok")
    assert text == "🦄 say pip then\nprint('🦄')\nok"
    assert [(one.type, cut(text, one), one.language) for one in entities] == [
        ("code", "pip", None),
        ("pre", "print('🦄')", "python"),
    ]


def test_backquotes_that_hold_no_code_are_left_alone() -> None:
    for text in ("a ` b", "``", "``` not closed", "```\n\n```", "it's ``` odd"):
        assert formatted(text) == (text, [])


@settings(max_examples=150, deadline=None)
@given(TEXTS)
def test_every_part_fits_a_message_and_its_entities_fit_the_part(text: str) -> None:
    for part, entities in parts_of(text):
        assert 0 < utf16_units(part) <= MESSAGE_UNITS
        ends = [0]
        for entity in entities:
            assert entity.offset >= ends[-1] and cut(part, entity).strip()
            ends.append(entity.offset + entity.length)
        assert ends[-1] <= utf16_units(part)


@settings(max_examples=100, deadline=None)
@given(TEXTS)
def test_no_word_is_lost_on_the_way(text: str) -> None:
    shown = "".join(part for part, _ in parts_of(text))
    assert _bare(shown) == _bare(text)


def _bare(text: str) -> str:
    """Without white space and what marks code."""
    return "".join(text.replace("`", "").replace("python", "").split())
