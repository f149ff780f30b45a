"""What is live for a voice, as every request of every process sees it."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy
import structlog
from sqlmodel import col

from nocap.domain import VoiceName
from nocap.errors import StorageError
from storage.database import Database
from storage.registry import no_voice
from storage.tables import Deployment

log = structlog.get_logger(__name__)

# Built once: every turn of the chat asks.
_POINTER = sqlalchemy.select(
    col(Deployment.current),
    col(Deployment.previous),
    col(Deployment.canary),
    col(Deployment.canary_share),
    col(Deployment.revision),
).where(col(Deployment.voice) == sqlalchemy.bindparam("voice"))


@dataclass(frozen=True, slots=True)
class LivePointer:
    """A row of `storage.tables.Deployment` as it was read."""

    current: str
    previous: str | None
    canary: str | None
    canary_share: float
    revision: int


class LivePointers:
    """Reads the pointer anew for every request, so that a promotion is seen by the next one of every process.

    While the database is away, the last row that was read goes on: nobody can promote or roll back meanwhile.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._last: dict[VoiceName, LivePointer] = {}

    def read(self, voice: VoiceName) -> LivePointer:
        """Raises InputError for an unknown voice, StorageError where it was never read and cannot be."""
        try:
            with self._database.read() as session:
                found = session.connection().execute(_POINTER, {"voice": voice}).first()
            if found is None:
                raise no_voice(voice)
        except StorageError as error:
            if voice not in self._last:
                raise
            log.warning("pointer from memory", voice=voice, reason=str(error))
            return self._last[voice]
        self._last[voice] = LivePointer(*found)
        return self._last[voice]
