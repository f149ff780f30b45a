"""The simulated members talk to the real bot: prompts, votes and blind duels, by their hidden taste."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from bots.conversation import Conversation
from bots.duels import DuelTurn
from bots.records import Incoming
from bots.turn import Outcome
from nocap.demo import grammar
from nocap.demo.community import CHANNELS, Community, Member, Role
from nocap.demo.taste import choose, vote
from nocap.demo.world import PLATFORM, World
from nocap.domain import AdapterName, DuelChoice, Provenance

AT_ONCE = 16
"""Members who talk at the same moment, so that the server decodes them in one batch."""


@dataclass
class Conversed:
    """What came of a round of talk."""

    replies: int = 0
    failed: int = 0
    votes: Counter[str] = field(default_factory=Counter)
    adapters: Counter[str] = field(default_factory=Counter)


@dataclass
class DuelTally:
    """Blind duels from the side of the live adapter."""

    wins: int = 0
    losses: int = 0
    ties: int = 0

    @property
    def win_rate(self) -> float | None:
        """Wins over decided duels; None where none was decided."""
        decided = self.wins + self.losses
        return self.wins / decided if decided else None


class Talk:
    """Drives the product's own conversation as the members would, through pseudonyms like any platform's."""

    def __init__(self, conversation: Conversation, community: Community, world: World, seed: int) -> None:
        self._conversation = conversation
        self._world = world
        self._seed = seed
        self._members = [m for m in community.members if m.role is not Role.POISONS]

    async def turns(self, week: int, at: datetime, count: int) -> Conversed:
        """`count` prompts with their answers and votes."""
        rng = random.Random(f"{self._seed}:turns:{week}")
        told = Conversed()
        for batch in _batches([self._prompt(rng, at) for _ in range(count)]):
            await asyncio.gather(*(self._turn(exchange, incoming, week, told) for exchange, incoming in batch))
        return told

    async def duels(self, week: int, at: datetime, count: int, opponent: AdapterName) -> DuelTally:
        """`count` blind duels of the live adapter against `opponent`, each judged by the member who asked."""
        rng = random.Random(f"{self._seed}:duels:{week}")
        tally = DuelTally()
        for batch in _batches([self._prompt(rng, at) for _ in range(count)]):
            await asyncio.gather(*(self._duel(*pair, week, opponent, tally) for pair in batch))
        return tally

    async def _turn(self, exchange: grammar.Exchange, incoming: Incoming, week: int, told: Conversed) -> None:
        turn = await self._conversation.turn(incoming)
        text = "".join([piece async for piece in turn])
        if turn.outcome is not Outcome.ANSWERED or turn.reply_id is None:
            told.failed += 1
            return
        told.replies += 1
        told.adapters[str(turn.adapter)] += 1
        rng = random.Random(f"{self._seed}:vote:{week}:{incoming.text}")
        if (choice := vote(exchange, text, week, rng)) is not None:
            await self._conversation.vote(turn.reply_id, incoming.member, choice)
            told.votes[choice] += 1

    async def _duel(
        self, exchange: grammar.Exchange, incoming: Incoming, week: int, opponent: AdapterName, tally: DuelTally
    ) -> None:
        duel = await self._conversation.duel(incoming, opponent)
        if not isinstance(duel, DuelTurn):
            return
        rng = random.Random(f"{self._seed}:duel:{week}:{incoming.text}")
        choice = choose(exchange, duel.left, duel.right, week, rng)
        revealed = await self._conversation.duel_vote(duel.duel_id, incoming.member, choice)
        if choice is DuelChoice.TIE:
            tally.ties += 1
        elif (choice is DuelChoice.LEFT) == (revealed.right == opponent):
            tally.wins += 1
        else:
            tally.losses += 1

    def _prompt(self, rng: random.Random, at: datetime) -> tuple[grammar.Exchange, Incoming]:
        member: Member = rng.choice(self._members)
        exchange = grammar.answers(rng, 1, "held_out")[0]
        return exchange, Incoming(
            platform=PLATFORM,
            channel=self._world.channel(rng.choice(CHANNELS)),
            member=self._world.member(member.name),
            message_key=self._world.message(f"talk-{rng.random()}"),
            text=exchange.prompt,
            sent_at=at,
            provenance=Provenance.DONATION,
        )


def _batches(
    items: Sequence[tuple[grammar.Exchange, Incoming]],
) -> Iterator[Sequence[tuple[grammar.Exchange, Incoming]]]:
    for start in range(0, len(items), AT_ONCE):
        yield items[start : start + AT_ONCE]
