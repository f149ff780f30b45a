"""`nocap import telegram`: Telegram Desktop's JSON export (result.json), of one chat or of the whole account.

Service messages, forwarded messages and what was sent through a bot are passed over: they are not the sender's
own words.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from nocap.errors import InputError
from nocap.importing.rows import (
    BadRow,
    Row,
    RowError,
    identifier,
    kind_of,
    message_text,
    optional_identifier,
    unix_moment,
)
from nocap.text.scrub import Found

MAX_BYTES = 1 << 30
# Pieces of a text that Telegram itself has marked as personal: a mentioned person's name has no shape to scrub by.
_PERSONAL_PIECES = {
    "mention": Found.USER,
    "mention_name": Found.USER,
    "email": Found.EMAIL,
    "phone": Found.PHONE,
    "bank_card": Found.ACCOUNT,
}
_NOT_OWN_WORDS = ("forwarded_from", "forwarded_from_id", "via_bot")
# Their names are persons' names, so they make no label.
_PRIVATE_CHATS = ("personal_chat", "bot_chat", "saved_messages")


def parse(path: Path) -> Iterator[Row | BadRow]:
    """Every message of the export (a file, or the folder that holds `result.json`) as a row or a bad row.

    Raises InputError where the file is not such an export.
    """
    file = path / "result.json" if path.is_dir() else path
    for chat_number, chat in enumerate(_chats(_load(file), file), start=1):
        messages = chat.get("messages")
        if not isinstance(messages, list):
            yield BadRow(f"chat {chat_number}", f"`messages` must be a list, not {kind_of(messages)}")
            continue
        for number, message in enumerate(messages, start=1):
            if _is_own_words(message):
                yield _row_or_bad(f"chat {chat_number}, message {number}", chat, message)


def member_id(from_id: str) -> str:
    """The bot platform's id of the user that an export calls `user123` (posts in a channel's name keep theirs)."""
    return from_id.removeprefix("user")


def _load(file: Path) -> Any:
    try:
        if file.stat().st_size > MAX_BYTES:
            raise InputError(f"{file} is larger than 1 GiB; export the chats one by one and import each.")
        return json.loads(file.read_bytes())
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}. Check the path and its rights.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is not complete JSON; export it again from Telegram Desktop.") from error


def _chats(export: Any, file: Path) -> list[Mapping[str, Any]]:
    if isinstance(export, dict) and "messages" in export:
        return [export]
    if isinstance(export, dict):
        parts = [export.get("chats"), export.get("left_chats")]
        lists = [part["list"] for part in parts if isinstance(part, dict) and isinstance(part.get("list"), list)]
        if lists:
            return [chat if isinstance(chat, dict) else {} for chats in lists for chat in chats]
    raise InputError(
        f"{file} is no Telegram Desktop export: it has neither `messages` nor `chats`. In Telegram Desktop choose"
        " Export chat history, format JSON."
    )


def _is_own_words(message: Any) -> bool:
    if not isinstance(message, dict):
        return True
    return message.get("type", "message") == "message" and not any(message.get(name) for name in _NOT_OWN_WORDS)


def _row_or_bad(place: str, chat: Mapping[str, Any], message: Any) -> Row | BadRow:
    try:
        if not isinstance(message, dict):
            raise RowError(f"must be an object in braces, not {kind_of(message)}")
        return _row(place, chat, message)
    except RowError as error:
        return BadRow(place, str(error))


def _row(place: str, chat: Mapping[str, Any], message: Mapping[str, Any]) -> Row:
    name = chat.get("name")
    is_private = chat.get("type") in _PRIVATE_CHATS
    return Row(
        place=place,
        id=identifier(message.get("id"), "id"),
        member=member_id(identifier(message.get("from_id"), "from_id")),
        channel=identifier(chat.get("id"), "id of the chat"),
        sent_at=_sent_at(message.get("date_unixtime")),
        text=message_text(_joined(message.get("text"))),
        reply_to=optional_identifier(message.get("reply_to_message_id"), "reply_to_message_id"),
        channel_label=message_text(name, "name of the chat") if isinstance(name, str) and not is_private else None,
    )


def _sent_at(value: object) -> datetime:
    try:
        seconds = int(identifier(value, "date_unixtime"))
    except ValueError as error:
        raise RowError(
            "`date_unixtime` is missing or no number; `date` alone has no time zone, so export again with a newer"
            " Telegram Desktop"
        ) from error
    return unix_moment(seconds, "date_unixtime")


def _joined(text: object) -> object:
    """The plain text of a message whose text may be a list of strings and marked pieces."""
    return "".join(map(_piece, text)) if isinstance(text, list) else text


def _piece(piece: object) -> str:
    if isinstance(piece, dict):
        kind = piece.get("type")
        if isinstance(kind, str) and kind in _PERSONAL_PIECES:
            return _PERSONAL_PIECES[kind].placeholder
        piece = piece.get("text")
    return message_text(piece)
