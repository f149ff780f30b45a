"""What is live for a voice, as every request of every process sees it."""

from __future__ import annotations

import structlog

from nocap.domain import VoiceName
from nocap.errors import StorageError
from storage import registry
from storage.database import Database
from storage.tables import Deployment

log = structlog.get_logger(__name__)


class LivePointers:
    """Reads the pointer anew for every request, so that a promotion is seen by the next one of every process.

    While the database is away, the last row that was read goes on: nobody can promote or roll back meanwhile.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._last: dict[VoiceName, Deployment] = {}

    def read(self, voice: VoiceName) -> Deployment:
        """Raises InputError for an unknown voice, StorageError where it was never read and cannot be."""
        try:
            with self._database.read() as session:
                row = registry.deployment(session, voice)
        except StorageError as error:
            if voice not in self._last:
                raise
            log.warning("pointer from memory", voice=voice, reason=str(error))
            return self._last[voice]
        self._last[voice] = row
        return row
