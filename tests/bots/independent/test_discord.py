"""`nocap bots` against discord-digital-twin, a Discord API and gateway that somebody else made to test other bots by.

It differs from Discord where discord.py and we took Discord for granted: it has no `/oauth2/applications/@me`, its
READY names no shard, its messages list no mentions, the callbacks of interactions are answered with nothing, and the
registration of the commands with 500.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest_asyncio

from bots import messages
from nocap.domain import Vote
from tests.bots.independent.conftest import Server, Start
from tests.bots.process import bots_process, until_it_is
from tests.fakes.backend import FakeBackend, serve

CHANNEL, ADA, BEN, BOT = "1200", "1101", "1102", "1999"
TWIN = {
    "botToken": "the-token",
    "botUser": {"id": BOT, "username": "nocap"},
    "guild": {"id": "1000", "ownerId": ADA, "channels": [{"id": CHANNEL, "name": "general", "type": 0}]},
    "users": [{"id": ADA, "username": "ada"}, {"id": BEN, "username": "ben"}],
}


class Channel:
    """What members do in the twin's one channel, and what the bot says there."""

    def __init__(self, twin: Server) -> None:
        self._twin = twin

    async def say(self, text: str) -> None:
        await self._twin.call("simulateUserMessage", {"channelId": CHANNEL, "userId": ADA, "content": text})

    async def press(self, message: dict[str, Any], face: str, user: str) -> None:
        buttons = [button for row in message["components"] for button in row["components"]]
        pressed = next(one for one in buttons if (one.get("emoji") or {}).get("name") == face)
        press = {"messageId": message["id"], "customId": pressed["custom_id"]}
        await self._twin.call("simulateButtonClick", {"channelId": CHANNEL, "userId": user} | press)

    async def command(self, name: str, user: str, options: list[dict[str, Any]]) -> None:
        command = {"channelId": CHANNEL, "userId": user, "name": name, "options": options}
        await self._twin.call("simulateSlashCommand", command)

    async def heard(self, is_it: Callable[[str], bool], count: int = 1) -> list[dict[str, Any]]:
        """The bot's messages whose text is it, once there are so many."""

        async def said() -> list[dict[str, Any]]:
            every = await self._twin.call("getMessages", CHANNEL)
            matching = [one for one in every if one["author"]["id"] == BOT and is_it(one["content"])]
            return matching if len(matching) >= count else []

        return await until_it_is(said)


@pytest_asyncio.fixture
async def channel(tmp_path: Path, node: Start) -> AsyncIterator[Channel]:
    twin = node("discord_twin.mjs", "discord-digital-twin", json.dumps(TWIN))
    async with twin as server, serve(FakeBackend()) as backend:
        port = (await server.read())["port"]
        section = f'[discord]\ntoken = "the-token"\napi_base = "http://127.0.0.1:{port}/api/v10"\n'
        async with bots_process(tmp_path, backend, section) as bots:
            await bots.until_ready()
            yield Channel(server)


async def test_members_talk_vote_and_use_commands(channel: Channel) -> None:
    await channel.say("nothing for the bot")
    await channel.say(f"<@{BOT}> hi")
    answer = (await channel.heard("base speaking".__eq__))[0]
    await channel.press(answer, "👍", ADA)
    await channel.press(answer, "👎", BEN)
    await channel.heard(messages.voted(Vote.UP).__eq__)
    await channel.heard(messages.voted(Vote.DOWN).__eq__)
    await channel.command("ask", BEN, [{"name": "text", "type": 3, "value": "and you?"}])
    await channel.heard(lambda text: "and you?" in text and text.endswith("base speaking"))
    await channel.command("help", BEN, [])
    await channel.heard(lambda text: "/consent" in text)
    assert len(await channel.heard("base speaking".__eq__)) == 1, "what was not for the bot is not answered"


async def test_what_moderators_decide_holds(channel: Channel) -> None:
    mode = {"name": "mode", "type": 1, "options": [{"name": "mode", "type": 3, "value": "off"}]}
    await channel.command("channel", ADA, [mode])
    await channel.heard(lambda text: "off" in text)
    await channel.say(f"<@{BOT}> anybody?")
    await channel.command("channel", ADA, [{"name": "enable", "type": 1}])
    await channel.heard(lambda text: "mention" in text)
    await channel.say(f"<@{BOT}> and now?")
    assert len(await channel.heard("base speaking".__eq__)) == 1
