"""One turn of the chat in figures: how long each stage took and how it ended."""

from __future__ import annotations

import secrets
import time

import structlog
from prometheus_client import Counter, Histogram

_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

TURNS = Counter("nocap_turns", "Turns of the chat by how they ended.", ["platform", "outcome"])
STAGES = Histogram(
    "nocap_turn_stage_seconds",
    "Stages of a turn: prepare (database), first_piece (backend), answer (until its end), record (database).",
    ["stage"],
    buckets=_SECONDS,
)
INCIDENTS = Counter("nocap_incidents", "Failures that a member was told of, or that hit nobody.", ["during"])

log = structlog.get_logger(__name__)


class TurnWatch:
    """Follows one turn; its id stands in every line about it."""

    def __init__(self, platform: str) -> None:
        self.id = secrets.token_hex(4)
        self._platform = platform
        self._begun = self._last = time.monotonic()
        self._is_over = False

    def reached(self, stage: str) -> None:
        """The stage ends now."""
        now = time.monotonic()
        STAGES.labels(stage).observe(now - self._last)
        self._last = now

    def ended(self, outcome: str, *, adapter: str | None = None, channel: str | None = None) -> None:
        """Counts the turn, once."""
        if self._is_over:
            return
        self._is_over = True
        TURNS.labels(self._platform, outcome).inc()
        seconds = round(time.monotonic() - self._begun, 4)
        log.info("turn", turn=self.id, outcome=outcome, adapter=adapter, channel=channel, seconds=seconds)
