"""Members' commands. What is between the member and the bot alone is said in private."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from telegram import InlineKeyboardMarkup, InputFile, Message, User

from bots import messages
from bots.telegram import keyboards, sentences
from bots.telegram.chats import place_of
from bots.telegram.face import Face
from bots.telegram.formatting import parts_of
from bots.telegram.outbox import Place
from nocap.domain import ChannelKey

_CHANNEL_KEY = re.compile(r"c_([0-9a-f]{32})")


@dataclass(frozen=True, slots=True)
class Request:
    """A command with what follows it, from a person."""

    message: Message
    user: User
    words: str

    @property
    def is_private(self) -> bool:
        return place_of(self.message).is_private

    @property
    def first_and_rest(self) -> tuple[str, str]:
        first, _, rest = self.words.partition(" ")
        return first.casefold(), rest.strip()


Handler = Callable[[Request], Awaitable[None]]


class MemberCommands(Face):
    """`handlers` has one for each command."""

    def __post_init__(self) -> None:
        self.handlers: dict[str, Handler] = {
            "start": self._start,
            "help": self._help,
            "privacy": lambda one: self.say(one.message, self.core.commands.privacy()),
            "ask": self._ask,
            "duel": self._duel,
            "consent": self._consent,
            "mydata": self._mydata,
            "forget": self._forget,
            "report": self._report,
            "whatsnew": self._whatsnew,
        }

    async def say(self, message: Message, text: str, markup: InlineKeyboardMarkup | None = None) -> None:
        """Says it in the chat of the message, below it."""
        await self.write(place_of(message), text, markup)

    async def write(self, place: Place, text: str, markup: InlineKeyboardMarkup | None = None) -> bool:
        """Whether the chat has taken it, in as many messages as it needs."""
        parts = parts_of(text)
        for number, (part, entities) in enumerate(parts):
            below = markup if number == len(parts) - 1 else None
            if await self.outbox.send(place, part, entities, below) is None:
                return False
        return True

    async def _start(self, request: Request) -> None:
        payload = request.words
        if found := _CHANNEL_KEY.fullmatch(payload):
            await self._show_consent(request, ChannelKey(found[1]), "")
        elif payload in ("export", "delete"):
            await self._mydata(Request(request.message, request.user, payload))
        else:
            await self.say(request.message, messages.WELCOME if request.is_private else sentences.WELCOME_GROUP)

    async def _help(self, request: Request) -> None:
        lines = [sentences.HELP]
        caller = await self.chats.author(request.message)
        if caller.is_moderator or caller.is_operator:
            lines.append(sentences.MODERATOR_HELP)
        if caller.is_operator:
            lines.append(sentences.OPERATOR_HELP)
        await self.say(request.message, "\n\n".join(lines))

    async def _ask(self, request: Request) -> None:
        if not request.words:
            await self.say(request.message, sentences.ASK_USAGE)
            return
        incoming = self.chats.incoming(request.message, request.words, is_for_bot=True)
        await self.answers.answer(incoming, place_of(request.message))

    async def _duel(self, request: Request) -> None:
        if not request.words:
            await self.say(request.message, messages.DUEL_USAGE)
            return
        incoming = self.chats.incoming(request.message, request.words, is_for_bot=True)
        await self.answers.duel(incoming, place_of(request.message))

    async def _consent(self, request: Request) -> None:
        await self._show_consent(request, self.chats.channel(request.message.chat.id), request.words)

    async def _show_consent(self, request: Request, channel: ChannelKey, words: str) -> None:
        """What the member agrees to in that chat, changed first where the words say so."""
        member = self.chats.member(request.user)
        text = await self.core.commands.consent(member, channel, words)
        text = sentences.consent_in(await self.chats.label(channel), text)
        state = await self.core.commands.consent_state(member, channel)
        await self._privately(
            request, f"c_{channel}", text, keyboards.consent(channel, state, self.core.commands.minimum_age)
        )

    async def _mydata(self, request: Request) -> None:
        verb, _ = request.first_and_rest
        if verb == "delete":
            await self._privately(request, "delete", messages.ERASE_ASK, keyboards.erase())
        elif verb == "export":
            await self._export(request)
        else:
            await self.say(request.message, sentences.MYDATA_USAGE)

    async def _export(self, request: Request) -> None:
        held = await self.core.commands.export(self.chats.member(request.user))
        file = InputFile(held.encode(), filename=f"nocap-mydata-{datetime.now(UTC):%Y-%m-%d}.json")
        if not await self.outbox.send_file(request.user.id, file, sentences.EXPORT_CAPTION):
            await self._invite(request, "export")
        elif not request.is_private:
            await self.say(request.message, sentences.IN_PRIVATE)

    async def _forget(self, request: Request) -> None:
        """Telegram does not tell bots of deletions, so this is how a message is taken back."""
        original = request.message.reply_to_message
        if original is None or original.from_user is None:
            await self.say(request.message, sentences.REPLY_TO_FORGET)
        elif original.from_user.id != request.user.id:
            await self.say(request.message, sentences.NOT_YOURS)
        else:
            key = self.core.identity.message(request.message.chat.id, original.message_id)
            await self.core.conversation.deleted(key)
            await self.say(request.message, sentences.FORGOTTEN)

    async def _report(self, request: Request) -> None:
        original, chat_id = request.message.reply_to_message, request.message.chat.id
        reply_id = None
        if original is not None:
            reply_id = await self.core.conversation.reply_of(self.core.identity.message(chat_id, original.message_id))
        channel, member = self.chats.channel(chat_id), self.chats.member(request.user)
        await self.say(request.message, await self.core.commands.report(member, channel, reply_id, request.words))

    async def _whatsnew(self, request: Request) -> None:
        channel = self.chats.channel(request.message.chat.id)
        await self.say(request.message, await self.core.commands.whatsnew(channel))

    async def _privately(self, request: Request, start: str, text: str, markup: InlineKeyboardMarkup) -> None:
        """In the member's private chat; whom the bot may not write to is given the way there."""
        if request.is_private:
            await self.say(request.message, text, markup)
        elif await self.write(Place(request.user.id, is_private=True), text, markup):
            await self.say(request.message, sentences.IN_PRIVATE)
        else:
            await self._invite(request, start)

    async def _invite(self, request: Request, start: str) -> None:
        button = keyboards.open_privately(self.me.username or "", start, sentences.OPEN_LABEL)
        await self.say(request.message, sentences.OPEN_PRIVATE, button)
