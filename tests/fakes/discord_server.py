"""A Discord on loopback: its HTTP API and its gateway, as far as a bot can tell; every request is written down.

What it insists on, as Discord does: heartbeats, an answer to an interaction within three seconds, messages of at most
2,000 characters, message content only for bots that may see it, and requests that fit its own API description.
"""

from __future__ import annotations

import asyncio
import json
import re
import zlib
from collections import deque
from collections.abc import Callable
from typing import Any

from aiohttp import WSMsgType, web

from tests.fakes import discord_spec
from tests.fakes.discord_objects import (
    ALL_PERMISSIONS,
    BOT,
    DM,
    FAR_GUILD,
    GENERAL,
    GUILD,
    MEMBER_PERMISSIONS,
    Fault,
    Interaction,
    Objects,
    Seen,
    Session,
    belongs,
    member_json,
    user_json,
)

MESSAGE_CONTENT_INTENT = 1 << 15
INTERACTION_SECONDS = 3.0


class FakeDiscord(Objects):
    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Seen] = []
        self.violations: list[str] = []
        self.faults: deque[Fault] = deque()
        self.messages: dict[int, dict[str, Any]] = {}
        self.sessions: dict[str, Session] = {}
        self.identifies: list[dict[str, Any]] = []
        self.resumes: list[dict[str, Any]] = []
        self.heartbeats = 0
        self.commands: list[dict[str, Any]] = []
        self.interactions: dict[str, Interaction] = {}
        self.invalidates_resumes = False
        self.shards = 1
        self.remaining_headers = True
        self.token = "the-token"
        self.more_bots: dict[str, int] = {}
        """Token and user id of further bots on the same servers."""
        self.url = ""
        self.is_kicked = False
        self.is_bare = False
        """Like a compatible server that lacks what discord.py takes for granted of Discord's own."""
        self.keeps_all = True
        """Off for soaks: requests and messages are not kept, only counted by `on_post`."""
        self.on_post: Callable[[dict[str, Any]], None] | None = None
        """Called with every message that the bot posts in a channel."""
        self._changed = asyncio.Condition()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> FakeDiscord:
        app = web.Application(client_max_size=2**26)
        app.router.add_get("/gateway", self._gateway)
        app.router.add_route("*", "/api/v10/{tail:.*}", self._http)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        self.url = f"127.0.0.1:{port}"
        return self

    async def __aexit__(self, *failure: object) -> None:
        for session in self.sessions.values():
            if session.socket is not None:
                await session.socket.close()
        assert self._runner is not None
        await self._runner.cleanup()

    # What a test does

    async def say(
        self,
        author: int,
        text: str,
        *,
        channel: int = GENERAL,
        bot: int = BOT,
        mention: bool = True,
        reply_to: dict[str, Any] | None = None,
        pings: bool = True,
        **fields: Any,
    ) -> dict[str, Any]:
        """A member's message arrives; by default it mentions the bot, and a reply to the bot pings it."""
        content = f"<@{bot}> {text}" if mention and channel != DM else text
        message = self._message(author, content, channel, **fields)
        if self.is_bare:
            message["thread"] = None
        if f"<@{bot}>" in content and not self.is_bare:
            message["mentions"] = [user_json(bot)]
        if reply_to is not None:
            is_ours = reply_to["author"]["id"] == str(BOT)
            message["mentions"] = message["mentions"] or ([user_json(BOT)] if is_ours and pings else [])
            message |= {
                "type": 19,
                "referenced_message": reply_to,
                "message_reference": {"message_id": reply_to["id"], "channel_id": reply_to["channel_id"]},
            }
        if self.keeps_all:
            self.messages[int(message["id"])] = message
        await self.dispatch("MESSAGE_CREATE", message)
        return message

    async def press(self, user: int, custom_id: str, message: dict[str, Any]) -> Interaction:
        """A button is pressed; the interaction once its callback has come or its time is over."""
        data = {"custom_id": custom_id, "component_type": 2}
        return await self._interact(user, 3, data, int(message["channel_id"]), message=message)

    async def command(self, user: int, path: str, *, channel: int = GENERAL, **options: Any) -> Interaction:
        """`path` is a command, with its subcommands after spaces; integers stand for channels."""
        name, *rest = path.split(" ")
        resolved: dict[str, Any] = {}
        values = [_option(key, value, self, resolved) for key, value in options.items()]
        for sub, kind in zip(reversed(rest), [1] + [2] * 5, strict=False):
            values = [{"name": sub, "type": kind, "options": values}]
        data = {"id": "777", "name": name, "type": 1, "options": values, "resolved": resolved}
        return await self._interact(user, 2, data, channel)

    async def menu(self, user: int, name: str, message: dict[str, Any]) -> Interaction:
        """A context menu on a message."""
        data = {"id": "778", "name": name, "type": 3, "target_id": message["id"]}
        data["resolved"] = {"messages": {message["id"]: message}}
        return await self._interact(user, 2, data, int(message["channel_id"]))

    async def dispatch(self, event: str, data: dict[str, Any], *, only: Session | None = None) -> None:
        for session in [only] if only else [one for one in self.sessions.values() if belongs(data, one)]:
            payload = {"op": 0, "t": event, "d": self._visible(event, data, session), "s": session.sequence + 1}
            session.sequence += 1
            if self.keeps_all:
                session.sent.append(payload)
            await self._send(session, payload)

    async def kick(self) -> None:
        """The server throws the bot out."""
        self.is_kicked = True
        await self.dispatch("GUILD_DELETE", {"id": str(GUILD)})

    async def rename(self, channel: int, name: str) -> None:
        self.names[channel] = name
        await self.dispatch("CHANNEL_UPDATE", self._channel(channel))

    async def drop(self, *, code: int = 4000) -> None:
        """The gateway's connections break."""
        for session in self.sessions.values():
            if session.socket is not None:
                socket, session.socket = session.socket, None
                await socket.close(code=code)

    async def until(self, condition: Callable[[], Any], seconds: float = 15.0) -> Any:
        """Waits until the condition holds; what it gave."""
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(condition), seconds)
        return condition()

    def posts(self, channel: int | None = None, *, bot: int = BOT) -> list[dict[str, Any]]:
        """The bot's messages as they stand now, oldest first."""
        ours = [one for one in self.messages.values() if one["author"]["id"] == str(bot)]
        return [one for one in ours if channel is None or one["channel_id"] == str(channel)]

    def made(self, method: str, pattern: str) -> list[Seen]:
        return [one for one in self.requests if one.method == method and re.fullmatch(pattern, one.path)]

    # HTTP

    async def _http(self, request: web.Request) -> web.Response:
        path = "/" + request.match_info["tail"]
        body, files = await _body(request)
        if self.keeps_all:
            self.requests.append(Seen(request.method, path, body, asyncio.get_running_loop().time(), files))
        if self.keeps_all and discord_spec.is_here() and not files:
            self.violations += discord_spec.violations(request.method, path, body)
        for fault in self.faults:
            if fault.method == request.method and re.fullmatch(fault.path, path):
                self.faults.remove(fault)
                return _json(fault.body, status=fault.status, headers={"Via": "1.1 fake", **fault.headers})
        response = await self._answer(request, path, body, files)
        if self.remaining_headers:
            bucket = re.sub(r"\d+", "N", path)
            response.headers.update(
                {
                    "X-RateLimit-Limit": "500",
                    "X-RateLimit-Remaining": "499",
                    "X-RateLimit-Reset-After": "1",
                    "X-RateLimit-Bucket": bucket.replace("/", "-"),
                }
            )
        async with self._changed:
            self._changed.notify_all()
        return response

    async def _answer(self, request: web.Request, path: str, body: Any, files: dict[str, bytes]) -> web.Response:
        bot = self._bot(request.headers.get("Authorization", "").removeprefix("Bot "))
        if bot is None and not path.startswith(("/interactions/", "/webhooks/")):
            return _refused(401, 0, "401: Unauthorized")
        parts = path.strip("/").split("/")
        if self.is_kicked and parts[0] == "channels" and int(parts[1]) != DM:
            return _refused(403, 50001, "Missing Access")
        match (request.method, *parts):
            case ("GET", "users", "@me"):
                return _json(user_json(bot or BOT))
            case ("GET", "oauth2", "applications", "@me") if not self.is_bare:
                return _json(self._application())
            case ("GET", "gateway", "bot") if not self.is_bare:
                limit = {"total": 1000, "remaining": 999, "reset_after": 1000, "max_concurrency": 1}
                url = f"ws://{self.url}/gateway"
                return _json({"url": url, "shards": self.shards, "session_start_limit": limit})
            case ("PUT", "applications", _, "commands") if not self.is_bare:
                self.commands = body
                return _json([self._registered(one, index) for index, one in enumerate(body)])
            case ("POST", "channels", _, "typing"):
                return web.Response(status=204)
            case ("POST", "channels", channel, "messages"):
                return self._created(bot or BOT, int(channel), body)
            case ("GET", "channels", _, "messages", message_id):
                found = self.messages.get(int(message_id))
                return _json(found) if found else _refused(404, 10008, "Unknown Message")
            case ("PATCH", "channels", _, "messages", message_id):
                return self._edited(self.messages.get(int(message_id)), body)
            case ("DELETE", "channels", _, "messages", message_id):
                self.messages.pop(int(message_id), None)
                return web.Response(status=204)
            case ("POST", "interactions", interaction_id, token, "callback"):
                return self._callback(self.interactions.get(token), interaction_id, body, files)
            case ("POST" | "PATCH" | "GET", "webhooks", _, token, *rest):
                return self._webhook(request.method, self.interactions.get(token), rest, body, files)
        return _refused(404, 0, f"404: Not Found {path}")

    def _bot(self, token: str) -> int | None:
        return BOT if token == self.token else self.more_bots.get(token)

    def _created(self, bot: int, channel: int, body: dict[str, Any]) -> web.Response:
        if problem := _too_long(body):
            return problem
        message = self._message(bot, body.get("content", ""), channel, components=body.get("components", []))
        reference = {
            key: str(value) if key.endswith("_id") else value
            for key, value in (body.get("message_reference") or {}).items()
        }
        if reference and int(reference["message_id"]) in self.messages:
            message |= {"type": 19, "message_reference": reference}
        if self.keeps_all:
            self.messages[int(message["id"])] = message
        if self.on_post is not None:
            self.on_post({**message, "message_reference": reference})
        return _json(message)

    def _edited(self, message: dict[str, Any] | None, body: dict[str, Any]) -> web.Response:
        if message is None:
            return _refused(404, 10008, "Unknown Message")
        if problem := _too_long(body):
            return problem
        message |= {key: body[key] for key in ("content", "components") if body.get(key) is not None}
        return _json(message)

    def _callback(
        self, interaction: Interaction | None, interaction_id: str, body: dict[str, Any], files: dict[str, bytes]
    ) -> web.Response:
        if interaction is None or interaction.id != interaction_id or self._is_late(interaction):
            return _refused(404, 10062, "Unknown interaction")
        if interaction.callback is not None:
            return _refused(400, 40060, "Interaction has already been acknowledged.")
        if problem := _too_long(body.get("data") or {}):
            return problem
        interaction.callback, interaction.answered_after = body, self._now() - interaction.created
        interaction.files |= files
        data = body.get("data") or {}
        if body["type"] in (4, 7):
            shown = self._message(BOT, data.get("content", ""), interaction.channel_id)
            shown |= {"components": data.get("components", []), "flags": data.get("flags", 0)}
            interaction.message = shown
            if not data.get("flags", 0) & 64:
                self.messages[int(shown["id"])] = shown
        if self.is_bare:
            return web.Response(status=204)
        return _json(
            {"interaction": {"id": interaction.id, "type": 2, "response_message_id": "1"}}
            if interaction.message is None
            else {
                "interaction": {"id": interaction.id, "type": 2, "response_message_id": interaction.message["id"]},
                "resource": {"type": body["type"], "message": interaction.message},
            }
        )

    def _webhook(
        self, method: str, interaction: Interaction | None, rest: list[str], body: Any, files: dict[str, bytes]
    ) -> web.Response:
        if interaction is None or interaction.callback is None:
            return _refused(404, 10015, "Unknown Webhook")
        if method != "GET" and (problem := _too_long(body)):
            return problem
        interaction.files |= files
        flags = (interaction.callback.get("data") or {}).get("flags", 0)
        if rest == ["messages", "@original"] or (method == "POST" and interaction.message is None):
            if interaction.message is None:
                shown = self._message(BOT, "", interaction.channel_id) | {"flags": flags}
                interaction.message = shown
                if not flags & 64:
                    self.messages[int(shown["id"])] = shown
            return self._edited(interaction.message, body) if method != "GET" else _json(interaction.message)
        if method == "POST":
            shown = self._message(BOT, body.get("content", ""), interaction.channel_id)
            shown |= {"components": body.get("components", []), "flags": body.get("flags", 0)}
            interaction.followups.append(shown)
            if not body.get("flags", 0) & 64:
                self.messages[int(shown["id"])] = shown
            return _json(shown)
        return self._edited(self.messages.get(int(rest[1])), body)

    # The gateway

    async def _gateway(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(autoping=True)
        await socket.prepare(request)
        deflate = zlib.compressobj() if request.query.get("compress") == "zlib-stream" else None
        session = Session("", 0, (0, 1), socket, deflate)
        await self._send(session, {"op": 10, "d": {"heartbeat_interval": 500}})
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                break
            session = await self._received(session, json.loads(message.data))
        if session.socket is socket:
            session.socket = None
        return socket

    async def _received(self, session: Session, payload: dict[str, Any]) -> Session:
        match payload["op"]:
            case 1:
                self.heartbeats += 1
                await self._send(session, {"op": 11})
            case 2:
                session = await self._identified(session, payload["d"])
            case 6:
                session = await self._resumed(session, payload["d"])
        async with self._changed:
            self._changed.notify_all()
        return session

    async def _identified(self, session: Session, data: dict[str, Any]) -> Session:
        self.identifies.append(data)
        bot = self._bot(data["token"])
        if bot is None:
            assert session.socket is not None
            await session.socket.close(code=4004)
            return session
        session.id = f"session-{len(self.identifies)}"
        session.bot, session.intents = bot, data["intents"]
        session.shard = tuple(data.get("shard", (0, 1)))  # type: ignore[assignment]
        place = bot, session.shard
        self.sessions = {key: one for key, one in self.sessions.items() if (one.bot, one.shard) != place}
        self.sessions[session.id] = session
        guilds = [one for one in (GUILD, FAR_GUILD)[: session.shard[1]] if belongs({"guild_id": one}, session)]
        ready = {
            "v": 10,
            "user": user_json(bot),
            "guilds": [{"id": str(one), "unavailable": True} for one in guilds],
            "session_id": session.id,
            "resume_gateway_url": f"ws://{self.url}/gateway",
            "application": {"id": str(BOT), "flags": 0},
        } | ({} if self.is_bare else {"shard": list(session.shard)})
        await self.dispatch("READY", ready, only=session)
        for guild in guilds:
            await self.dispatch("GUILD_CREATE", self._guild(guild), only=session)
        return session

    async def _resumed(self, session: Session, data: dict[str, Any]) -> Session:
        self.resumes.append(data)
        old = self.sessions.get(data["session_id"])
        if old is None or self.invalidates_resumes:
            self.sessions.pop(data["session_id"], None)
            await self._send(session, {"op": 9, "d": False})
            return session
        old.socket, old.deflate = session.socket, session.deflate
        for payload in [one for one in old.sent if one["s"] > data["seq"]]:
            await self._send(old, payload)
        await self.dispatch("RESUMED", {}, only=old)
        return old

    async def _send(self, session: Session, payload: dict[str, Any]) -> None:
        if session.socket is None or session.socket.closed:
            return
        raw = json.dumps(payload)
        if session.deflate is None:
            await session.socket.send_str(raw)
        else:
            packed = session.deflate.compress(raw.encode()) + session.deflate.flush(zlib.Z_SYNC_FLUSH)
            await session.socket.send_bytes(packed)

    def _visible(self, event: str, data: dict[str, Any], session: Session) -> dict[str, Any]:
        """Without the Message Content intent, only what is for the bot can be read."""
        if not event.startswith("MESSAGE_") or "content" not in data or session.intents & MESSAGE_CONTENT_INTENT:
            return data
        is_for_bot = data["channel_id"] == str(DM) or any(
            one["id"] == str(session.bot) for one in data.get("mentions", [])
        )
        return data if is_for_bot else {**data, "content": "", "attachments": [], "components": []}

    # Interactions

    async def _interact(self, user: int, kind: int, data: dict[str, Any], channel: int, **fields: Any) -> Interaction:
        interaction = Interaction(self._id(), f"token-{self._id()}", channel, self._now())
        self.interactions[interaction.token] = interaction
        payload = {
            "id": interaction.id,
            "application_id": str(BOT),
            "type": kind,
            "data": data,
            "token": interaction.token,
            "version": 1,
            "channel_id": str(channel),
            "channel": self._channel(channel),
            "locale": "en-US",
            "entitlements": [],
            "authorizing_integration_owners": {},
            "context": 1 if channel == DM else 0,
            "app_permissions": ALL_PERMISSIONS,
            "attachment_size_limit": 10_000_000,
            **fields,
        }
        if channel == DM:
            payload["user"] = user_json(user)
        else:
            rights = self.permissions.get(user, MEMBER_PERMISSIONS)
            roles = [str(role) for role, holder in self._roles().items() if holder == user]
            payload |= {
                "guild_id": str(GUILD),
                "guild": {"id": str(GUILD), "locale": "en-US", "features": []},
                "member": {**member_json(user), "roles": roles, "permissions": rights},
            }
        await self.dispatch("INTERACTION_CREATE", payload)
        await self.until(lambda: interaction.callback or self._is_late(interaction), INTERACTION_SECONDS + 2)
        return interaction

    def _is_late(self, interaction: Interaction) -> bool:
        return interaction.callback is None and self._now() - interaction.created > INTERACTION_SECONDS


async def _body(request: web.Request) -> tuple[Any, dict[str, bytes]]:
    if not request.can_read_body:
        return None, {}
    if request.content_type == "application/json":
        raw = await request.text()
        return (json.loads(raw) if raw else None), {}
    form = await request.post()
    files = {one.filename: one.file.read() for one in form.values() if isinstance(one, web.FileField)}
    return json.loads(str(form["payload_json"])), files


def _json(data: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """With the bare content type that Discord sends, and discord.py looks for."""
    response = web.json_response(data, status=status, headers=headers)
    response.charset = None
    return response


def _too_long(body: dict[str, Any]) -> web.Response | None:
    if len(body.get("content") or "") > 2000:
        return _refused(400, 50035, "Invalid Form Body")
    return None


def _refused(status: int, code: int, message: str) -> web.Response:
    return _json({"code": code, "message": message}, status=status, headers={"Via": "1.1 fake"})


def _option(key: str, value: Any, server: FakeDiscord, resolved: dict[str, Any]) -> dict[str, Any]:
    if isinstance(value, int):
        channel = {**server._channel(value), "permissions": ALL_PERMISSIONS}
        resolved.setdefault("channels", {})[str(value)] = channel
        return {"name": key, "type": 7, "value": str(value)}
    return {"name": key, "type": 3, "value": value}
