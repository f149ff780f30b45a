"""What discord.py takes for granted of Discord's own servers, and others need not have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import aiohttp
import discord
import yarl
from discord.gateway import DiscordWebSocket
from discord.webhook.async_ import AsyncWebhookAdapter, async_context

from bots.incidents import report_incident

MISSING_STATUSES = (404, 405, 501)
"""How servers answer for a route that they do not have."""


def lead_gateway(client: discord.AutoShardedClient, override: str | None) -> None:
    """Makes every gateway connection go where the settings say, or else where the API says.

    Left alone, discord.py goes to Discord's own address whenever a session is begun anew or shards are numbered.
    An API that names none, and so no number of shards, is taken to mean one.
    """
    connect = client.http.ws_connect
    named: list[str] = [override] if override else []

    async def connect_there(url: str, *, compress: int = 0) -> aiohttp.ClientWebSocketResponse:
        asked = yarl.URL(url)
        if override or asked.host == DiscordWebSocket.DEFAULT_GATEWAY.host:
            if not named:
                named.append((await client.http.get_bot_gateway())[1])
            url = str(yarl.URL(named[0]).with_query(asked.query))
        return await connect(url, compress=compress)

    client.http.ws_connect = connect_there  # type: ignore[method-assign]
    ask = client.http.get_bot_gateway

    async def named_gateway() -> Any:
        try:
            return await ask()
        except discord.GatewayNotFound:
            if override is None:
                raise
            return 1, override, {}

    client.http.get_bot_gateway = named_gateway  # type: ignore[method-assign]


def read_leniently(client: discord.AutoShardedClient) -> None:
    """An event that cannot be read costs itself, not the connection.

    Where this process runs one shard, a READY that names none is that one's.
    """
    state = client._connection

    def lenient(name: str, parse: Callable[[Any], None]) -> Callable[[Any], None]:
        def read(data: Any) -> None:
            if name == "READY" and len(state.shard_ids) == 1:
                data.setdefault("shard", [state.shard_ids[0], state.shard_count])
            try:
                parse(without_null_threads(data))
            except Exception as error:
                if name == "READY":
                    raise
                report_incident(f"reading {name}", error, None)

        return read

    for name, parse in list(state.parsers.items()):
        state.parsers[name] = lenient(name, parse)
    request = client.http.request

    async def request_leniently(route: discord.http.Route, **options: Any) -> Any:
        return without_null_threads(await request(route, **options))

    client.http.request = request_leniently  # type: ignore[method-assign]


def without_null_threads(told: Any) -> Any:
    """A message of which a server says that it has no thread, and the one that it replies to, as Discord tells them."""
    if isinstance(told, dict):
        if told.get("thread", 0) is None:
            del told["thread"]
        without_null_threads(told.get("referenced_message"))
    return told


class _QuietAdapter(AsyncWebhookAdapter):
    """A server may answer the callback of an interaction with nothing, as Discord did until 2024."""

    async def request(self, *arguments: Any, **options: Any) -> Any:
        return without_null_threads(await super().request(*arguments, **options))

    async def create_interaction_response(self, interaction_id: int, token: str, **options: Any) -> Any:
        told = await super().create_interaction_response(interaction_id, token, **options)
        return told or {"interaction": {"id": interaction_id, "type": 0}}


def accept_quiet_callbacks() -> None:
    """For this task and those that it starts."""
    async_context.set(_QuietAdapter())  # type: ignore[no-untyped-call]


async def application_of(client: discord.Client) -> discord.AppInfo:
    """The bot's application; where the server does not tell, one with the bot's own id, as newer bots have."""
    try:
        return await discord.Client.application_info(client)
    except discord.HTTPException as error:
        if error.status not in MISSING_STATUSES:
            raise
    me = client.user
    assert me is not None, "asked after the token was accepted"
    user = {"id": me.id, "username": me.name, "discriminator": me.discriminator, "avatar": None}
    told: Any = {
        "id": me.id,
        "name": me.name,
        "description": "",
        "icon": None,
        "bot_public": False,
        "bot_require_code_grant": False,
        "owner": user,
        "verify_key": "",
    }
    return discord.AppInfo(client._connection, told)
