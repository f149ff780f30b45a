"""The operators' commands in chat: the allow-list is asked before anything else is."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from bots import staff_messages
from bots.callers import Caller, Right
from bots.operators import Operators
from nocap.domain import AdapterName, RunId, VoiceName
from nocap.errors import NotPermitted


@dataclass(frozen=True, slots=True)
class Proposal:
    """A change of the live adapter that waits for its confirmation: `question` is asked, `name` goes on a button."""

    question: str
    name: AdapterName


class Operations:
    """Every method raises NotPermitted for a caller who is not on the operators' list."""

    def __init__(self, operators: Operators, voice: VoiceName) -> None:
        self._operators = operators
        self._voice = voice

    async def status(self, caller: Caller) -> str:
        caller.insist(Right.OPERATOR)
        return staff_messages.status(await asyncio.to_thread(self._operators.status, self._voice))

    async def retrain_now(self, caller: Caller) -> str:
        caller.insist(Right.OPERATOR)
        run = await asyncio.to_thread(self._operators.retrain_now, self._voice, actor=caller.actor)
        return staff_messages.retrain_started(run)

    async def runs(self, caller: Caller) -> str:
        caller.insist(Right.OPERATOR)
        return staff_messages.run_list(await asyncio.to_thread(self._operators.runs, self._voice, 8))

    async def gates(self, caller: Caller, run_id: RunId) -> str:
        caller.insist(Right.OPERATOR)
        outcomes = await asyncio.to_thread(self._operators.gates, run_id)
        return staff_messages.gate_table(outcomes) if outcomes else "That run has not reached its gates."

    async def adapters(self, caller: Caller) -> str:
        caller.insist(Right.OPERATOR)
        rows = await asyncio.to_thread(self._operators.adapters, self._voice)
        return staff_messages.adapter_list(rows, await asyncio.to_thread(self._operators.status, self._voice))

    async def propose_rollback(self, caller: Caller, to: str | None) -> Proposal:
        """What a rollback would do; `rollback` does it. Raises NotPermitted where there is nothing to go back to."""
        caller.insist(Right.OPERATOR)
        live = await asyncio.to_thread(self._operators.status, self._voice)
        target = to or live.previous
        if target is None:
            raise NotPermitted(f"{self._voice} has no earlier adapter to go back to; name one, or `base`.")
        if target == live.live:
            raise NotPermitted(f"{self._voice} speaks with {target} already; /nocap adapters shows the others.")
        return Proposal(
            staff_messages.ROLLBACK_ASK.format(voice=self._voice, to=target),
            AdapterName(target),
        )

    async def rollback(self, caller: Caller, to: AdapterName) -> str:
        caller.insist(Right.OPERATOR)
        move = await asyncio.to_thread(self._operators.rollback, self._voice, to, actor=caller.actor)
        return staff_messages.moved(move)

    async def propose_promotion(self, caller: Caller, name: str) -> Proposal:
        caller.insist(Right.OPERATOR)
        rows = await asyncio.to_thread(self._operators.adapters, self._voice)
        row = next((one for one in rows if one.name == name), None)
        if row is None:
            raise NotPermitted(f"{self._voice} has no adapter {name}; /nocap adapters shows them.")
        if not staff_messages.can_be_live(row):
            raise NotPermitted(f"{name} is {row.status}: only an adapter that passed its gates goes live from here.")
        return Proposal(staff_messages.PROMOTE_ASK.format(name=name), AdapterName(name))

    async def promote(self, caller: Caller, name: AdapterName) -> str:
        caller.insist(Right.OPERATOR)
        return staff_messages.moved(await asyncio.to_thread(self._operators.promote, name, actor=caller.actor))
