"""The real discord.py against a Discord on loopback, over the same world as the core's tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import discord
import pytest

from bots.core import BotCore, build_core
from bots.discord.bot import run_discord
from bots.limits import RateLimits
from nocap.operators import BotOperators
from tests.bots.support import VOICE, World, world
from tests.fakes.discord_server import OPERATOR, FakeDiscord

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
