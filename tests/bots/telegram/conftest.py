from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.bots.support import World
from tests.bots.telegram.support import TelegramWorld, telegram_world


@pytest_asyncio.fixture
async def world(bot: World) -> AsyncIterator[TelegramWorld]:
    """A Telegram with a bot that is not running yet."""
    async with telegram_world(bot) as one:
        yield one


@pytest_asyncio.fixture
async def live(world: TelegramWorld) -> TelegramWorld:
    """The same with the bot at work."""
    await world.start()
    return world
