"""The real bot on the real python-telegram-bot against the wire-level fake, over the bots' test world."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from bots.core import BotCore, build_core
from bots.identity import Identity
from bots.telegram.bot import running
from bots.telegram.requests import MessageLimiter
from nocap.domain import ChannelKey, MemberKey, VoiceName
from nocap.operators import BotOperators
from nocap.settings import Settings, TelegramSettings
from tests.bots.support import World
from tests.fakes.telegram import FakeTelegram
from tests.fakes.telegram_objects import Chat, Json, Person

TOKEN = "7:TEST"


class TelegramWorld:
    """One Telegram, one database, and the bots that `start` runs."""

    def __init__(self, telegram: FakeTelegram, bot: World) -> None:
        self.telegram = telegram
        self.bot = bot
        self.settings: dict[str, Any] = {}
        self.ada = telegram.person(101, "Ada", "ada_l")
        self.ben = telegram.person(102, "Ben")
        self._running: AsyncExitStack | None = None

    async def start(self, **bots: str) -> None:
        """Runs the bot; `bots` are further ones, voice = token."""
        assert self._running is None
        self._running = AsyncExitStack()
        for voice, token in ({"genz": TOKEN} | bots).items():
            limiter = MessageLimiter(per_second=1e6, per_minute_and_group=1e6)
            await self._running.enter_async_context(running(self.core(VoiceName(voice)), token, limiter))

    async def stop(self) -> None:
        if self._running is not None:
            stack, self._running = self._running, None
            await stack.aclose()

    async def restart(self) -> None:
        """A new process over the same database, backend and Telegram."""
        await self.stop()
        self.bot.restart()
        await self.start()

    def core(self, voice: VoiceName) -> BotCore:
        telegram = TelegramSettings(base_url=self.telegram.url, **self.settings)
        settings: Settings = self.bot.settings.model_copy(update={"telegram": telegram})
        settings = settings.model_copy(update={"bots": settings.bots.model_copy(update={"edit_seconds": 0.0})})
        return build_core(
            "telegram",
            voice,
            database=self.bot.database,
            responder=self.bot.responder,
            operators=BotOperators(self.bot.database, settings, self.bot.clock, lambda: None),
            settings=settings,
            clock=self.bot.clock,
            limits=self.bot.limits,
        )

    def identity(self) -> Identity:
        return Identity(self.bot.database.keyring, "telegram")

    def member(self, person: Person) -> MemberKey:
        return self.identity().member(person.id)

    def channel(self, chat: Chat) -> ChannelKey:
        return self.identity().channel(chat.id)

    async def ask(self, chat: Chat, person: Person, text: str | None, **extra: Any) -> Json:
        """Says it and waits for what the bot says next in that chat."""
        before = len(self.telegram.answers(chat))
        self.telegram.say(chat, person, text, **extra)
        return await self.telegram.answer_in(chat, before + 1)

    async def settle(self) -> None:
        """All that was said before is dealt with: nothing is being worked on any more."""
        probe = self.telegram.person(999, "Probe")
        await self.ask(self.telegram.private(probe), probe, "/privacy")
        tasks = [task for task in asyncio.all_tasks() if "process_concurrent_update" in task.get_name()]
        if tasks:
            await asyncio.wait(tasks)


@asynccontextmanager
async def telegram_world(bot: World, *, lacks: frozenset[str] = frozenset()) -> AsyncIterator[TelegramWorld]:
    async with FakeTelegram(lacks=lacks) as telegram:
        telegram.add_bot(TOKEN)
        world = TelegramWorld(telegram, bot)
        try:
            yield world
        finally:
            await world.stop()
        assert telegram.violations == []
