"""The operators' actions as the bots know them (`bots.operators.Operators`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bots.operators import VoiceStatus
from nocap.domain import AdapterName, Clock, RunId, VoiceName
from nocap.settings import Settings
from storage.database import Database
from storage.registry import PointerMove
from storage.runs import gate_results
from storage.tables import Adapter, GateOutcome, Run

if TYPE_CHECKING:
    from nocap.actions import Actions
    from retrain.promote import Backend


class BotOperators:
    """One `Actions` per call, in the caller's name.

    They are imported with the first call: training's libraries would make every bot process larger.
    """

    def __init__(
        self, database: Database, settings: Settings, clock: Clock, backend: Callable[[], Backend | None]
    ) -> None:
        """`backend` gives the running backend, or None where the embedded server is not up."""
        self._database = database
        self._settings = settings
        self._clock = clock
        self._backend = backend

    def status(self, voice: VoiceName) -> VoiceStatus:
        one = self._actions().status(voice)
        last, votes = one.last_run, one.feedback_this_week
        return VoiceStatus(
            voice=one.voice,
            live=one.live,
            previous=one.previous,
            canary=one.canary,
            since=one.since,
            base=one.base,
            last_run=f"{last['id']} {last['state']}: {last['reason'] or last['stage'] or ''}" if last else None,
            next_run=one.next_run,
            replies=votes["replies"],
            up=votes["up"],
            down=votes["down"],
            cringe=votes["cringe"],
        )

    def retrain_now(self, voice: VoiceName, *, actor: str) -> RunId:
        return self._actions(actor).retrain_now(voice)

    def cancel(self, run_id: RunId, *, actor: str) -> None:
        self._actions(actor).cancel(run_id)

    def runs(self, voice: VoiceName, limit: int) -> Sequence[Run]:
        return self._actions().runs(voice, limit)

    def gates(self, run_id: RunId) -> Sequence[GateOutcome]:
        with self._database.read() as session:
            return gate_results(session, run_id)

    def adapters(self, voice: VoiceName) -> Sequence[Adapter]:
        return self._actions().adapters(voice)

    def rollback(self, voice: VoiceName, to: AdapterName | None, *, actor: str) -> PointerMove:
        return self._actions(actor).rollback(voice, to, self._backend())

    def promote(self, name: AdapterName, *, actor: str) -> PointerMove:
        return self._actions(actor).promote(name, "promoted from chat", self._backend())

    def _actions(self, actor: str = "bot") -> Actions:
        from nocap.actions import Actions

        return Actions(self._database, self._settings, actor=actor, clock=self._clock)
