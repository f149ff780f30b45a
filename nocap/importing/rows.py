"""What a parser yields, and the checks that every format shares."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from nocap.domain import Provenance

MAX_IDENTIFIER_CHARACTERS = 200
MAX_TEXT_CHARACTERS = 20_000
"""Five times the longest message of Telegram or of Discord with Nitro."""

_KINDS = {bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list", dict: "an object"}


@dataclass(frozen=True, slots=True)
class Row:
    """A message as its file has it; the ids are the file's own."""

    place: str
    """Where it stands in the file, for people: "line 12"."""
    id: str
    member: str
    channel: str
    sent_at: datetime
    text: str
    reply_to: str | None = None
    provenance: Provenance = Provenance.DONATION
    channel_label: str | None = None


class BadRow(NamedTuple):
    """A row that cannot be imported; the reason never quotes it."""

    place: str
    reason: str


class RowError(ValueError):
    """Says what is wrong with one row; parsers turn it into a BadRow."""


def identifier(value: object, name: str) -> str:
    """An id as text. Raises RowError unless it is a short text or a whole number."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise RowError(f"`{name}` must be a text or a whole number, not {kind_of(value)}")
    if isinstance(value, int) and value.bit_length() > 128:
        raise RowError(f"`{name}` is too long a number")
    return _checked(str(value).strip(), name, MAX_IDENTIFIER_CHARACTERS) or _refuse(f"`{name}` is empty")


def optional_identifier(value: object, name: str) -> str | None:
    return None if value is None or value == "" else identifier(value, name)


def message_text(value: object, name: str = "text") -> str:
    """The text of a message, perhaps empty. Raises RowError for other types, half characters and excess length."""
    if not isinstance(value, str):
        raise RowError(f"`{name}` must be a text, not {kind_of(value)}")
    return _checked(value, name, MAX_TEXT_CHARACTERS)


def iso_moment(value: object, name: str) -> datetime:
    """A moment in UTC from ISO 8601 with a zone. Raises RowError for anything else."""
    if not isinstance(value, str):
        raise RowError(f"`{name}` must be a date like 2026-11-22T18:30:00+01:00, not {kind_of(value)}")
    try:
        moment = datetime.fromisoformat(value.strip())
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise RowError(f"`{name}` is not a date like 2026-11-22T18:30:00+01:00") from error
    raise RowError(f"`{name}` has no time zone; write it like 2026-11-22T18:30:00+01:00 or with a Z at the end")


def unix_moment(seconds: float, name: str) -> datetime:
    """A moment in UTC from seconds since 1970. Raises RowError outside the calendar."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise RowError(f"`{name}` lies outside the calendar") from error


def kind_of(value: object) -> str:
    """A JSON value's type in plain words."""
    return "missing" if value is None else _KINDS.get(type(value), "something else")


def _checked(value: str, name: str, max_characters: int) -> str:
    if len(value) > max_characters:
        raise RowError(f"`{name}` is longer than {max_characters} characters")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise RowError(f"`{name}` holds half a character (a lone surrogate)") from error
    return value


def _refuse(reason: str) -> str:
    raise RowError(reason)
