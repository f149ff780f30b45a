"""What the loop costs: each stage of the demo, start-up, rollback, import, and the overhead of a chat turn.

`--quick` plays two weeks of the demo instead of eight; the other figures are measured in full.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import structlog

from benchmarks._report import Bar, publish
from bots.conversation import Conversation
from bots.limits import RateLimits
from bots.records import Incoming
from inference.responder import ReplyRequest
from nocap.actions import Actions
from nocap.app import initialise, open_database
from nocap.demo import grammar
from nocap.domain import (
    BASE,
    AdapterName,
    AdapterStatus,
    ChannelKey,
    MemberKey,
    MessageKey,
    Provenance,
    Purpose,
    VoiceName,
)
from nocap.importing.common import import_file
from nocap.settings import Settings
from storage.channels import ensure_channel
from storage.consent import record_consent
from storage.database import Database
from storage.registry import deployment, move_pointer, register_adapter
from storage.tables import Adapter, Deployment

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
IMPORTED_ROWS = 20_000
TURNS = 400
REPEATS = 7
STAGES = ("snapshot", "train", "preferences", "measure", "gates", "promote")
BARS = {
    "import_rows_per_second": Bar(5_000, at_most=False),
    "chat_turn_overhead_p95_ms": Bar(10.0),
    "help_seconds_median": Bar(0.5),
    "rollback_seconds_median": Bar(1.0),
    "demo_minutes": Bar(12.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two weeks of the demo instead of eight")
    parser.add_argument("--json", action="store_true", dest="as_json")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with TemporaryDirectory() as name:
        folder = Path(name)
        figures = help_seconds() | import_speed(folder / "import") | small_figures(folder / "chat")
        figures |= demo_figures(folder / "demo", weeks=2 if arguments.quick else 8)
    publish("loop", figures, BARS, packages=("torch", "transformers", "SQLAlchemy"), as_json=arguments.as_json)


def help_seconds() -> dict[str, float]:
    """`nocap --help` against a bare interpreter, in turn."""
    ours = [sys.executable, "-m", "nocap.cli", "--help"]
    bare = [sys.executable, "-c", "pass"]
    times: dict[str, list[float]] = {"help": [], "bare": []}
    for _ in range(REPEATS):
        times["help"].append(_seconds(lambda: subprocess.run(ours, check=True, capture_output=True)))
        times["bare"].append(_seconds(lambda: subprocess.run(bare, check=True, capture_output=True)))
    return {
        "help_seconds_median": statistics.median(times["help"]),
        "bare_python_seconds_median": statistics.median(times["bare"]),
    }


def import_speed(folder: Path) -> dict[str, float]:
    """Rows a second of `nocap import jsonl` with consent, scrub and encryption; a second import adds nothing."""
    with _installation(folder) as (settings, database):
        rows, consent = folder / "chat.jsonl", folder / "consent.jsonl"
        rows.write_text("".join(_jsonl_rows()), encoding="utf-8")
        statement = {"channel": "*", "purposes": list(Purpose), "granted": True}
        consent.write_text("".join(json.dumps(statement | {"member": f"m{n}"}) + "\n" for n in range(100)))

        def take_in() -> Any:
            return import_file(
                database,
                rows,
                "jsonl",
                policy_version=settings.policy_version,
                voice=VoiceName(settings.voice),
                consent_file=consent,
                at=NOW,
            )

        begun = time.perf_counter()
        report = take_in()
        seconds = time.perf_counter() - begun
        assert report.added == IMPORTED_ROWS and take_in().added == 0, report
    return {"import_rows_per_second": IMPORTED_ROWS / seconds}


def small_figures(folder: Path) -> dict[str, float]:
    """Rollback (the whole command) and a chat turn around an instant backend, storing everything."""
    with _installation(folder) as (settings, database):
        overhead = asyncio.run(_turn_overheads(settings, database))
        rollbacks = [_rollback_seconds(settings, database) for _ in range(REPEATS)]
    return {
        "chat_turn_overhead_p50_ms": statistics.median(overhead) * 1e3,
        "chat_turn_overhead_p95_ms": statistics.quantiles(overhead, n=20)[-1] * 1e3,
        "rollback_seconds_median": statistics.median(rollbacks),
    }


def demo_figures(folder: Path, weeks: int) -> dict[str, float]:
    """Wall time and peak memory of the demo's stages, over its runs."""
    command = [sys.executable, "-m", "nocap.cli", "--data-dir", str(folder), "demo", "run", "--weeks", str(weeks)]
    seconds = _seconds(lambda: subprocess.run(command, check=True, capture_output=True))
    summary = json.loads((folder / "demo" / "summary.json").read_text(encoding="utf-8"))
    costs = [run["cost"] for run in summary["runs"]]
    stages = {
        f"demo_{stage}_seconds_median": statistics.median(
            [cost["seconds_by_stage"][stage] for cost in costs if stage in cost["seconds_by_stage"]] or [0.0]
        )
        for stage in STAGES
    }
    peaks = {
        f"demo_{stage}_peak_gib": max(cost["peak_bytes_by_stage"].get(stage, 0) for cost in costs) / 2**30
        for stage in STAGES
    }
    return (
        stages
        | peaks
        | {
            "demo_run_seconds_median": statistics.median(cost["seconds"] for cost in costs),
            "demo_run_peak_gib": max(cost["peak_bytes"] for cost in costs) / 2**30,
            "demo_weeks": weeks,
            "demo_minutes": seconds / 60,
        }
    )


async def _turn_overheads(settings: Settings, database: Database) -> list[float]:
    """Seconds of each turn, from the message in to the reply recorded."""
    limits = RateLimits(member_per_minute=1e9, channel_per_minute=1e9, everyone_per_minute=1e9)
    conversation = Conversation(database, _Instant(database), settings, lambda: NOW, limits=limits)
    with database.write() as session:
        channel, member = ChannelKey("c" * 32), MemberKey("a" * 32)
        voice = VoiceName(settings.voice)
        ensure_channel(session, channel, platform="bench", label=None, voice=voice, at=NOW, collect=True)
        record_consent(session, member, channel, list(Purpose), True, settings.policy_version, NOW)
    overheads = []
    for number in range(TURNS + 20):
        key = MessageKey(f"{number:032x}")
        incoming = Incoming("bench", channel, member, key, "is sushi overrated", NOW, Provenance.TERMINAL)
        begun = time.perf_counter()
        turn = await conversation.turn(incoming)
        async for _ in turn:
            pass
        overheads.append(time.perf_counter() - begun)
        assert turn.reply_id is not None
    return overheads[20:]


class _Instant:
    """A responder whose answer is there at once."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def deployment(self, voice: VoiceName) -> Deployment:
        return await asyncio.to_thread(self._read, voice)

    async def open(self, request: ReplyRequest) -> _InstantReply:
        live = await self.deployment(request.voice)
        return _InstantReply(AdapterName(live.current))

    def _read(self, voice: VoiceName) -> Deployment:
        with self._database.read() as session:
            return deployment(session, voice)


class _InstantReply:
    def __init__(self, adapter: AdapterName) -> None:
        self.adapter = adapter

    async def __aiter__(self) -> AsyncIterator[str]:
        for piece in ("not ", "at ", "all"):
            yield piece

    async def aclose(self) -> None:
        pass


def _rollback_seconds(settings: Settings, database: Database) -> float:
    """The pointer's way back to the base, no server running."""
    voice, name = VoiceName(settings.voice), AdapterName("genz-v1")
    with database.write() as session:
        row = Adapter(
            name=name,
            voice=voice,
            base="b",
            base_digest="d",
            digest="x",
            status=AdapterStatus.PASSED,
            created_at=NOW,
        )
        register_adapter(session, row)
        move_pointer(session, voice, name, actor="bench", reason="bench", at=NOW)
    actions = Actions(database, settings, actor="bench", clock=lambda: NOW)
    return _seconds(lambda: actions.rollback(voice, BASE, None))


def _jsonl_rows() -> Iterator[str]:
    rng = random.Random(1)
    for number in range(IMPORTED_ROWS):
        row = {
            "id": str(number),
            "member": f"m{number % 100}",
            "channel": f"c{number % 5}",
            "sent_at": (NOW - timedelta(seconds=IMPORTED_ROWS - number)).isoformat(),
            "text": grammar.exchange(rng).reply,
            "reply_to": str(number - 1) if number % 2 else None,
        }
        yield json.dumps(row) + "\n"


class _installation:
    """A fresh data directory with its database."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> tuple[Settings, Database]:
        self._folder.mkdir(parents=True)
        settings = Settings(data_dir=self._folder)
        initialise(settings, self._folder / "nocap.toml", clock=lambda: NOW)
        self._database = open_database(settings)
        return settings, self._database

    def __exit__(self, *_: object) -> None:
        self._database.close()


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
