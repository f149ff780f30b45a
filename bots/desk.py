"""What the commands of members and of moderators are answered from."""

from __future__ import annotations

from sqlmodel import Session

from bots.memory import ContextMemory
from nocap.domain import ChannelKey, Clock, VoiceName
from nocap.settings import Settings
from storage.channels import get_channel
from storage.database import Database


class Desk:
    """One bot's. `memory` is the conversation's, so that forgetting reaches it."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        clock: Clock,
        memory: ContextMemory,
        voice: VoiceName | None = None,
    ) -> None:
        self._database = database
        self._settings = settings
        self._clock = clock
        self._memory = memory
        self._voice = voice or VoiceName(settings.voice)

    def _voice_of(self, session: Session, channel: ChannelKey) -> VoiceName:
        """The channel's, or the bot's own where nobody has spoken yet."""
        row = get_channel(session, channel)
        return VoiceName(row.voice) if row else self._voice
