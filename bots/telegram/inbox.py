"""Messages that reach the bot, and what it does about each: once, however often Telegram delivers it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from contextlib import suppress
from datetime import timedelta

from telegram import Message, MessageReactionUpdated, ReactionTypeEmoji

from bots.records import Incoming
from bots.telegram import keyboards, sentences
from bots.telegram.addressing import PRIVATE, Address, Addressed, is_members_own, read_message
from bots.telegram.chats import place_of
from bots.telegram.face import Face
from bots.telegram.outbox import Place
from nocap.domain import ChannelMode, Vote
from nocap.errors import NocapError

REMEMBERED = 5_000
RECENT = timedelta(minutes=2)
"""Younger messages than this at the start cannot have been answered by an earlier process."""


class Seen:
    """The last things that were met; `is_new` is true once for each."""

    def __init__(self, size: int = REMEMBERED) -> None:
        self._size = size
        self._met: OrderedDict[Hashable, None] = OrderedDict()

    def is_new(self, thing: Hashable) -> bool:
        if thing in self._met:
            return False
        self._met[thing] = None
        if len(self._met) > self._size:
            self._met.popitem(last=False)
        return True


class Inbox(Face):
    """Answers what is for the bot, and hands on what is merely said where it listens."""

    def __post_init__(self) -> None:
        self._seen = Seen()
        self._asked = Seen()
        self._started_at = self.core.conversation.clock()

    def is_new(self, update_id: int) -> bool:
        return self._seen.is_new(update_id)

    async def message(self, message: Message, said: Addressed) -> None:
        """A message that is no command."""
        if said.address is Address.OVERHEARD and not await self._is_answered_too(message, said):
            return
        incoming = self.chats.incoming(message, said.text, is_for_bot=said.address is not Address.OVERHEARD)
        if await self._was_answered(message, incoming):
            return
        if message.media_group_id and not self._seen.is_new((message.chat.id, message.media_group_id)):
            return  # the other pictures of an album
        await self.answers.answer(incoming, place_of(message))
        await self._ask_consent(message, incoming)

    async def edited(self, message: Message) -> None:
        """What is stored follows the author's new wording."""
        if is_members_own(message) and (said := read_message(message, self.me)) is not None:
            key = self.core.identity.message(message.chat.id, message.message_id)
            await self.core.conversation.edited(key, said.text)

    async def reaction(self, update: MessageReactionUpdated) -> None:
        """A reaction to an answer is a vote, as its button is; taking it off takes the vote back."""
        if update.user is None or update.user.is_bot:
            return
        before, after = _vote_of(update.old_reaction), _vote_of(update.new_reaction)
        if before == after:
            return
        key = self.core.identity.message(update.chat.id, update.message_id)
        reply_id = await self.core.conversation.reply_of(key)
        if reply_id is None:
            return
        conversation, member = self.core.conversation, self.chats.member(update.user)
        with suppress(NocapError):  # gone, or faster than anybody means it: a reaction has nowhere to say so
            if after is not None:
                await conversation.vote(reply_id, member, after)
            elif before is not None:
                await conversation.withdraw_vote(reply_id, member, before)

    async def _is_answered_too(self, message: Message, said: Addressed) -> bool:
        """Whether the chat has everything answered; if not, the message is kept where it may be."""
        if said.is_wordless:
            return False
        listening = await self.core.conversation.listening(self.chats.channel(message.chat.id))
        if listening.mode is not ChannelMode.ALWAYS and listening.collects:
            await self.core.conversation.overheard(self.chats.incoming(message, said.text, is_for_bot=False))
        return listening.mode is ChannelMode.ALWAYS

    async def _was_answered(self, message: Message, incoming: Incoming) -> bool:
        """Telegram delivers again what an earlier process got but had not confirmed when it ended."""
        if message.date > self._started_at + RECENT:
            return False
        return await self.core.conversation.is_answered(incoming.message_key)

    async def _ask_consent(self, message: Message, incoming: Incoming) -> None:
        """Once a member and chat, in private, and only whom Telegram lets us write to."""
        if message.chat.type == PRIVATE or message.from_user is None or message.from_user.is_bot:
            return
        if not self._asked.is_new((incoming.member, incoming.channel)):
            return
        asked = await self.core.commands.ask_consent(incoming.member, incoming.channel)
        if asked is not None:
            text = sentences.consent_in(message.chat.title, asked)
            place = Place(message.from_user.id, is_private=True)
            state = await self.core.commands.consent_state(incoming.member, incoming.channel)
            buttons = keyboards.consent(incoming.channel, state, self.core.commands.minimum_age)
            await self.outbox.send(place, text, markup=buttons)


def _vote_of(reactions: tuple[object, ...]) -> Vote | None:
    votes = [keyboards.REACTIONS.get(one.emoji) for one in reactions if isinstance(one, ReactionTypeEmoji)]
    return next((vote for vote in votes if vote is not None), None)
