"""Votes that the database could not take are kept on this machine's disk and written to it later.

One small SQLite file beside the data, shared by the machine's processes. It holds pseudonyms, never a text. A vote
says what a member thinks now, so writing one twice is writing it once: nothing is doubled by a kill between the two
commits. Votes keep their order: while any wait, a new one queues behind them.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import structlog

from nocap.domain import DuelChoice, MemberKey, Vote
from nocap.errors import InputError, StorageError
from storage.database import Database
from storage.feedback import cast_duel_vote, cast_vote

BATCH_ROWS = 500
BUSY_TIMEOUT_SECONDS = 60
FILE = "outbox.db"

log = structlog.get_logger(__name__)


class VoteOutbox:
    """Casts votes into the database, or keeps them until it answers; safe to share between threads."""

    def __init__(self, database: Database, folder: Path) -> None:
        self._database = database
        self._file = folder / FILE
        self._flushing = threading.Lock()

    def cast(self, reply_id: int, member: MemberKey, vote: Vote | None, at: datetime) -> bool:
        """Whether the vote is in the database now; else it waits. Raises InputError for an unknown reply."""
        if not self.waiting():
            try:
                with self._database.write() as session:
                    cast_vote(session, reply_id, member, vote, at)
                return True
            except StorageError as error:
                log.warning("vote kept for later", reason=str(error))
        self._keep("reply", reply_id, member, vote, at)
        return self.flush()

    def cast_in_duel(self, duel_id: int, member: MemberKey, choice: DuelChoice, at: datetime) -> bool:
        """Whether the vote is in the database now; else it waits. Raises InputError for an unknown duel."""
        if not self.waiting():
            try:
                with self._database.write() as session:
                    cast_duel_vote(session, duel_id, member, choice, at)
                return True
            except StorageError as error:
                log.warning("vote kept for later", reason=str(error))
        self._keep("duel", duel_id, member, choice, at)
        return self.flush()

    def waiting(self) -> int:
        """How many votes wait."""
        if not self._file.exists():
            return 0
        with self._opened() as connection:
            return int(connection.execute("SELECT count(*) FROM vote").fetchone()[0])

    def flush(self) -> bool:
        """Writes what waits, oldest first; whether nothing waits any more. Never raises for a database that is away."""
        with self._flushing:
            try:
                while self.waiting():
                    self._write_batch()
            except StorageError:
                return False
        return True

    def _write_batch(self) -> None:
        """The outbox stays locked meanwhile, so that no other process writes the same votes after newer ones."""
        with self._opened() as connection:
            connection.execute("BEGIN IMMEDIATE")
            rows = connection.execute("SELECT * FROM vote ORDER BY id LIMIT ?", (BATCH_ROWS,)).fetchall()
            for row in rows:
                self._write(*row[1:])
            if rows:
                connection.execute("DELETE FROM vote WHERE id <= ?", (rows[-1][0],))
                log.info("votes written that had waited", votes=len(rows))
            connection.execute("COMMIT")

    def _write(self, kind: str, target: int, member: str, choice: str | None, at: str) -> None:
        """A vote cast meanwhile, by another process, is newer and stays."""
        moment, by = datetime.fromisoformat(at), MemberKey(member)
        try:
            with self._database.write() as session:
                if kind == "duel":
                    cast_duel_vote(session, target, by, DuelChoice(str(choice)), moment, only_if_newer=True)
                else:
                    vote = None if choice is None else Vote(choice)
                    cast_vote(session, target, by, vote, moment, only_if_newer=True)
        except InputError:
            log.warning("vote dropped: what it was about was erased meanwhile", kind=kind, target=target)

    def _keep(self, kind: str, target: int, member: str, choice: str | None, at: datetime) -> None:
        row = (kind, target, member, choice, at.isoformat())
        with self._opened() as connection:
            connection.execute("INSERT INTO vote (kind, target, member, choice, at) VALUES (?, ?, ?, ?, ?)", row)

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own; each statement outside a transaction is on the disk when it returns."""
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.touch(mode=0o600)
            connection = sqlite3.connect(self._file, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None)
            try:
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS vote (id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL,"
                    " target INTEGER NOT NULL, member TEXT NOT NULL, choice TEXT, at TEXT NOT NULL)"
                )
                yield connection
            finally:
                connection.close()
        except (sqlite3.Error, OSError) as error:
            raise StorageError(f"The votes waiting in {self._file} cannot be read or kept: {error}.") from error
