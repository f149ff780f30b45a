"""What discord.py takes for granted of Discord's own servers, and others need not have."""

from __future__ import annotations

from typing import Any

import aiohttp
import discord
import yarl
from discord.gateway import DiscordWebSocket
from discord.webhook.async_ import AsyncWebhookAdapter, async_context

MISSING_STATUSES = (404, 405, 501)
"""How servers answer for a route that they do not have."""


def lead_gateway(client: discord.AutoShardedClient, override: str | None) -> None:
    """Makes every gateway connection go where the settings say, or else where the API says.

    Left alone, discord.py goes to Discord's own address whenever a session is begun anew or shards are numbered.
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


def number_ready(client: discord.AutoShardedClient) -> None:
    """Where this process runs one shard, a READY that names none is that one's."""
    state = client._connection
    parse = state.parsers["READY"]

    def parse_numbered(data: Any) -> None:
        if len(state.shard_ids) == 1:
            data.setdefault("shard", [state.shard_ids[0], state.shard_count])
        parse(data)

    state.parsers["READY"] = parse_numbered


class _QuietAdapter(AsyncWebhookAdapter):
    """A server may answer the callback of an interaction with nothing, as Discord did until 2024."""

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
