"""`nocap import jsonl`: one JSON object a line with id, member, channel, sent_at, text, reply_to, provenance."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from nocap.domain import Provenance
from nocap.errors import InputError
from nocap.importing.rows import (
    BadRow,
    Row,
    RowError,
    identifier,
    iso_moment,
    kind_of,
    message_text,
    optional_identifier,
)

MAX_LINE_BYTES = 1 << 20
MEMBER_PROVENANCES = tuple(
    provenance
    for provenance in Provenance
    if provenance not in (Provenance.OPERATOR_SEED, Provenance.BOT_REPLY, Provenance.SYNTHETIC)
)
"""What a row may claim to be; texts of operators and machines do not come in as members' words."""


def parse(path: Path) -> Iterator[Row | BadRow]:
    """Every line as a row or a bad row; blank lines are passed over. Raises InputError for an unreadable file."""
    for number, record in json_lines(path):
        if isinstance(record, BadRow):
            yield record
            continue
        try:
            yield _row(f"line {number}", record)
        except RowError as error:
            yield BadRow(f"line {number}", str(error))


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    """Line number and JSON object (or what is wrong with the line), without holding the file in memory."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(_lines(file, path), start=1):
                if line.strip():
                    yield number, _json_object(line, f"line {number}")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}. Check the path and its rights.") from error


def _lines(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """The lines, of which the longest are cut after MAX_LINE_BYTES + 1 bytes."""
    first = file.readline(MAX_LINE_BYTES + 1)
    if first.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{path} is in UTF-16; save it as UTF-8 and import it again.")
    yield first.removeprefix(b"\xef\xbb\xbf")
    _pass_over_rest(file, first)
    while line := file.readline(MAX_LINE_BYTES + 1):
        yield line
        _pass_over_rest(file, line)


def _pass_over_rest(file: BinaryIO, line: bytes) -> None:
    while len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
        line = file.readline(MAX_LINE_BYTES + 1)
        if len(line) <= MAX_LINE_BYTES:
            return


def _json_object(line: bytes, place: str) -> dict[str, Any] | BadRow:
    if len(line) > MAX_LINE_BYTES:
        return BadRow(place, "is longer than 1 MiB")
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return BadRow(place, "is not UTF-8")
    except (ValueError, RecursionError):
        cut_off = "" if line.endswith(b"\n") else "; it is the last one and may have been cut off"
        return BadRow(place, f"is not JSON{cut_off}")
    return value if isinstance(value, dict) else BadRow(place, f"must be an object in braces, not {kind_of(value)}")


def _row(place: str, record: dict[str, Any]) -> Row:
    return Row(
        place=place,
        id=identifier(record.get("id"), "id"),
        member=identifier(record.get("member"), "member"),
        channel=identifier(record.get("channel"), "channel"),
        sent_at=iso_moment(record.get("sent_at"), "sent_at"),
        text=message_text(record.get("text")),
        reply_to=optional_identifier(record.get("reply_to"), "reply_to"),
        provenance=_provenance(record.get("provenance")),
    )


def _provenance(value: object) -> Provenance:
    if value is None:
        return Provenance.DONATION
    if not isinstance(value, str) or value not in MEMBER_PROVENANCES:
        raise RowError(f"`provenance` must be one of {', '.join(MEMBER_PROVENANCES)}")
    return Provenance(value)
