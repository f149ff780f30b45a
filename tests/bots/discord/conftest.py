"""The real discord.py against a Discord on loopback, over the same world as the core's tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import discord
import pytest

from bots.core import BotCore, build_core
from bots.discord.bot import run_discord
from bots.identity import Identity
from bots.limits import RateLimits
from nocap.domain import ChannelKey, MemberKey, Purpose
from nocap.operators import BotOperators
from storage.channels import ensure_channel
from storage.consent import record_consent
from storage.posted import posted_reply
from tests.bots.support import VOICE, World, world
from tests.fakes.discord_objects import OPERATOR
from tests.fakes.discord_server import FakeDiscord

RunBot = Callable[[], AbstractAsyncContextManager[None]]


class DiscordWorld:
    """A server, a database and a backend; `running` is one life of the bot process."""

    def __init__(self, bot: World, server: FakeDiscord) -> None:
        self.bot = bot
        self.server = server

    def core(self, limits: RateLimits | None = None) -> BotCore:
        return build_core(
            "discord",
            VOICE,
            database=self.bot.database,
            responder=self.bot.responder,
            operators=BotOperators(self.bot.database, self.bot.settings, self.bot.clock, lambda: None),
            settings=self.bot.settings,
            clock=self.bot.clock,
            limits=limits or RateLimits(member_per_minute=1e6, channel_per_minute=1e6, everyone_per_minute=1e6),
            seed=1,
        )

    def allow_message_content(self) -> None:
        """The bot asks for the privileged intent."""
        self.change_discord(message_content=True)

    def change_discord(self, **changes: object) -> None:
        """Other settings for the next life of the process."""
        section = self.bot.settings.discord.model_copy(update=changes)
        self.bot.settings = self.bot.settings.model_copy(update={"discord": section})

    def collect_with(self, channel: ChannelKey, *members: MemberKey) -> None:
        """The channel collects and these members have agreed to everything."""
        policy, at = self.bot.settings.policy_version, self.bot.clock()
        with self.bot.database.write() as session:
            ensure_channel(session, channel, platform="discord", label=None, voice=VOICE, at=at, collect=True)
            for member in members:
                record_consent(session, member, channel, list(Purpose), True, policy, at)

    def is_posted(self, message: dict[str, Any]) -> bool:
        """Whether it is on record which answer this message shows."""
        identity = Identity(self.bot.database.keyring, "discord")
        with self.bot.database.read() as session:
            return posted_reply(session, identity.message(message["channel_id"], message["id"])) is not None

    @asynccontextmanager
    async def running(self, limits: RateLimits | None = None) -> AsyncIterator[BotCore]:
        core = self.core(limits)
        before = len(self.server.identifies)
        task = asyncio.create_task(run_discord(core, self.server.token))
        try:
            is_up = asyncio.create_task(self.server.until(lambda: len(self.server.identifies) > before))
            await asyncio.wait({task, is_up}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                is_up.cancel()
                task.result()
            yield core
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.fixture(autouse=True)
def _discord_as_it_was() -> object:
    before = discord.http.Route.BASE
    yield
    discord.http.Route.BASE = before


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[DiscordWorld]:
    async with FakeDiscord() as server:
        section = {
            "api_base": f"http://{server.url}/api/v10",
            "operators": (OPERATOR,),
        }
        with world(tmp_path, discord=section, bots={"edit_seconds": 0.3}) as bot:
            yield DiscordWorld(bot, server)
        assert server.violations == []
