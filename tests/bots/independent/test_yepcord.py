"""`nocap bots` against YEPCord, a chat server with accounts of its own that speaks Discord's API (v9) and gateway.

It differs from Discord where discord.py took Discord for granted: besides what discord-digital-twin lacks it has no
`/gateway/bot` and its messages have a null thread. Nobody can vote there: it keeps no components, and tells of
reactions in a form of its own.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.bots.independent.conftest import PACKAGES
from tests.bots.process import bots_process, until_it_is
from tests.bots.support import free_port
from tests.fakes.backend import FakeBackend, serve

MAKE_TABLES = """
import asyncio
from tortoise import Tortoise
from yepcord.yepcord.config import Config

async def make():
    await Tortoise.init(db_url=Config.DB_CONNECT_STRING, modules={"models": ["yepcord.yepcord.models"]})
    await Tortoise.generate_schemas()
    await Tortoise.close_connections()

asyncio.run(make())
"""


class Member:
    """Somebody with an account there."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def ask(self, method: str, path: str, **options: Any) -> Any:
        answer = await self._client.request(method, path, **options)
        assert answer.is_success, (path, answer.status_code, answer.text)
        return answer.json() if answer.content else None

    async def register(self, name: str) -> None:
        account = {"username": name, "email": f"{name}@example.org", "password": "long enough 1"}
        told = await self.ask("POST", "/auth/register", json=account | {"date_of_birth": "2000-01-01"})
        self._client.headers["Authorization"] = told["token"]


@asynccontextmanager
async def yepcord(folder: Path) -> AsyncIterator[int]:
    """The port of a running server with an empty database."""
    programs = Path(os.environ.get(PACKAGES, "")) / "yepcord" / "bin"
    if PACKAGES not in os.environ or not (programs / "yepcord").exists():
        pytest.skip(f"{PACKAGES} does not name a folder with yepcord; docs/bots.md says how to make one")
    port, config = free_port(), folder / "yepcord.py"
    config.write_text(
        f'DB_CONNECT_STRING = "sqlite://{folder}/yepcord.sqlite"\nGATEWAY_HOST = "127.0.0.1:{port}/gateway"\n'
        f'BCRYPT_ROUNDS = 12\nMESSAGE_BROKER = {{"type": "ws", "ws": {{"url": "ws://127.0.0.1:{free_port()}"}}}}\n'
    )
    environment = os.environ | {"YEPCORD_CONFIG": str(config)}
    making = await asyncio.create_subprocess_exec(programs / "python", "-c", MAKE_TABLES, env=environment)
    assert await making.wait() == 0
    with (folder / "yepcord.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(programs / "yepcord", "run_all", "-c", str(config), "-h", "127.0.0.1", "-p", str(port)),
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,  # type: ignore[arg-type]
        )
    try:
        yield port
    finally:
        process.kill()
        await process.wait()


async def test_members_talk_by_mentions_and_replies(tmp_path: Path) -> None:
    async with yepcord(tmp_path) as port, serve(FakeBackend()) as backend:
        api = f"http://127.0.0.1:{port}/api/v9"
        async with httpx.AsyncClient(base_url=api, timeout=30) as client:

            async def is_up() -> bool:
                try:
                    return (await client.get("/gateway")).is_success
                except httpx.HTTPError:
                    return False

            await until_it_is(is_up, 60)
            ada = Member(client)
            await ada.register("ada")
            bot = (await ada.ask("POST", "/applications", json={"name": "nocap"}))["id"]
            token = (await ada.ask("POST", f"/applications/{bot}/bot/reset"))["token"]
            guild = await ada.ask("POST", "/guilds", json={"name": "ours"})
            channel = next(one["id"] for one in guild["channels"] if one["type"] == 0)
            invitation = {"authorize": True, "guild_id": guild["id"], "permissions": 8}
            await ada.ask("POST", f"/oauth2/authorize?client_id={bot}&scope=bot", json=invitation)
            section = (
                f'[discord]\ntoken = "{token}"\napi_base = "{api}"\ngateway_url = "ws://127.0.0.1:{port}/gateway"\n'
            )
            async with bots_process(tmp_path, backend, section) as bots:
                await bots.until_ready()
                path = f"/channels/{channel}/messages"

                async def answers(count: int) -> list[dict[str, Any]]:
                    every = await ada.ask("GET", path)
                    ours = [one for one in every if one["content"] == "base speaking"]
                    return ours if len(ours) >= count else []

                await ada.ask("POST", path, json={"content": "nothing for the bot"})
                await ada.ask("POST", path, json={"content": f"<@{bot}> hi"})
                answer = (await until_it_is(lambda: answers(1)))[0]
                reference = {"message_id": answer["id"], "channel_id": channel, "guild_id": guild["id"]}
                await ada.ask("POST", path, json={"content": "and then?", "message_reference": reference})
                assert len(await until_it_is(lambda: answers(2))) == 2
                await bots.stop()
            assert "incident" not in bots.log, bots.log
