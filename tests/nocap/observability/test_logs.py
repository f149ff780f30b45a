from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from nocap.observability.logs import configure_logging

SENTINEL = "my secret sentence"


@pytest.fixture
def lines() -> Iterator[Any]:
    stream = io.StringIO()
    configure_logging(logging.INFO, process="bots", stream=stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    structlog.reset_defaults()
    root = logging.getLogger()
    for handler in [one for one in root.handlers if getattr(one, "of_nocap", False)]:
        root.removeHandler(handler)


def test_a_line_is_json_with_time_level_process_and_what_is_bound(lines: Any) -> None:
    with structlog.contextvars.bound_contextvars(run="r1"):
        structlog.get_logger("x").info("stage", stage="train")
    structlog.get_logger("x").debug("not shown")
    (line,) = lines()
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "stage", "stage": "train", "run": "r1", "level": "info", "process": "bots"}


@pytest.mark.parametrize("key", ["text", "prompt", "content", "reply", "answer"])
def test_a_text_under_its_own_name_is_withheld(lines: Any, key: str) -> None:
    structlog.get_logger("x").info("turn", **{key: SENTINEL}, nested={key: SENTINEL})
    assert SENTINEL not in str(lines())


def test_an_exceptions_message_is_not_written_but_its_place_is(lines: Any) -> None:
    def fail() -> None:
        raise ValueError(SENTINEL)

    for log in (structlog.get_logger("x"), logging.getLogger("a.library")):
        try:
            fail()
        except ValueError:
            log.exception("it failed")
    ours, theirs = lines()
    assert SENTINEL not in str([ours, theirs])
    for line in (ours, theirs):
        assert (line["event"], line["error"]) == ("it failed", "ValueError")
        assert line["frames"][-1].startswith("test_logs.py:")


def test_libraries_are_heard_from_warning_on(lines: Any) -> None:
    logging.getLogger("discord").info("chatty")
    logging.getLogger("discord").warning("shard %s is late", 3)
    assert [line["event"] for line in lines()] == ["shard 3 is late"]
