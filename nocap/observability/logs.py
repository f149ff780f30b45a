"""Structured log lines on standard error: JSON for machines, readable where a person watches; never a text."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor

WITHHELD_KEYS = frozenset({"text", "prompt", "content", "message", "reply", "answer", "body", "said"})
"""Names under which a text could slip into a line; their values are never written."""
FRAMES = 5


def configure_logging(level: int, *, process: str = "nocap", stream: TextIO | None = None) -> None:
    """All loggers, the libraries' too, write to `stream`: structlog's from `level`, others from WARNING.

    JSON unless the stream is a terminal.
    """
    stream = stream or sys.stderr
    render: Processor = (
        structlog.dev.ConsoleRenderer() if stream.isatty() else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _naming(process),
        withhold_texts,
        place_of_exception,
    ]
    structlog.configure(
        processors=[*shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(stream),
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=render, foreign_pre_chain=shared))
    root = logging.getLogger()
    for old in [one for one in root.handlers if getattr(one, "of_nocap", False)]:
        root.removeHandler(old)
    handler.of_nocap = True  # type: ignore[attr-defined]
    root.addHandler(handler)
    root.setLevel(logging.WARNING)


def withhold_texts(_logger: Any, _name: str, event: EventDict) -> EventDict:
    """Replaces the values of suspicious keys, and whole mappings and sequences, whose insides nobody checks."""
    for key, value in event.items():
        if key in WITHHELD_KEYS and value is not None:
            event[key] = f"({len(str(value))} characters withheld)"
        elif isinstance(value, Mapping) and WITHHELD_KEYS & value.keys():
            event[key] = "(withheld)"
    return event


def place_of_exception(_logger: Any, _name: str, event: EventDict) -> EventDict:
    """An exception as its type and where it came from: its message may quote what a member wrote."""
    found = event.pop("exc_info", None)
    if found is True:
        found = sys.exc_info()
    error = found[1] if isinstance(found, tuple) else found
    if isinstance(error, BaseException):
        frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
        event["error"] = type(error).__name__
        event["frames"] = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
    return event


def _naming(process: str) -> Processor:
    def name(_logger: Any, _method: str, event: EventDict) -> EventDict:
        event.setdefault("process", process)
        return event

    return name
