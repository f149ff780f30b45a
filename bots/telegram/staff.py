"""Moderators' and operators' commands; who may is decided by `bots.callers`, anew with every command and button."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from telegram import InlineKeyboardMarkup, Message

from bots import staff_messages
from bots.callers import Caller
from bots.core import BotCore
from bots.moderation import Change, Target
from bots.telegram import keyboards, sentences
from bots.telegram.addressing import PRIVATE
from bots.telegram.chats import Chats
from bots.telegram.members import Handler, Request
from nocap.domain import ChannelMode, RunId, SlangStatus, VoiceName
from nocap.errors import InputError

Say = Callable[[Message, str, InlineKeyboardMarkup | None], Awaitable[None]]
_SWITCH = {"on": True, "off": False}
_REVIEWS = {"approve": SlangStatus.APPROVED, "block": SlangStatus.BLOCKED, "dismiss": SlangStatus.DISMISSED}


class StaffCommands:
    """`handlers` has one for each command. `sees_all` tells whether the bot sees every message of a chat."""

    def __init__(self, core: BotCore, chats: Chats, say: Say, sees_all: Callable[[int], Awaitable[bool]]) -> None:
        self._core = core
        self._chats = chats
        self._say = say
        self._sees_all = sees_all
        self.handlers: dict[str, Handler] = {
            "channel": self._channel,
            "settings": self._settings,
            "slang": self._slang,
            "reports": self._reports,
            "nocap": self._operate,
        }

    def target(self, message: Message) -> Target:
        return Target(self._chats.channel(message.chat.id), message.chat.title or "this chat")

    async def _settings(self, request: Request) -> None:
        await self._channel(Request(request.message, request.user, "status"))

    async def _channel(self, request: Request) -> None:
        caller, target = await self._chat_owner(request), self.target(request.message)
        verb, rest = request.first_and_rest
        if verb in ("", "status"):
            text = await self._core.moderation.status(caller, [target])
        elif verb == "purge":
            await self._core.moderation.status(caller, [target])  # says no to whoever may not
            asked = staff_messages.PURGE_ASK.format(label=target.label)
            await self._say(request.message, asked, keyboards.purge())
            return
        else:
            change = _change(verb, rest)
            text = await self._core.moderation.change(caller, [target], change)
            listens = change.collect or change.mode is ChannelMode.ALWAYS
            if listens and not await self._sees_all(request.message.chat.id):
                text += f"\n{sentences.PRIVACY_MODE}"
        await self._say(request.message, text, None)

    async def _slang(self, request: Request) -> None:
        verb, rest = request.first_and_rest
        channel = self._chats.channel(request.message.chat.id)
        if verb == "queue":
            text, terms = await self._core.moderation.slang_queue(await self._chats.author(request.message), channel)
            await self._say(request.message, text, keyboards.slang_queue(terms))
        elif verb in _REVIEWS and rest:
            text = await self._review(request, _REVIEWS[verb], rest)
            await self._say(request.message, text, None)
        else:
            await self._say(request.message, await self._core.commands.slang(channel, request.words), None)

    async def _review(self, request: Request, status: SlangStatus, words: str) -> str:
        """`TERM`, `TERM: MEANING`, or `TERM MEANING` with the longest term that is known."""
        caller = await self._chats.author(request.message)
        channel = self._chats.channel(request.message.chat.id)
        for term, gloss in _readings(words):
            try:
                return await self._core.moderation.review_slang(caller, channel, term, status, gloss)
            except InputError as error:
                unknown = error
        raise unknown

    async def _reports(self, request: Request) -> None:
        caller, target = await self._chat_owner(request), self.target(request.message)
        text, ids = await self._core.moderation.reports(caller, [target.key])
        await self._say(request.message, text, keyboards.reports(ids))

    async def _operate(self, request: Request) -> None:
        caller = await self._chats.author(request.message)
        operations, (verb, rest) = self._core.operations, request.first_and_rest
        markup = None
        match verb, rest:
            case "retrain", "now" | "":
                text = await operations.retrain_now(caller)
            case "runs", _:
                text = await operations.runs(caller)
            case "gates", run if run:
                text = f"```\n{await operations.gates(caller, RunId(run))}\n```"
            case "adapters", _:
                text = await operations.adapters(caller)
            case "rollback", name:
                proposal = await operations.propose_rollback(caller, name or None)
                text, markup = proposal.question, keyboards.rollback(proposal.name)
            case "promote", name if name:
                proposal = await operations.propose_promotion(caller, name)
                text, markup = proposal.question, keyboards.promote(proposal.name)
            case _:
                text = await operations.status(caller)
                text += "" if verb in ("", "status") else f"\n{sentences.OPERATOR_HELP}"
        await self._say(request.message, text, markup)

    async def _chat_owner(self, request: Request) -> Caller:
        """The author; in a private chat the member decides on its settings, and on nothing that others share."""
        caller = await self._chats.author(request.message)
        if request.message.chat.type == PRIVATE:
            return Caller(caller.platform, caller.member, True, caller.is_operator)
        return caller


def _change(verb: str, value: str) -> Change:
    """Raises InputError for what is no setting."""
    word = value.casefold()
    if verb in ("enable", "disable"):
        return Change(mode=ChannelMode.MENTION if verb == "enable" else ChannelMode.OFF)
    if verb == "mode" and word in list(ChannelMode):
        return Change(mode=ChannelMode(word))
    if verb == "collect" and word in _SWITCH:
        return Change(collect=_SWITCH[word])
    if verb == "duels" and word in _SWITCH:
        return Change(duels=_SWITCH[word])
    if verb == "voice" and word:
        return Change(voice=VoiceName(word))
    raise InputError(sentences.CHANNEL_USAGE)


def _readings(words: str) -> list[tuple[str, str | None]]:
    """How `TERM MEANING` may be meant, most likely first."""
    term, separator, gloss = words.partition(":")
    if separator and term.strip():
        return [(term.strip(), gloss.strip() or None)]
    parts = words.split()
    return [(" ".join(parts[:end]), " ".join(parts[end:]) or None) for end in range(len(parts), 0, -1)]
