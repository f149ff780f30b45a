"""Inline keyboards, and what their buttons send back: ids only, so that they work weeks and restarts later."""

from __future__ import annotations

from telegram import InlineKeyboardButton, InlineKeyboardMarkup

from nocap.domain import AdapterName, ChannelKey, DuelChoice, Vote

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


def consent(channel: ChannelKey) -> InlineKeyboardMarkup:
    """Everything or nothing in one tap, or each on its own with `/consent grant …`."""
    return _rows([("✅ yes to all", f"c:{channel}:y"), ("🚫 no to all", f"c:{channel}:n")])


def erase() -> InlineKeyboardMarkup:
    return _rows([("🧨 erase everything", "e:y"), ("keep it", "e:n")])


def rollback(to: AdapterName | None) -> InlineKeyboardMarkup:
    return _rows([("↩️ roll back", f"r:{to or ''}"), ("cancel", "x")])


def open_privately(username: str, start: str, label: str) -> InlineKeyboardMarkup:
    """A link into the private chat, which hands `start` to the bot."""
    return InlineKeyboardMarkup([[InlineKeyboardButton(label, url=f"https://t.me/{username}?start={start}")]])


def _rows(*rows: list[tuple[str, str]]) -> InlineKeyboardMarkup:
    assert all(len(data.encode()) <= DATA_BYTES for row in rows for _, data in row), "Telegram refuses longer data"
    return InlineKeyboardMarkup(
        [[InlineKeyboardButton(label, callback_data=data) for label, data in row] for row in rows]
    )
