"""Inline keyboards, and what their buttons send back: ids only, so that they work weeks and restarts later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from telegram import InlineKeyboardButton, InlineKeyboardMarkup

from bots import messages
from nocap.domain import AdapterName, ChannelKey, DuelChoice, Purpose, SlangStatus, Vote

VOTES = {"u": Vote.UP, "d": Vote.DOWN, "c": Vote.CRINGE}
CHOICES = {"l": DuelChoice.LEFT, "r": DuelChoice.RIGHT, "t": DuelChoice.TIE, "b": DuelChoice.BOTH_BAD}
REACTIONS = {
    **dict.fromkeys("👍🔥🥰👏😁🎉🤩💯🤣🏆😎", Vote.UP),
    "❤": Vote.UP,
    "❤‍🔥": Vote.UP,
    **dict.fromkeys("👎🤬🤮💩🖕😡", Vote.DOWN),
    **dict.fromkeys("🤡🥴😐🥱🙈🤓", Vote.CRINGE),
}
"""Reactions that say something about an answer; all others are let be."""
REVIEWS = {"a": SlangStatus.APPROVED, "b": SlangStatus.BLOCKED, "d": SlangStatus.DISMISSED}
REVIEW_MARKS = {"a": "✅", "d": "💤", "b": "🚫"}
VERDICTS = {"u": "upheld", "d": "dismissed"}
CANCEL = ("cancel", "x")
DATA_BYTES = 64


def votes(reply_id: int) -> InlineKeyboardMarkup:
    labels = {"u": "👍", "d": "👎", "c": "😬 cringe"}
    return _rows([(label, f"v:{reply_id}:{code}") for code, label in labels.items()])


def duel(duel_id: int) -> InlineKeyboardMarkup:
    labels = {"l": "👈 left", "r": "right 👉", "t": "🤝 tie", "b": "🗑 both bad"}
    one, two, three, four = ((label, f"d:{duel_id}:{code}") for code, label in labels.items())
    return _rows([one, two], [three, four])


def retry() -> InlineKeyboardMarkup:
    """Under a failure that replies to its prompt, which is how the prompt is found again."""
    return _rows([("🔁 try again", "t")])


def consent(channel: ChannelKey, state: Mapping[Purpose, bool], minimum_age: int | None = None) -> InlineKeyboardMarkup:
    """Everything or nothing in one tap, or each purpose on its own; `state` is what holds now.

    With a minimum age every button that says yes says that age too.
    """
    all_of_it, mark, age = "yes to all", "", ""
    if minimum_age is not None:
        all_of_it, mark, age = f"{messages.age_sentence(minimum_age)} to all", f" ({minimum_age}+)", f":{minimum_age}"
    each = [
        (f"☑ {purpose}", f"c:{channel}:{purpose}")
        if state[purpose]
        else (f"☐ {purpose}{mark}", f"c:{channel}:{purpose}{age}")
        for purpose in Purpose
    ]
    return _rows([(f"✅ {all_of_it}", f"c:{channel}:y{age}"), ("🚫 no to all", f"c:{channel}:n")], each[:2], each[2:])


def erase() -> InlineKeyboardMarkup:
    return _rows([("🧨 erase everything", "e:y"), ("keep it", "e:n")])


def rollback(to: AdapterName) -> InlineKeyboardMarkup:
    return _rows([("↩️ roll back", f"r:{to}"), CANCEL])


def promote(name: AdapterName) -> InlineKeyboardMarkup:
    return _rows([("🚀 put live", f"m:{name}"), CANCEL])


def purge() -> InlineKeyboardMarkup:
    """Of the chat in which the button stands."""
    return _rows([("🧨 purge", "g"), CANCEL])


def slang_queue(terms: Sequence[str]) -> InlineKeyboardMarkup | None:
    """Approve, dismiss or block; a term too long for a button is reviewed by its command."""
    fitting = [term for term in terms if len(f"s:a:{term}".encode()) <= DATA_BYTES]
    rows = [[(f"{mark} {term}", f"s:{code}:{term}") for code, mark in REVIEW_MARKS.items()] for term in fitting]
    return _rows(*rows) if rows else None


def reports(ids: Sequence[int]) -> InlineKeyboardMarkup | None:
    rows = [[(f"#{one} upheld", f"q:{one}:u"), (f"#{one} dismissed", f"q:{one}:d")] for one in ids]
    return _rows(*rows) if rows else None


def open_privately(username: str, start: str, label: str) -> InlineKeyboardMarkup:
    """A link into the private chat, which hands `start` to the bot."""
    return InlineKeyboardMarkup([[InlineKeyboardButton(label, url=f"https://t.me/{username}?start={start}")]])


def _rows(*rows: list[tuple[str, str]]) -> InlineKeyboardMarkup:
    assert all(len(data.encode()) <= DATA_BYTES for row in rows for _, data in row), "Telegram refuses longer data"
    return InlineKeyboardMarkup(
        [[InlineKeyboardButton(label, callback_data=data) for label, data in row] for row in rows]
    )
