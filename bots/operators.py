"""What the bots need of the operators' actions; `nocap.app` passes it in. Synchronous, called off the event loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from nocap.domain import AdapterName, RunId, VoiceName
from storage.registry import PointerMove
from storage.tables import Adapter, GateOutcome, Run


@dataclass(frozen=True, slots=True)
class VoiceStatus:
    """What is live for a voice and how it is doing."""

    voice: str
    live: str
    previous: str | None
    canary: str | None
    since: datetime
    base: str
    last_run: str | None
    next_run: datetime | None
    replies: int
    up: int
    down: int
    cringe: int


class Operators(Protocol):
    """Every change is written to the audit log under `actor`. Methods raise a NocapError that says why not."""

    def status(self, voice: VoiceName) -> VoiceStatus: ...

    def retrain_now(self, voice: VoiceName, *, actor: str) -> RunId:
        """The id of a run that goes on in a process of its own."""
        ...

    def cancel(self, run_id: RunId, *, actor: str) -> None: ...

    def runs(self, voice: VoiceName, limit: int) -> Sequence[Run]:
        """Newest first."""
        ...

    def gates(self, run_id: RunId) -> Sequence[GateOutcome]: ...

    def adapters(self, voice: VoiceName) -> Sequence[Adapter]:
        """Oldest first."""
        ...

    def rollback(self, voice: VoiceName, to: AdapterName | None, *, actor: str) -> PointerMove:
        """To the named adapter or the one before; the next answer speaks with it."""
        ...

    def promote(self, name: AdapterName, *, actor: str) -> PointerMove:
        """Raises NotPermitted where the adapter's gates did not pass: that takes the command line."""
        ...
