"""A platform-free turn: a member's message in, a stream of text out, and what may be kept of it recorded."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager

from bots import messages
from bots.duels import DuelReveal, DuelTurn, draw_duel
from bots.guard import guard, guarded
from bots.incidents import report_incident
from bots.limits import Limited, RateLimits
from bots.memory import ContextMemory, Remembered
from bots.records import Exchange, Incoming, Listening, Prepared, Records, exchange_of
from bots.turn import Outcome, Turn
from inference.prompt import chat_messages
from inference.responder import ReplyRequest, ReplyStream, Responder
from nocap.domain import (
    AdapterName,
    ChannelKey,
    ChannelMode,
    ChatMessage,
    Clock,
    DuelChoice,
    MemberKey,
    MessageKey,
    Provenance,
    SamplingOptions,
    VoiceName,
    Vote,
)
from nocap.errors import NotPermitted, PromptTooLong
from nocap.settings import Settings
from storage.database import Database

DUEL_COST_TURNS = 2
MOST_WAITING = 3
"""Answers of one member that may be waited for at once: a slow backend piles nothing up."""
REMEMBERED_DELETIONS = 2_000


class Conversation:
    """Turns, votes and duels of one process, over one database and one responder."""

    def __init__(
        self,
        database: Database,
        responder: Responder,
        settings: Settings,
        clock: Clock,
        *,
        voice: VoiceName | None = None,
        limits: RateLimits | None = None,
        seed: int | None = None,
    ) -> None:
        self.database = database
        self.settings = settings
        self.clock = clock
        self.memory = ContextMemory(settings.chat.context_turns)
        self.voice = voice or VoiceName(settings.voice)
        self._records = Records(database, settings, self.voice)
        self._responder = responder
        self._chat = settings.chat
        self._limits = limits or RateLimits.of(settings.chat)
        self._vote_limits = RateLimits.per_member(settings.bots.votes_per_minute)
        self._waiting: Counter[MemberKey] = Counter()
        self._gone: OrderedDict[MessageKey, None] = OrderedDict()
        self._random = random.Random(seed)

    async def turn(self, incoming: Incoming) -> Turn:
        """The answer, with its first piece here. A failure is a turn too: one honest sentence, never an error."""
        if not incoming.text.strip():
            return Turn.saying(messages.EMPTY, Outcome.NOTICE)
        if limit := self._limit(incoming):
            return _told_to_wait(limit)
        if self._waiting[incoming.member] >= MOST_WAITING and incoming.provenance is not Provenance.TERMINAL:
            return Turn.saying(messages.STILL_THINKING, Outcome.NOTICE)
        try:
            with self._waited_for(incoming.member):
                prepared = await self._prepare(incoming)
                if prepared.mode is ChannelMode.OFF:
                    return Turn.saying("", Outcome.SILENT)
                context, stream = await self._open(incoming, prepared)
        except Exception as error:
            incident = report_incident("turn", error, incoming.channel)
            return Turn.saying(messages.failure(error, incident), Outcome.FAILED, incident)
        turn = Turn(stream.adapter)
        exchange = exchange_of(incoming, prepared, context)
        return turn.streaming(self._answer(turn, exchange, stream), stream)

    async def vote(self, reply_id: int, member: MemberKey, vote: Vote | None) -> None:
        """Sets or changes the member's vote; None takes it back.

        Raises InputError for a reply that is gone, NotPermitted for a member who votes too fast to mean it.
        """
        self._limit_votes(member)
        await asyncio.to_thread(self._records.vote, reply_id, member, vote, self.clock())

    async def toggle_vote(self, reply_id: int, member: MemberKey, vote: Vote) -> Vote | None:
        """A press on a vote's button: sets it, changes another into it, or takes it back; the vote afterwards."""
        self._limit_votes(member)
        return await asyncio.to_thread(self._records.toggle_vote, reply_id, member, vote, self.clock())

    async def withdraw_vote(self, reply_id: int, member: MemberKey, vote: Vote) -> None:
        """A reaction that was taken away: takes the vote back where it is still this one."""
        self._limit_votes(member)
        await asyncio.to_thread(self._records.withdraw_vote, reply_id, member, vote, self.clock())

    async def listening(self, channel: ChannelKey) -> Listening:
        """What to do with a message there that is not for the bot."""
        return await asyncio.to_thread(self._records.listening, channel)

    async def duel(self, incoming: Incoming, opponent: AdapterName | None = None) -> DuelTurn | Turn:
        """Two hidden answers to one prompt, or a turn that says why there are none.

        The current adapter meets `opponent`, or one drawn from the canary, the previous one and the base.
        """
        if not incoming.text.strip():
            return Turn.saying(messages.EMPTY, Outcome.NOTICE)
        if limit := self._limit(incoming, DUEL_COST_TURNS):
            return _told_to_wait(limit)
        try:
            return await self._duel(incoming, opponent)
        except Exception as error:
            incident = report_incident("duel", error, incoming.channel)
            return Turn.saying(messages.failure(error, incident), Outcome.FAILED, incident)

    async def duel_vote(self, duel_id: int, member: MemberKey, choice: DuelChoice) -> DuelReveal:
        """Records the choice and says who was who. Raises as `vote` does."""
        self._limit_votes(member)
        duel = await asyncio.to_thread(self._records.duel_vote, duel_id, member, choice, self.clock())
        return DuelReveal(AdapterName(duel.left_adapter), AdapterName(duel.right_adapter), choice)

    async def overheard(self, incoming: Incoming) -> bool:
        """Stores a message that is not for the bot where all agree to it; it is no context and gets no answer."""
        if not incoming.text.strip():
            return False
        return await asyncio.to_thread(self._records.overhear, incoming, self.clock())

    async def posted(self, incoming: Incoming, turn: Turn, keys: Sequence[MessageKey]) -> None:
        """The turn's answer stands in these messages: replies and reactions to them find it from now on."""
        if turn.reply_id is not None and keys:
            self.memory.posted(incoming.place, incoming.message_key, tuple(keys))
            await asyncio.to_thread(self._records.posted, turn.reply_id, keys)

    async def reply_of(self, posted: MessageKey) -> int | None:
        """The id of the answer that the bot's message shows, for reactions and reports."""
        return await asyncio.to_thread(self._records.reply_of, posted)

    async def is_answered(self, key: MessageKey) -> bool:
        """Whether the message has had its answer, from this process or an earlier one."""
        return await asyncio.to_thread(self._records.is_answered, key)

    async def deleted(self, key: MessageKey) -> bool:
        """The author deleted the message: it leaves memory and database with the answers; whether it was stored."""
        self.memory.forget_message(key)
        self._gone[key] = None
        while len(self._gone) > REMEMBERED_DELETIONS:
            self._gone.popitem(last=False)
        return await asyncio.to_thread(self._records.delete, key, self.clock())

    async def edited(self, key: MessageKey, text: str) -> bool:
        """The author changed the message: the new wording is what is stored; whether any was."""
        self.memory.forget_message(key)
        return await asyncio.to_thread(self._records.edit, key, text, self.clock())

    def _limit_votes(self, member: MemberKey) -> None:
        if self._vote_limits.take(member, ChannelKey("")):
            raise NotPermitted(messages.VOTES_TOO_FAST)

    @contextmanager
    def _waited_for(self, member: MemberKey) -> Iterator[None]:
        """While entered, the member waits for one more answer."""
        self._waiting[member] += 1
        try:
            yield
        finally:
            self._waiting[member] -= 1
            if not self._waiting[member]:
                del self._waiting[member]

    def _limit(self, incoming: Incoming, turns: int = 1) -> Limited | None:
        """Nobody at the terminal is limited: they own the machine, and pipe scripts through."""
        if incoming.provenance is Provenance.TERMINAL:
            return None
        return self._limits.take(incoming.member, incoming.channel, turns)

    async def _prepare(self, incoming: Incoming) -> Prepared:
        if incoming.thread is None and not self.memory.knows(incoming.channel):
            turns = self._chat.context_turns
            earlier = await asyncio.to_thread(self._records.earlier, incoming.channel, turns)
            if not self.memory.knows(incoming.channel):
                self.memory.remember(incoming.channel, earlier)
        return await asyncio.to_thread(self._records.prepare, incoming, self.clock())

    async def _open(
        self, incoming: Incoming, prepared: Prepared, adapter: AdapterName | None = None
    ) -> tuple[tuple[Remembered, ...], ReplyStream]:
        """The stream and the context that it saw: less of it where the model cannot hold all."""
        context = await self._context(incoming)
        while True:
            try:
                return context, await self._responder.open(self._request(incoming, prepared, context, adapter))
            except PromptTooLong:
                if not context:
                    raise
                context = context[len(context) // 2 + 1 :]

    async def _context(self, incoming: Incoming) -> tuple[Remembered, ...]:
        """What the message answers, where it replies to something; else what was said here last."""
        if incoming.reply_to is None:
            return self.memory.recall(incoming.place)
        chain = self.memory.chain(incoming.place, incoming.reply_to)
        if not chain:
            chain = tuple(await asyncio.to_thread(self._records.answered_by, incoming.reply_to))
        return (chain or tuple(incoming.quoted))[-self._chat.context_turns :] if self._chat.context_turns else ()

    def _request(
        self, incoming: Incoming, prepared: Prepared, context: Sequence[Remembered], adapter: AdapterName | None
    ) -> ReplyRequest:
        asked = ChatMessage("user", incoming.text)
        prompt = chat_messages(
            prepared.system_prompt,
            prepared.glossary,
            [*(one.as_turn for one in context), asked],
            glossary_tokens=self._chat.glossary_tokens,
        )
        sampling = SamplingOptions(self._chat.temperature, self._chat.top_p, self._chat.max_reply_tokens)
        return ReplyRequest(prepared.voice, incoming.channel, tuple(prompt), sampling, adapter)

    async def _answer(self, turn: Turn, exchange: Exchange, stream: ReplyStream) -> AsyncGenerator[str, None]:
        said = ""
        try:
            with self._waited_for(exchange.incoming.member):
                async with aclosing(stream), aclosing(guarded(stream, exchange.blocked)) as pieces:
                    async for piece in pieces:
                        said += piece
                        yield piece
        except Exception as error:
            turn.incident = report_incident("answer", error, exchange.incoming.channel)
            turn.outcome = Outcome.FAILED
            yield messages.broke_off(turn.incident)
            return
        if said.strip():
            turn.outcome = Outcome.ANSWERED
            await self._keep(turn, exchange, stream.adapter, said)
        else:
            turn.outcome = Outcome.NOTICE
            yield messages.NOTHING_TO_SAY

    async def _keep(self, turn: Turn, exchange: Exchange, adapter: AdapterName, said: str) -> None:
        """Remembers the exchange and records the reply; an answer that was shown stays, whatever fails here."""
        incoming = exchange.incoming
        if incoming.message_key not in self._gone:
            self.memory.remember(incoming.place, [exchange.asked, exchange.answered(said)])
        try:
            turn.reply_id = await asyncio.to_thread(self._records.reply, exchange, adapter, said, self.clock())
            if incoming.message_key in self._gone:  # deleted while it was answered
                await asyncio.to_thread(self._records.delete, incoming.message_key, self.clock())
        except Exception as error:
            turn.incident = report_incident("record", error, incoming.channel)

    async def _duel(self, incoming: Incoming, opponent: AdapterName | None) -> DuelTurn | Turn:
        prepared = await self._prepare(incoming)
        if prepared.mode is ChannelMode.OFF:
            return Turn.saying("", Outcome.SILENT)
        if not prepared.duels:
            return Turn.saying(messages.DUELS_OFF, Outcome.NOTICE)
        pair = draw_duel(await self._responder.deployment(prepared.voice), opponent, self._random)
        if pair is None:
            return Turn.saying(messages.NO_OPPONENT, Outcome.NOTICE)
        (left, left_context), (right, right_context) = await self._both(incoming, prepared, pair)
        exchange = exchange_of(incoming, prepared, max(left_context, right_context, key=len))
        duel_id = await asyncio.to_thread(self._records.duel, exchange, pair, (left, right), self.clock())
        return DuelTurn(duel_id, left, right)

    async def _both(
        self, incoming: Incoming, prepared: Prepared, pair: tuple[AdapterName, AdapterName]
    ) -> list[tuple[str, tuple[Remembered, ...]]]:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._whole_answer(incoming, prepared, one)) for one in pair]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _whole_answer(
        self, incoming: Incoming, prepared: Prepared, adapter: AdapterName
    ) -> tuple[str, tuple[Remembered, ...]]:
        context, stream = await self._open(incoming, prepared, adapter)
        async with aclosing(stream):
            return guard("".join([piece async for piece in stream]), prepared.blocked), context


def _told_to_wait(limit: Limited) -> Turn:
    if limit.was_told:
        return Turn.saying("", Outcome.SILENT)
    return Turn.saying(messages.limited(limit), Outcome.NOTICE)
