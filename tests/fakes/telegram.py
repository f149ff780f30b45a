"""A wire-level fake of Telegram: the Bot API over HTTP, and the people who write to the bots.

`async with FakeTelegram() as telegram:` serves it on loopback; `telegram.url` is the bots' `telegram.base_url`.
`telegram.say(…)`, `press(…)`, `react(…)` are what people do; `telegram.calls` and each chat's `messages` are what
came of it. Every request is checked against Telegram's own description where that is at hand (`violations`).
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from typing import Any

import httpx
from aiohttp import web

from tests.fakes import telegram_spec
from tests.fakes.telegram_objects import NOW, Call, Chat, FakeBot, Fault, Json, Person, button, member_json

SECRET_HEADER = "X-Telegram-Bot-Api-Secret-Token"


class Refused(Exception):
    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.description)
        self.fault = fault


class FakeTelegram:
    """The server and the world behind it. `lacks` names methods that this server does not know."""

    def __init__(self, *, lacks: frozenset[str] = frozenset()) -> None:
        self.bots: dict[str, FakeBot] = {}
        self.chats: dict[int, Chat] = {}
        self.people: dict[int, Person] = {}
        self.calls: list[Call] = []
        self.violations: list[str] = []
        self.faults: dict[str, deque[Fault]] = defaultdict(deque)
        self.lacks = lacks
        self.is_down = False
        self.keeps_calls = True
        """Off for a benchmark: calls are neither kept nor checked."""
        self.on_send: Callable[[Json], None] | None = None
        self.changed = asyncio.Condition()
        self._numbers = itertools.count(1000)
        self._update_ids = itertools.count(500_000)

    # The people's side

    def add_bot(self, token: str = "7:TEST", username: str = "nocap_bot", *, reads_all: bool = True) -> FakeBot:
        person = Person(int(token.split(":")[0]), "nocap", username, is_bot=True)
        self.people[person.id] = person
        self.bots[token] = FakeBot(person, reads_all=reads_all)
        return self.bots[token]

    def person(self, id_: int, name: str, username: str | None = None) -> Person:
        return self.people.setdefault(id_, Person(id_, name, username))

    def group(self, id_: int = -1001, title: str = "the group", **options: Any) -> Chat:
        """A supergroup that every bot is a member of."""
        chat = Chat(id_, options.pop("type", "supergroup"), title, **options)
        chat.members.update({bot.person.id: "member" for bot in self.bots.values()})
        return self.chats.setdefault(id_, chat)

    def private(self, person: Person) -> Chat:
        """The person's chat with the bots, opened by them."""
        for bot in self.bots.values():
            bot.started_by.add(person.id)
        return self.chats.setdefault(person.id, Chat(person.id, "private"))

    def say(self, chat: Chat, person: Person, text: str | None = None, **extra: Any) -> Json:
        """A message arrives; `reply_to` is a message, `thread` a topic, further fields go in as they are."""
        message = self._message(chat, person, **extra)
        if text is not None:
            message |= {"text": text, "entities": list(_entities(text))}
        chat.members.setdefault(person.id, "member")
        chat.messages[message["message_id"]] = message
        self._announce("message", message)
        return message

    def edit(self, message: Json, text: str) -> None:
        message |= {"text": text, "entities": list(_entities(text)), "edit_date": message["date"] + 1}
        self._announce("edited_message", message)

    def press(self, message: Json, label: str, person: Person, bot: FakeBot | None = None) -> str:
        """Presses the button whose label holds `label`; the callback query's id."""
        return self.press_data(message, button(message, label)["callback_data"], person, bot)

    def press_data(self, message: Json, data: str, person: Person, bot: FakeBot | None = None) -> str:
        query = {"id": str(next(self._numbers)), "from": person.as_json, "message": message, "data": data}
        owner = bot or next(one for one in self.bots.values() if one.person.id == message["from"]["id"])
        self._push(owner, "callback_query", query | {"chat_instance": "1"})
        return str(query["id"])

    def react(self, message: Json, person: Person, new: list[str], old: list[str] | None = None) -> None:
        kinds = ({"type": "emoji", "emoji": emoji} for emoji in new)
        before = [{"type": "emoji", "emoji": emoji} for emoji in old or []]
        update = {"chat": message["chat"], "message_id": message["message_id"], "user": person.as_json, "date": NOW}
        for bot in self.bots.values():
            if self.chats[message["chat"]["id"]].members.get(bot.person.id) in ("administrator", "creator"):
                self._push(bot, "message_reaction", update | {"old_reaction": before, "new_reaction": list(kinds)})

    def set_bot_status(self, chat: Chat, bot: FakeBot, status: str, by: Person) -> None:
        """Adds, kicks or promotes the bot."""
        before = chat.members.get(bot.person.id, "left")
        chat.members[bot.person.id] = status
        member = {
            "old_chat_member": member_json(bot.person, before),
            "new_chat_member": member_json(bot.person, status),
        }
        update = {"chat": chat.as_json, "from": by.as_json, "date": NOW, **member}
        self._push(bot, "my_chat_member", update)

    def migrate(self, chat: Chat, new_id: int) -> Chat:
        """The group becomes a supergroup; both service messages are sent."""
        new = Chat(new_id, "supergroup", chat.title, members=dict(chat.members))
        self.chats[new_id] = new
        chat.migrated_to = new_id
        anybody = next(one for one in self.people.values() if not one.is_bot)
        self._announce("message", self._message(chat, anybody) | {"migrate_to_chat_id": new_id})
        self._announce("message", self._message(new, anybody) | {"migrate_from_chat_id": chat.id})
        return new

    def repeat_last_update(self, bot: FakeBot, update: Json) -> None:
        """Telegram delivers an update once more, under the same id."""
        bot.pending.append(update)
        bot.arrived.set()

    # What came of it

    def made(self, method: str) -> list[Call]:
        return [call for call in self.calls if call.method == method]

    def answers(self, chat: Chat) -> list[Json]:
        """What the bots with a token have said there, as it stands now."""
        ours = {bot.person.id for bot in self.bots.values()}
        return [one for one in chat.messages.values() if one["from"]["id"] in ours]

    async def until(self, condition: Callable[[], Any], seconds: float = 60) -> Any:
        """Waits until the condition holds; it is looked at after every request."""

        async def wait() -> Any:
            async with self.changed:
                while not (result := condition()):
                    await self.changed.wait()
                return result

        return await asyncio.wait_for(wait(), seconds)

    async def answer_in(self, chat: Chat, count: int = 1) -> Json:
        """The `count`-th thing that bots said there."""
        await self.until(lambda: len(self.answers(chat)) >= count)
        return self.answers(chat)[count - 1]

    async def answered(self, query: str) -> Call:
        """How the callback query was answered."""
        await self.until(lambda: any(c.params["callback_query_id"] == query for c in self.made("answerCallbackQuery")))
        return next(c for c in self.made("answerCallbackQuery") if c.params["callback_query_id"] == query)

    # The wire

    async def __aenter__(self) -> FakeTelegram:
        app = web.Application()
        app.router.add_route("*", "/bot{token}/{method}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        self._caller = httpx.AsyncClient(trust_env=False)
        self._deliveries: set[asyncio.Task[None]] = set()
        return self

    async def __aexit__(self, *failure: object) -> None:
        for task in self._deliveries:
            task.cancel()
        await asyncio.gather(*self._deliveries, return_exceptions=True)
        await self._caller.aclose()
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.Response:
        token, method = request.match_info["token"], request.match_info["method"]
        params = await _params(request)
        call = Call(method, params, token, time.monotonic())
        if self.keeps_calls:
            self.calls.append(call)
            self.violations += telegram_spec.violations(method, params)
        try:
            result = await self._answer(call)
        except Refused as refused:
            if refused.fault.is_lost and request.transport is not None:
                request.transport.abort()
            response = _refusal(refused.fault)
        else:
            response = web.json_response({"ok": True, "result": result})
        async with self.changed:
            self.changed.notify_all()
        return response

    async def _answer(self, call: Call) -> Any:
        if self.is_down:
            raise Refused(Fault(502, "Bad Gateway"))
        bot = self.bots.get(call.token)
        if bot is None:
            raise Refused(Fault(401, "Unauthorized"))
        if call.method in self.lacks:
            raise Refused(Fault(404, "Not Found"))
        fault = self._fault(call)
        if fault and not fault.is_lost:
            raise Refused(fault)
        handler = getattr(self, f"_do_{call.method}", None)
        result = await handler(bot, call.params) if handler else True
        if fault:
            raise Refused(fault)
        return result

    def _fault(self, call: Call) -> Fault | None:
        waiting = self.faults[call.method]
        fault = next(
            (one for one in waiting if one.chat_id is None or str(one.chat_id) == call.params.get("chat_id")), None
        )
        if fault is not None:
            waiting.remove(fault)
        return fault

    # Methods

    async def _do_getMe(self, bot: FakeBot, params: Json) -> Json:
        flags = {"can_join_groups": True, "can_read_all_group_messages": bot.reads_all}
        return bot.person.as_json | flags | {"supports_inline_queries": False}

    async def _do_getUpdates(self, bot: FakeBot, params: Json) -> list[Json]:
        if bot.webhook:
            raise Refused(Fault(409, "Conflict: can't use getUpdates method while webhook is active"))
        if "allowed_updates" in params:
            bot.allowed = json.loads(params["allowed_updates"])
        offset = int(params.get("offset", 0))
        while bot.pending and bot.pending[0]["update_id"] < offset:
            bot.pending.popleft()
        if not bot.pending:
            bot.arrived.clear()
            try:
                await asyncio.wait_for(bot.arrived.wait(), float(params.get("timeout", 0)))
            except TimeoutError:
                return []
        return list(bot.pending)[: int(params.get("limit", 100))]

    async def _do_setWebhook(self, bot: FakeBot, params: Json) -> bool:
        bot.webhook, bot.secret = params["url"] or None, params.get("secret_token")
        if "allowed_updates" in params:
            bot.allowed = json.loads(params["allowed_updates"])
        waiting, bot.pending = bot.pending, deque()
        for update in waiting:
            self._deliver(bot, update)
        return True

    async def _do_deleteWebhook(self, bot: FakeBot, params: Json) -> bool:
        bot.webhook = None
        return True

    async def _do_getWebhookInfo(self, bot: FakeBot, params: Json) -> Json:
        return {"url": bot.webhook or "", "has_custom_certificate": False, "pending_update_count": len(bot.pending)}

    async def _do_sendMessage(self, bot: FakeBot, params: Json) -> Json:
        chat = self._chat_for(bot, params)
        _check_text(params)
        sent = self._sent(bot, chat, params) | _shown(params)
        chat.messages[sent["message_id"]] = sent
        if self.on_send:
            self.on_send(sent)
        return sent

    async def _do_sendDocument(self, bot: FakeBot, params: Json) -> Json:
        chat = self._chat_for(bot, params)
        document = {"file_id": "f1", "file_unique_id": "u1", "file_name": "export.json"}
        sent = self._sent(bot, chat, params) | {"document": document, "caption": params.get("caption", "")}
        content = next(value for value in params.values() if isinstance(value, bytes))
        chat.messages[sent["message_id"]] = sent | {"content": content}
        return sent

    async def _do_sendMessageDraft(self, bot: FakeBot, params: Json) -> bool:
        if self._chat_for(bot, params).type != "private":
            raise Refused(Fault(400, "Bad Request: TEXTDRAFT_PEER_INVALID"))
        return True

    async def _do_sendChatAction(self, bot: FakeBot, params: Json) -> bool:
        self._chat_for(bot, params)
        return True

    async def _do_editMessageText(self, bot: FakeBot, params: Json) -> Json:
        message = self._own(bot, params)
        _check_text(params)
        new = _shown(params)
        if new["text"] == message.get("text") and new.get("reply_markup") == message.get("reply_markup"):
            raise Refused(Fault(400, "Bad Request: message is not modified"))
        message.pop("reply_markup", None)
        message |= new
        return message

    async def _do_editMessageReplyMarkup(self, bot: FakeBot, params: Json) -> Json:
        message = self._own(bot, params)
        message.pop("reply_markup", None)
        if "reply_markup" in params:
            message["reply_markup"] = json.loads(params["reply_markup"])
        return message

    async def _do_deleteMessage(self, bot: FakeBot, params: Json) -> bool:
        chat = self._chat_for(bot, params)
        if chat.messages.pop(int(params["message_id"]), None) is None:
            raise Refused(Fault(400, "Bad Request: message to delete not found"))
        return True

    async def _do_answerCallbackQuery(self, bot: FakeBot, params: Json) -> bool:
        if len(params.get("text", "")) > 200:
            raise Refused(Fault(400, "Bad Request: MESSAGE_TOO_LONG"))
        return True

    async def _do_getChatMember(self, bot: FakeBot, params: Json) -> Json:
        chat = self._chat_for(bot, params)
        person = self.people.get(int(params["user_id"]))
        if person is None:
            raise Refused(Fault(400, "Bad Request: user not found"))
        return member_json(person, chat.members.get(person.id, "left"))

    async def _do_getChat(self, bot: FakeBot, params: Json) -> Json:
        gifts = ("unlimited_gifts", "limited_gifts", "unique_gifts", "premium_subscription", "gifts_from_channels")
        accepted = dict.fromkeys(gifts, False)
        limits = {"accent_color_id": 0, "max_reaction_count": 11, "accepted_gift_types": accepted}
        return self._chat_for(bot, params).as_json | limits

    # Helpers

    def _chat_for(self, bot: FakeBot, params: Json) -> Chat:
        chat = self.chats.get(int(params["chat_id"]))
        if chat is None and int(params["chat_id"]) in self.people:
            raise Refused(Fault(403, "Forbidden: bot can't initiate conversation with a user"))
        if chat is None:
            raise Refused(Fault(400, "Bad Request: chat not found"))
        if chat.migrated_to:
            moved = "Bad Request: group chat was upgraded to a supergroup chat"
            raise Refused(Fault(400, moved, migrate_to=chat.migrated_to))
        if chat.type == "private" and chat.id not in bot.started_by:
            raise Refused(Fault(403, "Forbidden: bot can't initiate conversation with a user"))
        if chat.type == "private" and chat.id in bot.blocked_by:
            raise Refused(Fault(403, "Forbidden: bot was blocked by the user"))
        if chat.type != "private" and chat.members.get(bot.person.id) in (None, "left", "kicked"):
            raise Refused(Fault(403, "Forbidden: bot was kicked from the supergroup chat"))
        return chat

    def _own(self, bot: FakeBot, params: Json) -> Json:
        message = self._chat_for(bot, params).messages.get(int(params["message_id"]))
        if message is None or message["from"]["id"] != bot.person.id:
            raise Refused(Fault(400, "Bad Request: message to edit not found"))
        return message

    def _sent(self, bot: FakeBot, chat: Chat, params: Json) -> Json:
        thread = int(params["message_thread_id"]) if "message_thread_id" in params else None
        if thread is not None and not (chat.is_forum or chat.type == "private"):
            raise Refused(Fault(400, "Bad Request: message thread not found"))
        reply = json.loads(params["reply_parameters"]) if "reply_parameters" in params else None
        original = chat.messages.get(reply["message_id"]) if reply else None
        if reply and original is None and not reply.get("allow_sending_without_reply"):
            raise Refused(Fault(400, "Bad Request: message to be replied not found"))
        return self._message(chat, bot.person, reply_to=original, thread=thread)

    def _message(
        self, chat: Chat, person: Person, *, reply_to: Json | None = None, thread: int | None = None, **extra: Any
    ) -> Json:
        message = {"message_id": next(self._numbers), "date": NOW, "chat": chat.as_json, "from": person.as_json}
        if chat.type == "private":
            named = {"first_name": person.first_name}
            message["chat"] = chat.as_json | named
        if reply_to is not None:
            message["reply_to_message"] = {key: value for key, value in reply_to.items() if key != "reply_to_message"}
        if thread is not None:
            message |= {"message_thread_id": thread, "is_topic_message": True}
        return message | extra

    def _announce(self, kind: str, message: Json) -> None:
        for bot in self.bots.values():
            if bot.person.id != message["from"]["id"] and self._may_see(bot, message):
                self._push(bot, kind, message)

    def _may_see(self, bot: FakeBot, message: Json) -> bool:
        """Membership and privacy mode (https://core.telegram.org/bots/features#privacy-mode)."""
        chat = self.chats[message["chat"]["id"]]
        if chat.type == "private":
            return chat.id in bot.started_by
        status = chat.members.get(bot.person.id)
        if status in (None, "left", "kicked"):
            return False
        if bot.reads_all or status == "administrator" or "text" not in message:
            return True
        replied = message.get("reply_to_message", {}).get("from", {}).get("id") == bot.person.id
        return replied or message["text"].startswith("/") or f"@{bot.person.username}" in message["text"]

    def _push(self, bot: FakeBot, kind: str, content: Json) -> None:
        default_off = ("message_reaction", "chat_member")
        if kind not in bot.allowed if bot.allowed else kind in default_off:
            return
        update = {"update_id": next(self._update_ids), kind: json.loads(json.dumps(content))}
        if bot.webhook:
            self._deliver(bot, update)
        else:
            bot.pending.append(update)
            bot.arrived.set()

    def _deliver(self, bot: FakeBot, update: Json) -> None:
        async def post() -> None:
            headers = {SECRET_HEADER: bot.secret} if bot.secret else {}
            for _ in range(20):
                try:
                    response = await self._caller.post(bot.webhook or "", json=update, headers=headers)
                except httpx.HTTPError:
                    response = None
                if response is not None and response.is_success:
                    return
                await asyncio.sleep(0.1)

        task = asyncio.get_running_loop().create_task(post())
        self._deliveries.add(task)
        task.add_done_callback(self._deliveries.discard)


async def _params(request: web.Request) -> Json:
    if request.content_type == "application/json":
        loaded: Json = await request.json()
        return loaded
    form = await request.post()
    return {name: value.file.read() if isinstance(value, web.FileField) else value for name, value in form.items()}


def _refusal(fault: Fault) -> web.Response:
    if fault.status >= 500:
        return web.Response(status=fault.status, text="<html>Bad Gateway</html>", content_type="text/html")
    body: Json = {"ok": False, "error_code": fault.status, "description": fault.description}
    if fault.retry_after is not None:
        body["parameters"] = {"retry_after": fault.retry_after}
    if fault.migrate_to is not None:
        body["parameters"] = {"migrate_to_chat_id": fault.migrate_to}
    return web.json_response(body, status=fault.status)


def _check_text(params: Json) -> None:
    length = len(params["text"].encode("utf-16-le")) // 2
    if not params["text"].strip():
        raise Refused(Fault(400, "Bad Request: message text is empty"))
    if length > 4096:
        raise Refused(Fault(400, "Bad Request: message is too long"))
    for entity in json.loads(params.get("entities", "[]")):
        if entity["length"] <= 0 or entity["offset"] + entity["length"] > length:
            raise Refused(Fault(400, "Bad Request: ENTITY_BOUNDS_INVALID"))
    for row in json.loads(params.get("reply_markup", "{}")).get("inline_keyboard", []):
        for one in row:
            if "callback_data" in one and not 1 <= len(one["callback_data"].encode()) <= 64:
                raise Refused(Fault(400, "Bad Request: BUTTON_DATA_INVALID"))


def _shown(params: Json) -> Json:
    markup = {"reply_markup": json.loads(params["reply_markup"])} if "reply_markup" in params else {}
    return {"text": params["text"], "entities": json.loads(params.get("entities", "[]")), **markup}


def _entities(text: str) -> Iterator[Json]:
    """What Telegram marks by itself: commands and mentions, counted in UTF-16 units."""
    for kind, pattern in (("bot_command", r"(?<!\S)/\w+(?:@\w+)?"), ("mention", r"(?<!\w)@\w{4,}")):
        for found in re.finditer(pattern, text):
            start = len(text[: found.start()].encode("utf-16-le")) // 2
            yield {"type": kind, "offset": start, "length": len(found[0].encode("utf-16-le")) // 2}
