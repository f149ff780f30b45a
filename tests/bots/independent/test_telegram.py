"""`nocap bots` against telegram-test-api, a Bot API that somebody else made to test other bots by.

It differs from Telegram's where python-telegram-bot and we took Telegram for granted: who is a bot is not told, dates
of the bot's messages are in milliseconds, options of a request come back as text, presses name no chat instance, edits
have no result, there is no long polling, and most methods (typing, drafts, commands, descriptions) are answered by 500.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest_asyncio
from sqlmodel import select

from nocap.app import open_database
from nocap.settings import load_settings
from storage.tables import Feedback
from tests.bots.independent.conftest import Start
from tests.bots.process import bots_process, until_it_is
from tests.bots.support import free_port
from tests.fakes.backend import FakeBackend, serve

TOKEN = "7:TEST"
ADA = {"id": 101, "first_name": "Ada", "username": "ada", "is_bot": False}
CHAT = {"id": 101, "first_name": "Ada", "type": "private"}


class Chat:
    """Ada's private chat, played by the server's own routes for testers."""

    def __init__(self, client: httpx.AsyncClient, folder: Path) -> None:
        self._client = client
        self.folder = folder

    async def _post(self, route: str, **body: Any) -> Any:
        response = await self._client.post(route, json=body)
        return response.raise_for_status().json()["result"]

    async def say(self, text: str) -> None:
        await self._post("/sendMessage", botToken=TOKEN, text=text, date=int(time.time()), chat=CHAT, **{"from": ADA})

    async def command(self, text: str) -> None:
        entity = {"type": "bot_command", "offset": 0, "length": len(text.split(" ")[0])}
        body = {"text": text, "entities": [entity], "chat": CHAT, "from": ADA, "date": int(time.time())}
        await self._post("/sendCommand", botToken=TOKEN, **body)

    async def press(self, answer: dict[str, Any], face: str) -> None:
        rows = answer["message"]["reply_markup"]["inline_keyboard"]
        data = next(one["callback_data"] for row in rows for one in row if face in one["text"])
        message = {"message_id": answer["messageId"], "date": int(time.time()), "chat": CHAT, "text": "…"}
        await self._post("/sendCallback", botToken=TOKEN, data=data, message=message, **{"from": ADA})

    async def heard(self, is_it: Callable[[str], bool]) -> list[dict[str, Any]]:
        """What the bot has sent that is it, once there is any."""

        async def said() -> list[dict[str, Any]]:
            history = await self._post("/getUpdatesHistory", token=TOKEN)
            sent = [one for one in history if "chat_id" in (one.get("message") or {})]
            return [one for one in sent if is_it(one["message"]["text"])]

        return await until_it_is(said)

    async def votes(self) -> list[str]:
        file = self.folder / "nocap.toml"
        database = open_database(load_settings(file))
        try:
            with database.read() as session:
                return [row.vote for row in session.exec(select(Feedback))]
        finally:
            database.close()


@pytest_asyncio.fixture
async def chat(tmp_path: Path, node: Start) -> AsyncIterator[Chat]:
    port = free_port()
    server = node("telegram_server.mjs", "telegram-test-api", str(port))
    async with server as started, serve(FakeBackend()) as backend:
        await started.read()
        section = f'[telegram]\ntoken = "{TOKEN}"\nbase_url = "http://127.0.0.1:{port}"\n'
        async with (
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
            bots_process(tmp_path, backend, section) as bots,
        ):
            await bots.until_ready()
            yield Chat(client, tmp_path)
            await bots.stop()
        assert "incident" not in bots.log, bots.log


async def test_a_member_talks_votes_and_uses_commands(chat: Chat) -> None:
    await chat.say("hi")
    answer = (await chat.heard("base speaking".__eq__))[0]
    await chat.press(answer, "👍")
    assert await until_it_is(chat.votes) == ["up"]
    await chat.press(answer, "👎")

    async def is_changed() -> bool:
        return await chat.votes() == ["down"]

    await until_it_is(is_changed)
    await chat.command("/help")
    await chat.heard(lambda text: "/mydata" in text)
    await chat.command("/channel mode off")
    await chat.heard(lambda text: "mode off" in text)
    await chat.say("anybody?")
    await chat.command("/channel enable")
    await chat.heard(lambda text: "mode mention" in text)
    await chat.say("and now?")

    async def is_answered() -> bool:
        return len(await chat.heard("base speaking".__eq__)) == 2

    await until_it_is(is_answered)
