"""Discord's messages and callers as the core knows them."""

from __future__ import annotations

import re
from datetime import datetime

import discord

from bots.callers import Caller
from bots.identity import Identity
from bots.memory import MESSAGE_CHARACTERS, Remembered
from bots.moderation import Target
from bots.records import Incoming
from nocap.domain import ChannelKey, MessageKey, Provenance

PLATFORM = "discord"
ANSWERED_TYPES = frozenset({discord.MessageType.default, discord.MessageType.reply})

AnyChannel = (
    discord.abc.GuildChannel
    | discord.Thread
    | discord.DMChannel
    | discord.GroupChannel
    | discord.PartialMessageable
    | discord.app_commands.AppCommandChannel
    | discord.app_commands.AppCommandThread
)


class Reader:
    """Reads for one bot, whose own user id is known once it has logged in."""

    def __init__(self, identity: Identity, operators: tuple[int, ...]) -> None:
        self.identity = identity
        self._operators = frozenset(operators)

    def place(self, channel: AnyChannel) -> tuple[ChannelKey, ChannelKey | None]:
        """The channel whose settings hold, and the thread in it.

        A private thread is a channel of its own: what is said there must not surface in its parent.
        """
        thread_type = getattr(channel, "type", None)
        parent_id = getattr(channel, "parent_id", None)
        is_thread = thread_type in (discord.ChannelType.public_thread, discord.ChannelType.news_thread)
        if is_thread and parent_id is not None:
            return self.identity.channel(parent_id), self.identity.channel(channel.id)
        return self.identity.channel(channel.id), None

    def target(self, channel: AnyChannel) -> Target:
        """The channel whose settings hold there: a public thread's is its parent."""
        return Target(self.place(channel)[0], self._label(channel) or "this chat")

    def _label(self, channel: AnyChannel) -> str | None:
        parent = getattr(channel, "parent", None)
        name = getattr(parent if self.place(channel)[1] and parent else channel, "name", None)
        return f"#{name}" if name else None

    def message_key(self, channel_id: int, message_id: int) -> MessageKey:
        return self.identity.message(channel_id, message_id)

    def incoming(self, message: discord.Message, me: discord.ClientUser) -> Incoming:
        channel, thread = self.place(message.channel)
        reference = message.reference
        quoted = self._quoted(reference.resolved, me) if reference else []
        return Incoming(
            platform=PLATFORM,
            channel=channel,
            member=self.identity.member(message.author.id),
            message_key=self.message_key(message.channel.id, message.id),
            text=text_of(message, me.id),
            sent_at=message.created_at,
            provenance=Provenance.DISCORD_MESSAGE,
            reply_to=self.message_key(reference.channel_id, reference.message_id)
            if reference and reference.message_id
            else None,
            thread=thread,
            quoted=quoted,
            label=self._label(message.channel),
        )

    def submitted(self, interaction: discord.Interaction, text: str, at: datetime) -> Incoming:
        """A text that a member handed in by a command."""
        assert interaction.channel is not None, "commands are used in a channel"
        channel, thread = self.place(interaction.channel)
        return Incoming(
            platform=PLATFORM,
            channel=channel,
            member=self.identity.member(interaction.user.id),
            message_key=self.message_key(interaction.channel.id, interaction.id),
            text=text,
            sent_at=at,
            provenance=Provenance.DISCORD_SUBMISSION,
            thread=thread,
            label=self._label(interaction.channel),
        )

    def about(self, interaction: discord.Interaction, message: discord.Message, text: str, at: datetime) -> Incoming:
        """What a member asks about somebody's message: that is read now and never written."""
        assert interaction.client.user is not None
        asked = self.submitted(interaction, text, at)
        return Incoming(
            platform=PLATFORM,
            channel=asked.channel,
            member=asked.member,
            message_key=asked.message_key,
            text=text,
            sent_at=at,
            provenance=Provenance.DISCORD_MESSAGE,
            reply_to=self.message_key(message.channel.id, message.id),
            thread=asked.thread,
            quoted=self._quoted(message, interaction.client.user),
            label=asked.label,
        )

    def caller(self, interaction: discord.Interaction, *, rules_own_chat: bool = False) -> Caller:
        """Who asks; a moderator by Manage Channels or Manage Server here.

        In a private chat nobody is one, but for what concerns that chat alone (`rules_own_chat`).
        """
        is_moderator = interaction.guild_id is not None and may_moderate(interaction.permissions)
        return Caller(
            platform=PLATFORM,
            member=self.identity.member(interaction.user.id),
            is_moderator=is_moderator or (rules_own_chat and interaction.guild_id is None),
            is_operator=interaction.user.id in self._operators,
        )

    def _quoted(self, said: object, me: discord.ClientUser) -> list[Remembered]:
        if not isinstance(said, discord.Message) or not (text := text_of(said, me.id)):
            return []
        is_ours = said.author.id == me.id
        return [
            Remembered(
                role="assistant" if is_ours else "user",
                text=text[:MESSAGE_CHARACTERS],
                member=self.identity.member(said.author.id),
                key=self.message_key(said.channel.id, said.id),
                provenance=Provenance.DISCORD_MESSAGE,
                stored=False,
            )
        ]


def may_moderate(permissions: discord.Permissions) -> bool:
    return permissions.administrator or permissions.manage_channels or permissions.manage_guild


def text_of(message: discord.Message, own_id: int) -> str:
    """What was said, without the mention of the bot and with names for other mentions."""
    without = re.sub(rf"<@!?{own_id}>", "", message.content)
    if without == message.content and not message.mentions and "<" not in without:
        return without.strip()
    names = {user.id: user.display_name for user in message.mentions}
    named = re.sub(r"<@!?(\d+)>", lambda found: f"@{names.get(int(found[1]), 'someone')}", without)
    named = re.sub(r"<@&\d+>", "@role", named)
    named = re.sub(r"<#\d+>", "#channel", named)
    return re.sub(r"<a?(:\w+:)\d+>", r"\1", named).strip()


def is_addressed(message: discord.Message, me: discord.ClientUser) -> bool:
    """Whether the message is for the bot: private, mentioning it by name, or replying to it."""
    if message.guild is None or any(user.id == me.id for user in message.mentions):
        return True
    if f"<@{me.id}>" in message.content:  # a server that does not list whom a message mentions
        return True
    resolved = message.reference.resolved if message.reference else None
    return isinstance(resolved, discord.Message) and resolved.author.id == me.id


def has_attachment(message: discord.Message) -> bool:
    return bool(message.attachments or message.stickers)


def is_from_a_person(message: discord.Message) -> bool:
    return not message.author.bot and message.webhook_id is None and message.type in ANSWERED_TYPES
