"""What a message, a command and a press are each dealt with by."""

from __future__ import annotations

from dataclasses import dataclass

from telegram import User

from bots.core import BotCore
from bots.telegram.answers import Answers
from bots.telegram.chats import Chats
from bots.telegram.outbox import Outbox


@dataclass
class Face:
    """One bot's; `me` is the bot itself."""

    core: BotCore
    chats: Chats
    answers: Answers
    outbox: Outbox
    me: User

    def __post_init__(self) -> None:
        """What one of them keeps besides."""
