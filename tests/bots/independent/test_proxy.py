"""The bot behind @discordjs/proxy, an HTTP proxy for Discord's API: requests have to reach Discord as they were."""

from __future__ import annotations

from pathlib import Path

from bots import messages
from nocap.domain import Vote
from tests.bots.independent.conftest import Start
from tests.bots.process import bots_process
from tests.fakes.backend import FakeBackend, serve
from tests.fakes.discord_objects import ADA, BEN
from tests.fakes.discord_server import FakeDiscord


async def test_answers_votes_and_commands_pass_a_proxy_unchanged(tmp_path: Path, node: Start) -> None:
    async with FakeDiscord() as discord, serve(FakeBackend()) as backend:
        async with node("discord_proxy.mjs", "@discordjs/proxy", f"http://{discord.url}/api") as proxy:
            port = (await proxy.read())["port"]
            section = f'[discord]\ntoken = "{discord.token}"\napi_base = "http://127.0.0.1:{port}/api/v10"\n'
            async with bots_process(tmp_path, backend, section) as bots:
                await bots.until_ready()
                await discord.say(ADA, "hi")
                await discord.until(lambda: discord.posts())
                answer = discord.posts()[0]
                up = answer["components"][0]["components"][0]["custom_id"]
                assert (await discord.press(BEN, up, answer)).texts == [messages.voted(Vote.UP)]
                asked = await discord.command(BEN, "ask", text="and you?")
                await discord.until(lambda: any("base speaking" in text for text in asked.texts))
                await discord.until(lambda: discord.commands)
        assert discord.violations == []
