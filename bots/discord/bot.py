"""One Discord bot: its gateway events become turns, votes, edits and deletions of the core."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

import discord
import structlog

from bots import messages
from bots.callers import Caller
from bots.core import BotCore
from bots.discord.buttons import ALL_BUTTONS, VOTE_FACES, retry_view, vote_view
from bots.discord.member_commands import add_member_commands
from bots.discord.reading import (
    Reader,
    has_attachment,
    is_addressed,
    is_from_a_person,
    may_moderate,
    text_of,
)
from bots.discord.servers import accept_quiet_callbacks, application_of, lead_gateway, read_leniently
from bots.discord.showing import (
    LIMIT_CHARACTERS,
    NO_MENTIONS,
    Display,
    answering,
    log_refused,
    persistently,
    typing,
)
from bots.discord.staff_commands import add_staff_commands
from bots.discord.tree import CommandTree
from bots.incidents import report_incident
from bots.moderation import Target
from bots.pacing import snapshots
from bots.records import Incoming
from bots.splitting import split
from bots.turn import Outcome, Turn
from nocap.domain import ChannelKey, ChannelMode, Vote
from nocap.errors import ConfigurationError, InputError, NotPermitted
from nocap.settings import DiscordSettings

REMEMBERED_MESSAGES = 10_000
"""Ids of messages seen last: what the gateway sends again after a resume is not answered again."""
CLOSING_SECONDS = 5.0
REACTION_VOTES: Mapping[str, Vote] = {face: vote for vote, face in VOTE_FACES.items()}


class NocapClient(discord.AutoShardedClient):
    """Keeps no cache of messages and members, so its memory does not grow with the talk."""

    def __init__(self, core: BotCore) -> None:
        self.core = core
        self.section: DiscordSettings = core.settings.discord
        options: dict[str, Any] = {"shard_ids": list(self.section.shard_ids)} if self.section.shard_ids else {}
        super().__init__(
            intents=_intents(self.section),
            allowed_mentions=NO_MENTIONS,
            max_messages=None,
            chunk_guilds_at_startup=False,
            member_cache_flags=discord.MemberCacheFlags.none(),
            shard_count=self.section.shards,
            **options,
        )
        self.reader = Reader(core.identity, self.section.operators)
        self.tree = CommandTree(self)
        self._seen: OrderedDict[int, None] = OrderedDict()
        self._answering: dict[int, tuple[asyncio.Task[None], Display]] = {}
        self._beside: list[asyncio.Task[None]] = []
        self._log = structlog.get_logger("bots.discord").bind(voice=core.voice)

    async def setup_hook(self) -> None:
        lead_gateway(self, self.section.gateway_url)
        read_leniently(self)
        accept_quiet_callbacks()
        add_member_commands(self)
        add_staff_commands(self)
        self.add_dynamic_items(*ALL_BUTTONS)
        if not self.is_first_process:
            return
        self._beside.append(asyncio.create_task(self._sync_commands()))
        if self.section.notice_channel is not None:
            self._beside.append(asyncio.create_task(self._announce(self.section.notice_channel)))

    async def application_info(self) -> discord.AppInfo:
        return await application_of(self)

    @property
    def is_first_process(self) -> bool:
        return not self.section.shard_ids or 0 in self.section.shard_ids

    async def close(self) -> None:
        """Lets answers that are being given end, for a while."""
        for task in self._beside:
            task.cancel()
        if tasks := [task for task, _ in self._answering.values()]:
            _, late = await asyncio.wait(tasks, timeout=CLOSING_SECONDS)
            for task in late:
                task.cancel()
        await super().close()

    def is_heard(self) -> bool:
        """Whether every shard of this process has its gateway connection."""
        return self.is_ready() and not any(shard.is_closed() for shard in self.shards.values())

    async def on_ready(self) -> None:
        self._log.info("ready", user=str(self.user), servers=len(self.guilds), shards=self.shard_count)

    async def on_error(self, event_method: str, /, *args: Any, **kwargs: Any) -> None:
        import sys

        error = sys.exc_info()[1]
        if isinstance(error, Exception):
            report_incident(event_method, error, ChannelKey(""))

    def serves(self, guild_id: int | None) -> bool:
        """Private chats always; servers where the settings name none, or this one."""
        return guild_id is None or not self.section.servers or guild_id in self.section.servers

    async def on_message(self, message: discord.Message) -> None:
        guild_id = message.guild.id if message.guild else None
        if self.user is None or not is_from_a_person(message) or not self.serves(guild_id) or self._is_again(message):
            return
        if is_addressed(message, self.user):
            await self.answer(message)
        elif message.content:
            await self._overhear(message, self.user)

    async def answer(
        self, message: discord.Message, shown: discord.Message | None = None, *, is_again: bool = False
    ) -> None:
        """Answers a member's message; `shown` is our earlier, failed answer to it."""
        assert self.user is not None
        if message.id in self._answering and not is_again:
            return
        display = answering(message, shown)
        task = asyncio.create_task(self._answer(message, display))
        self._answering[message.id] = task, display
        try:
            await asyncio.wait({task})
            if not task.cancelled():
                task.result()
        except discord.HTTPException as error:
            log_refused("answer", error)
        finally:
            self._answering.pop(message.id, None)

    async def _answer(self, message: discord.Message, display: Display) -> None:
        assert self.user is not None
        incoming = self.reader.incoming(message, self.user)
        if not incoming.text and (unread := _why_unread(message)):
            await display.show(unread)
            return
        async with typing(message.channel):
            turn = await self.core.conversation.turn(incoming)
            if turn.outcome is Outcome.SILENT:
                await turn.aclose()
                return
            await self.stream(turn, display)
        await self.finish(incoming, turn, display, retry=retry_view(message.id))

    async def stream(self, turn: Turn, display: Display, *, prefix: str = "") -> None:
        """Shows the answer as it comes, at most an edit a second; the whole of it is for `finish`."""
        async with aclosing(turn):
            async for text in snapshots(turn, self.core.settings.bots.edit_seconds):
                await display.show(f"{text} …", prefix=prefix)

    async def finish(
        self,
        incoming: Incoming,
        turn: Turn,
        display: Display,
        *,
        retry: discord.ui.View | None = None,
        prefix: str = "",
    ) -> None:
        """Shows the whole answer with its buttons, and remembers which messages it stands in."""
        view = retry if turn.outcome is Outcome.FAILED else None
        if turn.reply_id is not None:
            view = vote_view(turn.reply_id)
        await display.show(turn.text or messages.NOTHING_TO_SAY, view, prefix=prefix)
        keys = [self.reader.message_key(one.channel.id, one.id) for one in display.shown]
        await self.core.conversation.posted(incoming, turn, keys)

    async def _overhear(self, message: discord.Message, me: discord.ClientUser) -> None:
        incoming = self.reader.incoming(message, me)
        listening = await self.core.conversation.listening(incoming.channel)
        if listening.mode is ChannelMode.ALWAYS:
            await self.answer(message)
        elif listening.collects:
            await self.core.conversation.overheard(incoming)

    async def on_raw_message_edit(self, payload: discord.RawMessageUpdateEvent) -> None:
        edited = payload.message
        if self.user is None or edited.edited_at is None or not edited.content or not is_from_a_person(edited):
            return
        key = self.reader.message_key(payload.channel_id, payload.message_id)
        await self.core.conversation.edited(key, text_of(edited, self.user.id))

    async def on_raw_message_delete(self, payload: discord.RawMessageDeleteEvent) -> None:
        await self._deleted(payload.channel_id, payload.message_id)

    async def on_raw_bulk_message_delete(self, payload: discord.RawBulkMessageDeleteEvent) -> None:
        for message_id in sorted(payload.message_ids):
            await self._deleted(payload.channel_id, message_id)

    async def _deleted(self, channel_id: int, message_id: int) -> None:
        await self.core.conversation.deleted(self.reader.message_key(channel_id, message_id))
        if (answering := self._answering.get(message_id)) is not None:
            task, display = answering
            task.cancel()
            await asyncio.wait({task})
            await display.withdraw()

    async def on_raw_reaction_add(self, payload: discord.RawReactionActionEvent) -> None:
        if payload.member is not None and payload.member.bot:
            return
        await self._reacted(payload, is_added=True)

    async def on_raw_reaction_remove(self, payload: discord.RawReactionActionEvent) -> None:
        await self._reacted(payload, is_added=False)

    async def _reacted(self, payload: discord.RawReactionActionEvent, *, is_added: bool) -> None:
        vote = REACTION_VOTES.get(payload.emoji.name or "")
        if vote is None or self.user is None or payload.user_id == self.user.id:
            return
        conversation = self.core.conversation
        reply_id = await conversation.reply_of(self.reader.message_key(payload.channel_id, payload.message_id))
        if reply_id is None:
            return
        member = self.reader.identity.member(payload.user_id)
        with contextlib.suppress(InputError, NotPermitted):  # a reaction has nobody to be told
            if is_added:
                await conversation.vote(reply_id, member, vote)
            else:
                await conversation.withdraw_vote(reply_id, member, vote)

    def settings_channel(self, interaction: discord.Interaction) -> ChannelKey:
        """The channel whose settings and consents hold where the interaction happened."""
        assert interaction.channel is not None, "commands and buttons are used in a channel"
        return self.reader.place(interaction.channel)[0]

    def moderated(self, interaction: discord.Interaction, channel_id: int) -> tuple[Target, Caller]:
        """A channel by its Discord id, and the caller with their rights there. Raises NotPermitted or InputError."""
        caller = self.reader.caller(interaction, rules_own_chat=True)
        if interaction.channel is not None and channel_id == interaction.channel.id:
            return self.reader.target(interaction.channel), caller
        channel = interaction.guild.get_channel_or_thread(channel_id) if interaction.guild else None
        if channel is None:
            raise InputError("That channel is gone, or I can't see it.")
        if not isinstance(interaction.user, discord.Member) or not may_moderate(
            channel.permissions_for(interaction.user)
        ):
            raise NotPermitted(f"You need Manage Channels in {self.reader.target(channel).label} for that.")
        return self.reader.target(channel), caller

    def moderated_keys(self, interaction: discord.Interaction) -> list[ChannelKey]:
        """The server's channels in which the caller moderates."""
        if interaction.guild is None or not isinstance(interaction.user, discord.Member):
            return []
        user = interaction.user
        every = [*interaction.guild.channels, *interaction.guild.threads]
        return [self.reader.place(one)[0] for one in every if may_moderate(one.permissions_for(user))]

    def _is_again(self, message: discord.Message) -> bool:
        if message.id in self._seen:
            return True
        self._seen[message.id] = None
        while len(self._seen) > REMEMBERED_MESSAGES:
            self._seen.popitem(last=False)
        return False

    async def _sync_commands(self) -> None:
        """Beside the talk: a server that fails at it is asked for half a minute."""
        try:
            await self.tree.sync()
        except discord.HTTPException as error:
            self._log.error("commands could not be registered", status=error.status, code=error.code)

    async def _announce(self, channel_id: int) -> None:
        await self.wait_until_ready()
        channel = self.get_partial_messageable(channel_id)

        async def announce(text: str) -> None:
            for part in split(text, LIMIT_CHARACTERS - 8):
                framed = f"```\n{part.replace('```', '')}\n```"
                await persistently(lambda framed=framed: channel.send(framed, allowed_mentions=NO_MENTIONS))  # type: ignore[misc]

        notices = self.core.notices(self.reader.identity.channel(channel_id))
        await notices.watch(announce, self.core.settings.bots.notice_poll_seconds)


async def run_discord(core: BotCore, token: str) -> None:
    """Runs until cancelled. Raises ConfigurationError for a refused token or intent."""
    discord.http.Route.BASE = core.settings.discord.api_base.rstrip("/")
    client = NocapClient(core)
    core.connection.is_up = client.is_heard
    try:
        async with client:
            await client.start(token)
    except discord.LoginFailure as error:
        raise ConfigurationError(
            "Discord refuses the token; copy it anew from the developer portal (Bot, Reset Token) to `discord.token`."
        ) from error
    except discord.PrivilegedIntentsRequired as error:
        raise ConfigurationError(
            "Discord refuses the Message Content intent; switch it on in the developer portal (Bot), or set"
            " `discord.message_content = false`."
        ) from error


def _why_unread(message: discord.Message) -> str | None:
    if has_attachment(message):
        return messages.SEES_NO_PICTURES
    return None if message.content else messages.REPLY_WITHOUT_PING


def _intents(section: DiscordSettings) -> discord.Intents:
    intents = discord.Intents.none()
    intents.guilds = intents.guild_messages = intents.dm_messages = True
    intents.guild_reactions = intents.dm_reactions = True
    intents.message_content = section.message_content
    return intents
