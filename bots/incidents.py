"""Failures for the operator's log: an id, the cause, and never anybody's text."""

from __future__ import annotations

import secrets
import traceback
from pathlib import Path

import structlog

from nocap.domain import ChannelKey
from nocap.errors import NocapError
from nocap.observability.turns import INCIDENTS


def report_incident(during: str, error: Exception, channel: ChannelKey | None, turn: str | None = None) -> str:
    """The id under which the failure stands in the log."""
    incident = secrets.token_hex(3)
    INCIDENTS.labels(during).inc()
    structlog.get_logger("bots").error(
        "incident",
        incident=incident,
        during=during,
        error=type(error).__name__,
        cause=_cause(error),
        channel=channel,
        turn=turn,
    )
    return incident


def _cause(error: Exception) -> str:
    """Our own errors speak for themselves and hold no texts; of others only the place is told."""
    if isinstance(error, NocapError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    return " > ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames)
