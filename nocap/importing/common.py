"""Writing an imported file into the database, once and only where its authors agreed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Literal

from sqlmodel import Session

from nocap.domain import ChannelKey, MemberKey, MessageKey, VoiceName
from nocap.errors import InputError
from nocap.importing import discord, jsonl, telegram
from nocap.importing.consent import Author, ConsentLedger, Statement, read_statements
from nocap.importing.rows import BadRow, Row
from storage.channels import ensure_channel
from storage.database import Database
from storage.messages import IngestReport, NewMessage, ingest

ImportFormat = Literal["jsonl", "telegram", "discord"]
OnError = Literal["skip", "stop"]

PARSERS: Mapping[ImportFormat, Callable[[Path], Iterator[Row | BadRow]]] = {
    "jsonl": jsonl.parse,
    "telegram": telegram.parse,
    "discord": discord.parse,
}
# A member of Telegram or Discord is the same person here and at the bot, so that one `forget` reaches both;
# a channel is not, so that consent to an import never turns on the logging of a living chat.
MEMBER_PLATFORMS: Mapping[ImportFormat, str] = {"jsonl": "import:jsonl", "telegram": "telegram", "discord": "discord"}

CHUNK_ROWS = 2000
"""Rows of one transaction when bad rows are skipped."""
MAX_REPORTED = 1000
"""Bad rows that the report names; the others are counted."""
MAX_CLOCK_ERROR = timedelta(days=1)


@dataclass(slots=True)
class ImportReport:
    """What became of each row of the file; the counts and `bad_rows` add up to `rows`."""

    rows: int = 0
    added: int = 0
    duplicates: int = 0
    not_consented: int = 0
    not_collecting: int = 0
    tombstoned: int = 0
    """Erased before, or said by a member before they asked to be forgotten."""
    empty: int = 0
    doubtful: int = 0
    """Perhaps with a name that the scrub left: `privacy.drop_on_doubt`."""
    bad_rows: int = 0
    bad: list[BadRow] = field(default_factory=list)
    """Place and reason of the first bad rows, at most MAX_REPORTED."""

    def count(self, ingested: IngestReport) -> None:
        for name in ingested.__slots__:
            setattr(self, name, getattr(self, name) + getattr(ingested, name))

    def note_bad(self, row: BadRow) -> None:
        self.bad_rows += 1
        if len(self.bad) < MAX_REPORTED:
            self.bad.append(row)


def import_file(
    database: Database,
    path: Path,
    format: ImportFormat,
    *,
    policy_version: str,
    voice: VoiceName,
    on_error: OnError = "skip",
    consent_file: Path | None = None,
    at: datetime,
    drop_on_doubt: bool = False,
    progress: Callable[[int], None] | None = None,
) -> ImportReport:
    """What became of the file's rows, all of which are then stored, known already, or refused for a reason.

    Rows of members for whom `consent_file` (and no earlier ledger line) grants storing are not stored. With
    `on_error="skip"` bad rows are reported and the rest is written in transactions of CHUNK_ROWS; with "stop" the
    whole file is one transaction and the first bad row raises InputError, nothing written. `progress` is called
    with the number of rows read so far. Raises InputError for an unusable file or side file.
    """
    if format not in PARSERS:
        raise InputError(f"There is no import format {format}; use one of {', '.join(PARSERS)}.")
    ledger = ConsentLedger(_statements(consent_file, format), policy_version, at)
    writer = _Writer(database, format, path.name, voice, policy_version, at, ledger, drop_on_doubt)
    rows = _refusing_future(PARSERS[format](path), latest=at + MAX_CLOCK_ERROR)
    report = ImportReport()
    if on_error == "skip":
        for chunk in _chunks(rows):
            with database.write() as session:
                writer.write(session, chunk, report)
            _tell(progress, report)
        return report
    with database.write() as session:
        for chunk in _chunks(_stopping_at_bad(rows, path)):
            writer.write(session, chunk, report)
            _tell(progress, report)
    return report


def _statements(consent_file: Path | None, format: ImportFormat) -> list[Statement]:
    statements = read_statements(consent_file) if consent_file else []
    if format != "telegram":
        return statements
    return [replace(statement, member=telegram.member_id(statement.member)) for statement in statements]


class _Writer:
    """Turns rows into stored messages: channels first, then consent, then the messages."""

    def __init__(
        self,
        database: Database,
        format: ImportFormat,
        file_name: str,
        voice: VoiceName,
        policy_version: str,
        at: datetime,
        ledger: ConsentLedger,
        drop_on_doubt: bool,
    ) -> None:
        self._keyring = database.keyring
        self._platform = f"import:{format}"
        self._member_platform = MEMBER_PLATFORMS[format]
        self._file_name = file_name
        self._voice = voice
        self._policy_version = policy_version
        self._at = at
        self._ledger = ledger
        self._drop_on_doubt = drop_on_doubt
        self._known_authors: set[tuple[str, str]] = set()
        self._known_channels: set[str] = set()
        self._member_key = lru_cache(maxsize=100_000)(self._make_member_key)
        self._channel_key = lru_cache(maxsize=10_000)(self._make_channel_key)

    def write(self, session: Session, chunk: Sequence[Row | BadRow], report: ImportReport) -> None:
        rows = [row for row in chunk if isinstance(row, Row)]
        self._ensure_channels(session, rows)
        self._record_consent(session, rows)
        messages = [self._message(row) for row in rows]
        ingested = ingest(
            session,
            messages,
            policy_version=self._policy_version,
            at=self._at,
            drop_on_doubt=self._drop_on_doubt,
        )
        report.count(ingested)
        report.rows += len(chunk)
        for row in chunk:
            if isinstance(row, BadRow):
                report.note_bad(row)

    def _ensure_channels(self, session: Session, rows: Iterable[Row]) -> None:
        for row in rows:
            if row.channel not in self._known_channels:
                self._known_channels.add(row.channel)
                ensure_channel(
                    session,
                    self._channel_key(row.channel),
                    platform=self._platform,
                    label=row.channel_label or self._file_name,
                    voice=self._voice,
                    at=self._at,
                    collect=True,
                )

    def _record_consent(self, session: Session, rows: Iterable[Row]) -> None:
        pairs = {(row.member, row.channel) for row in rows} - self._known_authors
        self._known_authors |= pairs
        self._ledger.record(
            session,
            [
                Author(member, channel, self._member_key(member), self._channel_key(channel))
                for member, channel in sorted(pairs)
            ],
        )

    def _message(self, row: Row) -> NewMessage:
        return NewMessage(
            key=self._message_key(row.channel, row.id),
            channel=self._channel_key(row.channel),
            member=self._member_key(row.member),
            provenance=row.provenance,
            sent_at=row.sent_at,
            text=row.text,
            reply_to=None if row.reply_to is None else self._message_key(row.channel, row.reply_to),
        )

    def _make_member_key(self, member: str) -> MemberKey:
        return MemberKey(self._keyring.pseudonym("member", self._member_platform, member))

    def _make_channel_key(self, channel: str) -> ChannelKey:
        return ChannelKey(self._keyring.pseudonym("channel", self._platform, channel))

    def _message_key(self, channel: str, id_: str) -> MessageKey:
        return MessageKey(self._keyring.pseudonym("message", self._platform, f"{len(channel)}:{channel}:{id_}"))


def _refusing_future(rows: Iterable[Row | BadRow], latest: datetime) -> Iterator[Row | BadRow]:
    for row in rows:
        if isinstance(row, Row) and row.sent_at > latest:
            yield BadRow(row.place, "lies in the future; check the date or this machine's clock")
        else:
            yield row


def _stopping_at_bad(rows: Iterable[Row | BadRow], path: Path) -> Iterator[Row | BadRow]:
    for row in rows:
        if isinstance(row, BadRow):
            raise InputError(
                f"Nothing was imported: {path}, {row.place}: {row.reason}. Mend it, or skip bad rows with"
                " --on-error skip."
            )
        yield row


def _chunks(rows: Iterable[Row | BadRow]) -> Iterator[list[Row | BadRow]]:
    iterator = iter(rows)
    while chunk := list(islice(iterator, CHUNK_ROWS)):
        yield chunk


def _tell(progress: Callable[[int], None] | None, report: ImportReport) -> None:
    if progress is not None:
        progress(report.rows)
