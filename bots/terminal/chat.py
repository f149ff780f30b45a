"""`nocap chat`: the conversation in a terminal, or in a pipe."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

from rich.console import Console

from bots import messages
from bots.commands import Commands
from bots.conversation import Conversation
from bots.incidents import report_incident
from bots.records import Incoming
from bots.terminal.interrupts import Interrupted, Interrupts
from bots.terminal.reading import ReadLine, StandardInput
from bots.turn import Turn
from nocap.domain import (
    ChannelKey,
    Clock,
    DuelChoice,
    MemberKey,
    MessageKey,
    Provenance,
    VoiceName,
    Vote,
)
from nocap.errors import InputError
from storage.channels import ensure_channel, get_channel
from storage.database import Database

PLATFORM = "terminal"
PROMPT = "you> "
DEFAULT_EXPORT = "nocap-mydata.json"
_CHOICES = {
    "left": DuelChoice.LEFT,
    "l": DuelChoice.LEFT,
    "right": DuelChoice.RIGHT,
    "r": DuelChoice.RIGHT,
    "tie": DuelChoice.TIE,
    "both": DuelChoice.BOTH_BAD,
    "both bad": DuelChoice.BOTH_BAD,
}


async def chat_in_terminal(
    conversation: Conversation,
    *,
    user: str,
    voice: VoiceName,
    console: Console,
    read: ReadLine | None = None,
) -> None:
    """Talks with `user` until the input ends; the same user meets the same channel and pseudonym every time."""
    database = conversation.database
    channel = ChannelKey(database.keyring.pseudonym("channel", PLATFORM, f"{user}/{voice}"))
    member = MemberKey(database.keyring.pseudonym("member", PLATFORM, user))
    is_new = await asyncio.to_thread(_open_channel, database, channel, voice, conversation.clock)
    commands = Commands(database, conversation.settings, conversation.clock, conversation.memory)
    console.out(messages.WELCOME if is_new else messages.WELCOME_BACK, highlight=False)
    await run_terminal_chat(conversation, commands, channel, member, console, read or StandardInput())


async def run_terminal_chat(
    conversation: Conversation,
    commands: Commands,
    channel: ChannelKey,
    member: MemberKey,
    console: Console,
    read: ReadLine,
) -> None:
    """Runs until `/quit`, the end of the input, or Ctrl-C at the prompt; Ctrl-C in an answer ends that answer."""
    await _TerminalChat(conversation, commands, channel, member, console, read).run()


class _TerminalChat:
    def __init__(
        self,
        conversation: Conversation,
        commands: Commands,
        channel: ChannelKey,
        member: MemberKey,
        console: Console,
        read: ReadLine,
    ) -> None:
        self._conversation = conversation
        self._commands = commands
        self._channel = channel
        self._member = member
        self._console = console
        self._read = read
        self._last_reply: int | None = None
        self._interrupts = Interrupts()
        self._pushed_back: str | None = None
        self._handlers: dict[str, Callable[[str], Awaitable[None]]] = {
            "/up": lambda _: self._vote(Vote.UP),
            "/down": lambda _: self._vote(Vote.DOWN),
            "/cringe": lambda _: self._vote(Vote.CRINGE),
            "/undo": lambda _: self._vote(None),
            "/duel": self._duel,
            "/slang": self._slang,
            "/consent": self._consent,
            "/mydata": self._mydata,
            "/privacy": lambda _: self._say(self._commands.privacy()),
            "/help": lambda _: self._say(self._commands.help()),
        }

    async def run(self) -> None:
        with self._interrupts:
            while (line := await self._next_line(PROMPT)) is not None:
                if line.strip() == "/quit":
                    break
                if line.strip():
                    await self._handle(line.strip())
        await self._say(messages.GOODBYE)

    async def _handle(self, line: str) -> None:
        name, _, rest = line.partition(" ")
        handler = self._handlers.get(name.casefold()) if line.startswith("/") else None
        try:
            if handler is not None:
                await self._interrupts.run(handler(rest.strip()))
            elif line.startswith("/"):
                await self._say(messages.UNKNOWN_COMMAND)
            else:
                await self._interrupts.run(self._chat(line))
        except Interrupted:
            await self._say(messages.STOPPED)
        except Exception as error:
            await self._say(messages.failure(error, report_incident("terminal", error, self._channel)))

    async def _chat(self, text: str) -> None:
        turn = await self._conversation.turn(self._incoming(text))
        await self._show(turn)
        self._last_reply = turn.reply_id

    async def _show(self, turn: Turn) -> None:
        async with aclosing(turn):
            async for piece in turn:
                self._console.out(piece, end="", highlight=False)
        await self._say("" if turn.text else messages.CHANNEL_OFF)

    async def _vote(self, vote: Vote | None) -> None:
        if self._last_reply is None:
            await self._say(messages.NOTHING_TO_VOTE_ON)
            return
        try:
            await self._conversation.vote(self._last_reply, self._member, vote)
            await self._say(messages.voted(vote))
        except InputError:
            await self._say(messages.UNKNOWN_REPLY)

    async def _duel(self, text: str) -> None:
        if not text:
            await self._say(messages.DUEL_USAGE)
            return
        duel = await self._conversation.duel(self._incoming(text))
        if isinstance(duel, Turn):
            await self._show(duel)
            return
        await self._say(f"left:  {duel.left}\nright: {duel.right}\n{messages.DUEL_ASK}")
        answer = await self._read(PROMPT)
        choice = _CHOICES.get((answer or "").strip().casefold())
        if choice is None:
            self._pushed_back = answer
            await self._say(messages.DUEL_SKIPPED)
            return
        reveal = await self._conversation.duel_vote(duel.duel_id, self._member, choice)
        await self._say(messages.revealed(reveal.left, reveal.right, reveal.choice))

    async def _slang(self, term: str) -> None:
        await self._say(await self._commands.slang(self._channel, term))

    async def _consent(self, words: str) -> None:
        await self._say(await self._commands.consent(self._member, self._channel, words))

    async def _mydata(self, words: str) -> None:
        verb, _, rest = words.partition(" ")
        if verb == "export":
            await self._export(Path(rest.strip() or DEFAULT_EXPORT))
        elif verb == "delete":
            await self._say(f"{messages.ERASE_ASK} {messages.TYPE_YES}")
            if ((await self._read(PROMPT)) or "").strip().casefold() == "yes":
                await self._say(await self._commands.erase(self._member))
            else:
                await self._say(messages.NOT_ERASED)
        else:
            await self._say(messages.MYDATA_USAGE)

    async def _export(self, file: Path) -> None:
        held = await self._commands.export(self._member)
        try:
            await asyncio.to_thread(_write_private, file, held)
        except OSError as error:
            await self._say(messages.export_refused(str(file), error.strerror or type(error).__name__))
        else:
            await self._say(messages.exported(str(file)))

    async def _say(self, text: str) -> None:
        self._console.out(text, highlight=False)

    async def _next_line(self, prompt: str) -> str | None:
        line, self._pushed_back = self._pushed_back, None
        if line is not None:
            return line
        try:
            return await self._interrupts.run(self._read(prompt))
        except Interrupted:
            self._console.out()
            return None

    def _incoming(self, text: str) -> Incoming:
        return Incoming(
            platform=PLATFORM,
            channel=self._channel,
            member=self._member,
            message_key=MessageKey(secrets.token_hex(16)),
            text=text,
            sent_at=self._conversation.clock(),
            provenance=Provenance.TERMINAL,
        )


def _open_channel(database: Database, channel: ChannelKey, voice: VoiceName, clock: Clock) -> bool:
    """Whether the channel is new. It collects: its one member is its moderator, and consent decides the rest."""
    with database.read() as session:
        if get_channel(session, channel) is not None:
            return False
    with database.write() as session:
        ensure_channel(session, channel, platform=PLATFORM, label=PLATFORM, voice=voice, at=clock(), collect=True)
    return True


def _write_private(file: Path, text: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        out.write(text)
