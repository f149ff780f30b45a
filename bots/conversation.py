"""A platform-free turn: a member's message in, a stream of text out, and what may be kept of it recorded."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from bots import messages
from bots.duels import DuelReveal, DuelTurn, draw_duel
from bots.guard import guard, guarded
from bots.incidents import report_incident
from bots.limits import Limited, RateLimits
from bots.memory import ContextMemory, Remembered
from bots.records import Exchange, Incoming, Prepared, Records, exchange_of
from bots.turn import Outcome, Turn
from inference.prompt import chat_messages
from inference.responder import ReplyRequest, ReplyStream, Responder
from nocap.domain import (
    AdapterName,
    ChannelMode,
    ChatMessage,
    Clock,
    DuelChoice,
    MemberKey,
    Provenance,
    SamplingOptions,
    Vote,
)
from nocap.errors import PromptTooLong
from nocap.observability.turns import TurnWatch
from nocap.settings import Settings
from storage.database import Database

DUEL_COST_TURNS = 2


class Conversation:
    """Turns, votes and duels of one process, over one database and one responder."""

    def __init__(
        self,
        database: Database,
        responder: Responder,
        settings: Settings,
        clock: Clock,
        *,
        limits: RateLimits | None = None,
        seed: int | None = None,
    ) -> None:
        self.database = database
        self.settings = settings
        self.clock = clock
        self.memory = ContextMemory(settings.chat.context_turns)
        self._records = Records(database, settings)
        self._responder = responder
        self._chat = settings.chat
        self._limits = limits or RateLimits.of(settings.chat)
        self._random = random.Random(seed)

    async def turn(self, incoming: Incoming) -> Turn:
        """The answer, with its first piece here. A failure is a turn too: one honest sentence, never an error."""
        watch = TurnWatch(incoming.platform)
        turn = await self._turn(incoming, watch)
        if turn.outcome is not Outcome.OPEN:
            watch.ended(turn.outcome, channel=incoming.channel)
        return turn

    async def _turn(self, incoming: Incoming, watch: TurnWatch) -> Turn:
        if not incoming.text.strip():
            return Turn.saying(messages.EMPTY, Outcome.NOTICE)
        if limit := self._limit(incoming):
            return _told_to_wait(limit)
        try:
            prepared = await self._prepare(incoming)
            watch.reached("prepare")
            if prepared.mode is ChannelMode.OFF:
                return Turn.saying("", Outcome.SILENT)
            context, stream = await self._open(incoming, prepared)
            watch.reached("first_piece")
        except Exception as error:
            incident = report_incident("turn", error, incoming.channel, watch.id)
            return Turn.saying(messages.failure(error, incident), Outcome.FAILED, incident)
        turn = Turn(stream.adapter)
        exchange = exchange_of(incoming, prepared, context)
        return turn.streaming(self._answer(turn, exchange, stream, watch), stream)

    async def vote(self, reply_id: int, member: MemberKey, vote: Vote | None) -> None:
        """Sets or changes the member's vote; None takes it back. Raises InputError for a reply that is gone."""
        await asyncio.to_thread(self._records.vote, reply_id, member, vote, self.clock())

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
        """Records the choice and says who was who. Raises InputError for a duel that is gone."""
        duel = await asyncio.to_thread(self._records.duel_vote, duel_id, member, choice, self.clock())
        return DuelReveal(AdapterName(duel.left_adapter), AdapterName(duel.right_adapter), choice)

    async def write_waiting_votes(self, every_seconds: float = 5.0) -> None:
        """Runs until it is cancelled: votes that the database could not take are written once it can."""
        while True:
            await asyncio.sleep(every_seconds)
            try:
                await asyncio.to_thread(self._records.write_waiting_votes)
            except Exception as error:
                report_incident("waiting votes", error, None)

    def _limit(self, incoming: Incoming, turns: int = 1) -> Limited | None:
        """Nobody at the terminal is limited: they own the machine, and pipe scripts through."""
        if incoming.provenance is Provenance.TERMINAL:
            return None
        return self._limits.take(incoming.member, incoming.channel, turns)

    async def _prepare(self, incoming: Incoming) -> Prepared:
        if not self.memory.knows(incoming.channel):
            turns = self._chat.context_turns
            earlier = await asyncio.to_thread(self._records.earlier, incoming.channel, turns)
            if not self.memory.knows(incoming.channel):
                self.memory.remember(incoming.channel, earlier)
        return await asyncio.to_thread(self._records.prepare, incoming, self.clock())

    async def _open(
        self, incoming: Incoming, prepared: Prepared, adapter: AdapterName | None = None
    ) -> tuple[tuple[Remembered, ...], ReplyStream]:
        """The stream and the context that it saw: less of it where the model cannot hold all."""
        context = self.memory.recall(incoming.channel)
        while True:
            try:
                return context, await self._responder.open(self._request(incoming, prepared, context, adapter))
            except PromptTooLong:
                if not context:
                    raise
                context = context[len(context) // 2 + 1 :]

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

    async def _answer(
        self, turn: Turn, exchange: Exchange, stream: ReplyStream, watch: TurnWatch
    ) -> AsyncGenerator[str, None]:
        said, channel = "", exchange.incoming.channel
        try:
            async with aclosing(stream), aclosing(guarded(stream)) as pieces:
                async for piece in pieces:
                    said += piece
                    yield piece
        except Exception as error:
            turn.incident = report_incident("answer", error, channel, watch.id)
            turn.outcome = Outcome.FAILED
            watch.ended(turn.outcome, adapter=stream.adapter, channel=channel)
            yield messages.broke_off(turn.incident)
            return
        watch.reached("answer")
        if said.strip():
            turn.outcome = Outcome.ANSWERED
            await self._keep(turn, exchange, stream.adapter, said)
            watch.reached("record")
        else:
            turn.outcome = Outcome.NOTICE
            yield messages.NOTHING_TO_SAY
        watch.ended(turn.outcome, adapter=stream.adapter, channel=channel)

    async def _keep(self, turn: Turn, exchange: Exchange, adapter: AdapterName, said: str) -> None:
        """Remembers the exchange and records the reply; an answer that was shown stays, whatever fails here."""
        self.memory.remember(exchange.incoming.channel, [exchange.asked, exchange.answered(said)])
        try:
            turn.reply_id = await asyncio.to_thread(self._records.reply, exchange, adapter, said, self.clock())
        except Exception as error:
            turn.incident = report_incident("record", error, exchange.incoming.channel)

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
            return guard("".join([piece async for piece in stream])), context


def _told_to_wait(limit: Limited) -> Turn:
    if limit.was_told:
        return Turn.saying("", Outcome.SILENT)
    return Turn.saying(messages.limited(limit), Outcome.NOTICE)
