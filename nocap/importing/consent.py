"""The consent side file: what the authors of an imported file agreed to, as the operator states it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import func, insert, tuple_
from sqlmodel import Session, col, select

from nocap.domain import ChannelKey, MemberKey, Purpose
from nocap.errors import InputError
from nocap.importing.jsonl import json_lines
from nocap.importing.rows import BadRow, RowError, identifier, iso_moment, kind_of
from storage.tables import ConsentEvent

EVERY_CHANNEL = "*"


@dataclass(frozen=True, slots=True)
class Statement:
    """One line of the side file, in the file's own ids."""

    member: str
    channel: str
    """A channel of the imported file, or `*` for all of them."""
    purposes: tuple[Purpose, ...]
    granted: bool
    policy_version: str | None
    """None means the present one."""
    at: datetime | None
    """None yields to whatever the ledger already says."""


@dataclass(frozen=True, slots=True)
class Author:
    """A member in a channel, in the file's ids and in ours."""

    member: str
    channel: str
    member_key: MemberKey
    channel_key: ChannelKey


def read_statements(path: Path) -> list[Statement]:
    """The lines of a side file. Raises InputError at the first bad one: consent is never guessed."""
    statements = []
    for number, record in json_lines(path):
        try:
            if isinstance(record, BadRow):
                raise RowError(record.reason)
            statements.append(_statement(record))
        except RowError as error:
            raise InputError(f"Nothing was imported: {path}, line {number}: {error}. Mend that line.") from error
    return statements


class ConsentLedger:
    """Writes statements into the ledger for the authors that a file turns out to have."""

    def __init__(self, statements: Sequence[Statement], policy_version: str, at: datetime) -> None:
        self._by_member: dict[str, list[Statement]] = defaultdict(list)
        for statement in statements:
            self._by_member[statement.member].append(statement)
        self._policy_version = policy_version
        self._at = at

    def record(self, session: Session, authors: Collection[Author]) -> None:
        """Appends what the statements say about these authors and the ledger does not know better.

        A statement counts only if it is later than the ledger's last line for the same purpose; one without a
        date only if there is no such line. So importing a file again never takes back a member's later no.
        """
        concerned = [author for author in authors if author.member in self._by_member]
        if not concerned:
            return
        last_moments = _last_moments(session, concerned)
        lines = [line for author in concerned for line in self._new_lines(author, last_moments)]
        if lines:
            session.connection().execute(insert(ConsentEvent), lines)

    def _new_lines(
        self, author: Author, last_moments: dict[tuple[str, str, str], datetime]
    ) -> Iterator[dict[str, Any]]:
        for statement in self._by_member[author.member]:
            if statement.channel not in (EVERY_CHANNEL, author.channel):
                continue
            for purpose in statement.purposes:
                place = (author.member_key, author.channel_key, purpose)
                last = last_moments.get(place)
                if last is not None and (statement.at is None or statement.at <= last):
                    continue
                last_moments[place] = statement.at or self._at
                yield {
                    "member": author.member_key,
                    "channel": author.channel_key,
                    "purpose": purpose,
                    "granted": statement.granted,
                    "policy_version": statement.policy_version or self._policy_version,
                    "at": last_moments[place],
                }


def _last_moments(session: Session, authors: Sequence[Author]) -> dict[tuple[str, str, str], datetime]:
    """When the ledger last heard about each (member, channel, purpose)."""
    pairs = sorted({(author.member_key, author.channel_key) for author in authors})
    last = (
        select(func.max(ConsentEvent.id))
        .where(tuple_(col(ConsentEvent.member), col(ConsentEvent.channel)).in_(pairs))
        .group_by(col(ConsentEvent.member), col(ConsentEvent.channel), col(ConsentEvent.purpose))
    )
    lines = session.exec(select(ConsentEvent).where(col(ConsentEvent.id).in_(last)))
    return {(line.member, line.channel, line.purpose): line.at for line in lines}


def _statement(record: dict[str, Any]) -> Statement:
    granted = record.get("granted")
    if not isinstance(granted, bool):
        raise RowError(f"`granted` must be true or false, not {kind_of(granted)}")
    policy_version = record.get("policy_version")
    at = record.get("at")
    return Statement(
        member=identifier(record.get("member"), "member"),
        channel=identifier(record.get("channel"), "channel"),
        purposes=_purposes(record.get("purposes")),
        granted=granted,
        policy_version=None if policy_version is None else identifier(policy_version, "policy_version"),
        at=None if at is None else iso_moment(at, "at"),
    )


def _purposes(value: object) -> tuple[Purpose, ...]:
    if not isinstance(value, list) or not value or not all(purpose in list(Purpose) for purpose in value):
        raise RowError(f"`purposes` must be a list of {', '.join(Purpose)}")
    return tuple(Purpose(purpose) for purpose in dict.fromkeys(value))
