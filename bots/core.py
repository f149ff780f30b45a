"""What one bot (a platform and a voice) talks through: the same for every platform."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from bots.commands import Commands
from bots.conversation import Conversation
from bots.identity import Identity
from bots.limits import RateLimits
from bots.moderation import Moderation
from bots.notices import Notices
from bots.operations import Operations
from bots.operators import Operators
from inference.responder import Responder
from nocap.domain import ChannelKey, Clock, VoiceName
from nocap.settings import Settings
from storage.database import Database


class Connection:
    """Whether the platform hears the bot at the moment: `is_up`, which its bot sets, may be asked on any thread."""

    def __init__(self) -> None:
        self.is_up: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class BotCore:
    settings: Settings
    voice: VoiceName
    identity: Identity
    conversation: Conversation
    commands: Commands
    moderation: Moderation
    operations: Operations
    connection: Connection = field(default_factory=Connection)

    def notices(self, destination: ChannelKey) -> Notices:
        """The operators' news for one chat."""
        return Notices(self.conversation.database, self.conversation.clock, self.voice, destination)


def build_core(
    platform: str,
    voice: VoiceName,
    *,
    database: Database,
    responder: Responder,
    operators: Operators,
    settings: Settings,
    clock: Clock,
    limits: RateLimits | None = None,
    seed: int | None = None,
) -> BotCore:
    """A bot of `platform` that speaks in `voice`; any voice but the settings' first has chats of its own."""
    realm = "" if voice == settings.voice else voice
    conversation = Conversation(database, responder, settings, clock, voice=voice, limits=limits, seed=seed)
    memory = conversation.memory
    return BotCore(
        settings=settings,
        voice=voice,
        identity=Identity(database.keyring, platform, realm),
        conversation=conversation,
        commands=Commands(database, settings, clock, memory, voice),
        moderation=Moderation(database, settings, clock, memory, voice),
        operations=Operations(operators, voice),
    )
