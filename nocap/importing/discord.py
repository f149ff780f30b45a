"""`nocap import discord`: a member's own Discord data package (Settings, Data & Privacy), zip or unpacked folder.

It holds the messages of that one member alone: `…/c<channel>/messages.json` (or `.csv` in older packages),
`…/c<channel>/channel.json` and `…/user.json`; the folders above are named in the member's language.
"""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from nocap.errors import InputError
from nocap.importing.rows import BadRow, Row, RowError, identifier, kind_of, message_text, unix_moment

MAX_FILE_BYTES = 1 << 28
DISCORD_EPOCH_MILLISECONDS = 1_420_070_400_000
"""Message ids hold their moment: https://docs.discord.com/developers/reference#snowflakes"""

_MESSAGES = re.compile(r"(?:.*/)?c?(\d{1,20})/messages\.(json|csv)", re.IGNORECASE)
_ACCOUNT = re.compile(r"(?:.*/)?user\.json", re.IGNORECASE)
_UNREADABLE = (OSError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError, ValueError)

Package = Mapping[str, Callable[[], bytes]]
"""How to read each file of a package, by its path inside it."""


def parse(path: Path) -> Iterator[Row | BadRow]:
    """Every message of the package as a row or a bad row. Raises InputError where it is no such package."""
    if path.is_dir():
        yield from _package_rows(_folder(path), path)
        return
    try:
        with zipfile.ZipFile(path) as archive:
            yield from _package_rows(_archive(archive), path)
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a zip file; download the data package again.") from error


def _folder(folder: Path) -> Package:
    files = (file for pattern in ("messages.json", "messages.csv", "channel.json", "user.json")
             for file in folder.rglob(pattern))  # fmt: skip
    return {file.relative_to(folder).as_posix(): _file_reader(file) for file in files}


def _file_reader(file: Path) -> Callable[[], bytes]:
    def read() -> bytes:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise ValueError("too large")
        return file.read_bytes()

    return read


def _archive(archive: zipfile.ZipFile) -> Package:
    return {entry.filename: _entry_reader(archive, entry) for entry in archive.infolist() if not entry.is_dir()}


def _entry_reader(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Callable[[], bytes]:
    def read() -> bytes:
        with archive.open(entry) as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise ValueError("too large")
        return content

    return read


def _package_rows(package: Package, path: Path) -> Iterator[Row | BadRow]:
    member = _member(package, path)
    channels = sorted(match.string for name in package if (match := _MESSAGES.fullmatch(name)))
    if not channels:
        raise InputError(f"{path} holds no messages; ask Discord for a package with your messages and import that.")
    for number, name in enumerate(channels, start=1):
        yield from _channel_rows(package, name, member, f"channel {number}")


def _member(package: Package, path: Path) -> str:
    for name in sorted(filter(_ACCOUNT.fullmatch, package)):
        account = _json_or_none(package[name])
        if isinstance(account, dict) and "id" in account:
            try:
                return identifier(account["id"], "id")
            except RowError as error:
                raise InputError(f"{path}: in {name} {error}; download the data package again.") from error
    raise InputError(f"{path} is no Discord data package: it has no account/user.json that names its member.")


def _channel_rows(package: Package, name: str, member: str, channel_place: str) -> Iterator[Row | BadRow]:
    match = _MESSAGES.fullmatch(name)
    assert match is not None
    label = _label(package, name)
    try:
        records = _records(package[name](), match[2].lower())
    except (*_UNREADABLE, RecursionError, csv.Error):
        yield BadRow(channel_place, f"its messages.{match[2]} is damaged, too large or not {match[2].upper()}")
        return
    for number, record in enumerate(records, start=1):
        place = f"{channel_place}, message {number}"
        try:
            yield _row(place, record, member, match[1], label)
        except RowError as error:
            yield BadRow(place, str(error))


def _records(content: bytes, form: str) -> list[Any]:
    if form == "csv":
        return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    records = json.loads(content)
    if not isinstance(records, list):
        raise ValueError("not a list")
    return records


def _row(place: str, record: Any, member: str, channel: str, label: str | None) -> Row:
    if not isinstance(record, dict):
        raise RowError(f"must be an object in braces, not {kind_of(record)}")
    id_ = identifier(record.get("ID"), "ID")
    return Row(
        place=place,
        id=id_,
        member=member,
        channel=channel,
        sent_at=_sent_at(id_),
        text=message_text(record.get("Contents"), "Contents"),
        channel_label=label,
    )


def _sent_at(id_: str) -> datetime:
    if not (id_.isascii() and id_.isdecimal()):
        raise RowError("`ID` is no Discord message id")
    return unix_moment(((int(id_) >> 22) + DISCORD_EPOCH_MILLISECONDS) / 1000, "ID")


def _label(package: Package, messages_name: str) -> str | None:
    """A server channel's name; private chats are named after people and get none."""
    description = _json_or_none(package.get(f"{messages_name.rpartition('/')[0]}/channel.json", bytes))
    if not isinstance(description, dict) or "guild" not in description:
        return None
    try:
        return message_text(description.get("name"), "name")
    except RowError:
        return None


def _json_or_none(read: Callable[[], bytes]) -> Any:
    try:
        return json.loads(read())
    except (*_UNREADABLE, RecursionError):
        return None
