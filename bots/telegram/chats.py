"""What the bot knows of chats and people: which channel a chat is, whom it serves, who moderates it."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from typing import Literal

from telegram import Bot, Chat, ChatMember, Message, User

from bots.callers import Caller
from bots.core import BotCore
from bots.memory import Remembered
from bots.records import Incoming
from bots.telegram.addressing import GROUPS, PRIVATE, is_anonymous_administrator
from bots.telegram.outbox import Place
from bots.telegram.requests import if_possible
from nocap.domain import ChannelKey, MemberKey, Provenance
from storage.channels import get_channel, move_channel, moved_channels

RIGHTS_SECONDS = 60.0
"""How long an administrator's rights are remembered: a demoted one loses them after that at the latest."""
REMEMBERED_RIGHTS = 5_000
_ADMINISTRATORS = (ChatMember.OWNER, ChatMember.ADMINISTRATOR)


class Chats:
    """The chats of one bot. `load` first."""

    def __init__(self, bot: Bot, core: BotCore) -> None:
        self._bot = bot
        self._core = core
        self._settings = core.settings.telegram
        self._moved: dict[ChannelKey, ChannelKey] = {}
        self._rights: OrderedDict[tuple[int, int], tuple[float, bool]] = OrderedDict()

    async def load(self) -> None:
        self._moved = await asyncio.to_thread(self._read_moved)

    def channel(self, chat_id: int) -> ChannelKey:
        """The chat's channel, which outlives its becoming a supergroup."""
        key = self._core.identity.channel(chat_id)
        return self._moved.get(key, key)

    def member(self, user: User) -> MemberKey:
        return self._core.identity.member(user.id)

    async def migrated(self, old_id: int, new_id: int) -> None:
        """The group `old_id` goes on as the supergroup `new_id`, with its settings and consents."""
        old, new = self._core.identity.channel(old_id), self._core.identity.channel(new_id)
        if new not in self._moved:
            await asyncio.to_thread(self._write_move, old, new)
            await self.load()

    def serves(self, chat: Chat) -> bool:
        """Private chats and groups, of which the settings may name the only ones; never channels."""
        if chat.type == PRIVATE:
            return True
        allowed = self._settings.chats
        return chat.type in GROUPS and (
            not allowed or self.channel(chat.id) in {self.channel(chat_id) for chat_id in allowed}
        )

    async def caller(self, user: User, chat: Chat) -> Caller:
        """Who asks, with their rights in this chat."""
        return Caller(
            platform=self._core.identity.platform,
            member=self.member(user),
            is_moderator=chat.type != PRIVATE and await self._is_administrator(chat.id, user.id),
            is_operator=user.id in self._settings.operators,
        )

    async def author(self, message: Message) -> Caller:
        """The author of a message as a caller; Telegram vouches for an anonymous administrator."""
        assert message.from_user is not None, "read_message lets nothing else through"
        if is_anonymous_administrator(message):
            return Caller(self._core.identity.platform, self.member(message.from_user), is_moderator=True)
        return await self.caller(message.from_user, message.chat)

    async def label(self, channel: ChannelKey) -> str | None:
        """The channel's name as it was last known."""
        return await asyncio.to_thread(self._read_label, channel)

    async def _is_administrator(self, chat_id: int, user_id: int) -> bool:
        now = time.monotonic()
        known = self._rights.get((chat_id, user_id))
        if known is not None and now - known[0] < RIGHTS_SECONDS:
            return known[1]
        member = await if_possible(self._bot.get_chat_member(chat_id, user_id), "chat member")
        holds = member is not None and member.status in _ADMINISTRATORS
        self._rights[chat_id, user_id] = (now, holds)
        self._rights.move_to_end((chat_id, user_id))
        if len(self._rights) > REMEMBERED_RIGHTS:
            self._rights.popitem(last=False)
        return holds

    def incoming(self, message: Message, text: str, *, is_for_bot: bool) -> Incoming:
        """The message as the conversation takes it: pseudonyms only."""
        assert message.from_user is not None, "read_message lets nothing else through"
        identity, chat = self._core.identity, message.chat
        original = message.reply_to_message
        is_reply = original is not None and original.forum_topic_created is None
        return Incoming(
            platform=identity.platform,
            channel=self.channel(chat.id),
            member=self.member(message.from_user),
            message_key=identity.message(chat.id, message.message_id),
            text=text,
            sent_at=message.date,
            provenance=Provenance.TELEGRAM_SUBMISSION if is_for_bot else Provenance.TELEGRAM_MESSAGE,
            reply_to=identity.message(chat.id, original.message_id) if original and is_reply else None,
            thread=self._thread(message),
            quoted=self._quoted(message) if is_reply else (),
            label=chat.title,
        )

    def _thread(self, message: Message) -> ChannelKey | None:
        if not message.is_topic_message or message.message_thread_id is None:
            return None
        return self._core.identity.channel(f"{message.chat.id}/{message.message_thread_id}")

    def _quoted(self, message: Message) -> tuple[Remembered, ...]:
        """What the message replies to, as Telegram hands it over: context for this turn, never written."""
        original = message.reply_to_message
        words = (message.quote.text if message.quote else None) or (original and (original.text or original.caption))
        if original is None or original.from_user is None or not words:
            return ()
        role: Literal["user", "assistant"] = "assistant" if original.from_user.id == self._bot.id else "user"
        key = self._core.identity.message(message.chat.id, original.message_id)
        member = self.member(original.from_user)
        return (Remembered(role, words, member, key, Provenance.TELEGRAM_MESSAGE, stored=False),)

    def _read_moved(self) -> dict[ChannelKey, ChannelKey]:
        with self._core.conversation.database.read() as session:
            return moved_channels(session)

    def _write_move(self, old: ChannelKey, new: ChannelKey) -> None:
        with self._core.conversation.database.write() as session:
            move_channel(session, old, new, self._core.conversation.clock())

    def _read_label(self, channel: ChannelKey) -> str | None:
        with self._core.conversation.database.read() as session:
            row = get_channel(session, channel)
            return row.label if row else None


def place_of(message: Message) -> Place:
    """Where an answer to the message goes: the same topic, as a reply."""
    thread = message.message_thread_id if message.is_topic_message else None
    return Place(message.chat.id, thread, message.chat.type == PRIVATE, message.message_id)
