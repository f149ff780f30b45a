"""What the bots cost: `nocap bots` as it is installed, between platforms that talk and a backend that answers at once.

One process runs the bots; this one plays the platforms (wire-level fakes on loopback), their members and the
backend, and measures from a member's message to the request that answers it, the way through the fakes included.
Nothing of the bots is replaced: only settings point them here and lift the rate limits.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import psutil
from aiohttp import web

from benchmarks._report import Bar, publish
from bots.identity import Identity
from nocap.app import initialise, open_database
from nocap.domain import Purpose, VoiceName, utc_now
from nocap.settings import load_settings
from storage.channels import ensure_channel
from storage.consent import record_consent
from tests.fakes.telegram import Chat, FakeTelegram, Json

MEMBERS = 400
CONSENTING_SHARE = 0.25
WARM_UP = 200
STEADY_PER_SECOND = 50
"""On each platform."""
FULL_PER_SECOND = 200
"""On all platforms together."""
MESSAGES = 20_000
FIRST = 2_000
"""Messages after which memory has to be flat."""
DRAIN_SECONDS = 60.0
BARS = {
    "overhead_p95_ms": Bar(15.0),
    "full_load_seconds_behind": Bar(1.0),
    "messages_lost": Bar(0),
    "messages_answered_twice": Bar(0),
    "memory_growth_share": Bar(0.05),
    "memory_peak_mib": Bar(150.0),
    "torch_libraries_mapped": Bar(0),
}


class Platform(Protocol):
    """A fake platform with members who wait to speak."""

    name: str
    settings: dict[str, object]

    def say(self, number: int, meter: Meter) -> None: ...


@dataclass
class Meter:
    """When each message was said, and when it was answered."""

    said: dict[str, float] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)

    def note_said(self, key: str) -> None:
        self.said[key] = time.perf_counter()

    def note_answered(self, key: str) -> None:
        if key in self.said:
            self.answers[key] += 1
            if self.answers[key] == 1:
                self.seconds.append(time.perf_counter() - self.said[key])

    @property
    def lost(self) -> int:
        return len(self.said) - len(self.answers)

    @property
    def twice(self) -> int:
        return sum(count > 1 for count in self.answers.values())

    async def drain(self) -> float:
        """Seconds until everything that was said is answered, at most DRAIN_SECONDS."""
        begun = time.perf_counter()
        while self.lost and time.perf_counter() - begun < DRAIN_SECONDS:
            await asyncio.sleep(0.01)
        return time.perf_counter() - begun


class TelegramPlatform:
    """Private chats: in groups Telegram allows twenty messages a minute, whatever the bot could do."""

    name = "telegram"

    def __init__(self, telegram: FakeTelegram) -> None:
        self._telegram = telegram
        self._meter: Meter | None = None
        telegram.add_bot("7:BENCH")
        telegram.keeps_calls = False
        telegram.on_send = self._sent
        self.people = [telegram.person(1000 + number, f"Member {number}") for number in range(MEMBERS)]
        self._chats = [(telegram.private(person), person) for person in self.people]
        self.settings = {
            "token": "7:BENCH",
            "base_url": telegram.url,
            "messages_per_second": 10_000,
        }

    def say(self, number: int, meter: Meter) -> None:
        self._meter = meter
        chat, person = self._chats[number % MEMBERS]
        self._forget_old(chat)
        message = self._telegram.say(chat, person, f"number {number}: is sushi overrated", date=int(time.time()))
        meter.note_said(f"telegram {message['message_id']}")

    def _sent(self, message: Json) -> None:
        if self._meter is not None and "reply_to_message" in message:
            self._meter.note_answered(f"telegram {message['reply_to_message']['message_id']}")

    def _forget_old(self, chat: Chat) -> None:
        while len(chat.messages) > 20:
            del chat.messages[next(iter(chat.messages))]


@asynccontextmanager
async def instant_backend() -> AsyncIterator[str]:
    """The URL of a backend that speaks OpenAI's chat protocol and has its answer ready."""

    async def chat(request: web.Request) -> web.Response:
        model = (await request.json())["model"]
        pieces = [{"content": piece} for piece in ("not ", "at ", "all")]
        choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in pieces]
        choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
        events = [{"object": "chat.completion.chunk", "model": model, "choices": [choice]} for choice in choices]
        body = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
        return web.Response(text=body, content_type="text/event-stream")

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def write_installation(folder: Path, backend: str, platforms: Sequence[TelegramPlatform]) -> Path:
    """A settings file and a database in which a quarter of the members agree to everything."""
    limits = "\n".join(f"{name} = 1000000" for name in _LIMITS)
    lines = [f'[inference]\nbackend = "openai"\nurls = ["{backend}"]', f"[chat]\n{limits}"]
    lines += [
        f"[{one.name}]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in one.settings.items())
        for one in platforms
    ]
    file = folder / "nocap.toml"
    file.write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    settings = load_settings(file)
    initialise(settings, file)
    database = open_database(settings)
    at = utc_now()
    with database.write() as session:
        for platform in platforms:
            identity = Identity(database.keyring, platform.name)
            for person in platform.people[: int(MEMBERS * CONSENTING_SHARE)]:
                channel, member = identity.channel(person.id), identity.member(person.id)
                voice = VoiceName(settings.voice)
                ensure_channel(session, channel, platform=platform.name, label=None, voice=voice, at=at, collect=True)
                record_consent(session, member, channel, list(Purpose), True, settings.policy_version, at)
    database.close()
    return file


_LIMITS = ("turns_per_minute", "channel_turns_per_minute", "total_turns_per_minute")


class BotProcess:
    """`nocap bots` in a process of its own."""

    def __init__(self, settings: Path) -> None:
        self._log = (settings.parent / "bots.log").open("wb")
        command = [sys.executable, "-m", "nocap.cli", "--settings", str(settings), "bots"]
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log)

    @property
    def resident_mib(self) -> float:
        return float(psutil.Process(self._process.pid).memory_info().rss / 2**20)

    @property
    def cpu_seconds(self) -> float:
        times = psutil.Process(self._process.pid).cpu_times()
        return float(times.user + times.system)

    def mapped(self, word: str) -> int:
        """How many libraries with `word` in their path the process has loaded."""
        maps = Path(f"/proc/{self._process.pid}/maps").read_text(encoding="utf-8")
        return len({line.split()[-1] for line in maps.splitlines() if word in line})

    async def stop(self) -> None:
        """While the fakes go on: a bot that stops finishes what it has begun."""
        self._process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(self._process.wait, 30)
        self._log.close()


async def talk(platforms: Sequence[TelegramPlatform], per_second: float, count: int, start: int) -> tuple[Meter, float]:
    """`count` messages at `per_second` in all, the platforms in turn; and how long the last answers took to come."""
    meter = Meter()
    begun = time.perf_counter()
    for number in range(count):
        await asyncio.sleep(max(0.0, begun + number / per_second - time.perf_counter()))
        platforms[number % len(platforms)].say(start + number, meter)
    return meter, await meter.drain()


async def measure(folder: Path, *, quick: bool) -> dict[str, float]:
    async with AsyncExitStack() as stack:
        backend = await stack.enter_async_context(instant_backend())
        platforms = [TelegramPlatform(await stack.enter_async_context(FakeTelegram()))]
        process = BotProcess(write_installation(folder, backend, platforms))
        stack.push_async_callback(process.stop)
        return await _phases(platforms, process, quick=quick)


async def _phases(platforms: Sequence[TelegramPlatform], process: BotProcess, *, quick: bool) -> dict[str, float]:
    steady = STEADY_PER_SECOND * len(platforms)
    full = FULL_PER_SECOND * len(platforms) / 2
    warm, _ = await talk(platforms, steady, WARM_UP, 0)
    cpu = process.cpu_seconds
    even, _ = await talk(platforms, steady, steady * (5 if quick else 20), WARM_UP)
    cpu = (process.cpu_seconds - cpu) / len(even.said)
    said = len(warm.said) + len(even.said)
    rest, _ = await talk(platforms, full, max(0, FIRST - said), said)
    said += len(rest.said)
    before = process.resident_mib
    soak, behind = await talk(platforms, full, (MESSAGES - said) if not quick else 1_000, said)
    after = process.resident_mib
    meters = (warm, even, rest, soak)
    return {
        "platforms": len(platforms),
        "overhead_p50_ms": statistics.median(even.seconds) * 1e3,
        "overhead_p95_ms": statistics.quantiles(even.seconds, n=20)[-1] * 1e3,
        "overhead_cpu_ms": cpu * 1e3,
        "full_load_per_second": full,
        "full_load_p50_ms": statistics.median(soak.seconds) * 1e3,
        "full_load_p95_ms": statistics.quantiles(soak.seconds, n=20)[-1] * 1e3,
        "full_load_seconds_behind": behind,
        "messages": sum(len(one.said) for one in meters),
        "messages_lost": sum(one.lost for one in meters),
        "messages_answered_twice": sum(one.twice for one in meters),
        "memory_first_mib": before,
        "memory_peak_mib": max(before, after),
        "memory_growth_share": after / before - 1,
        "torch_libraries_mapped": process.mapped("/torch/"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3,000 messages instead of 20,000")
    parser.add_argument("--json", action="store_true", dest="as_json")
    arguments = parser.parse_args()
    with TemporaryDirectory() as name:
        figures = asyncio.run(measure(Path(name), quick=arguments.quick))
    packages = ("python-telegram-bot", "httpx", "SQLAlchemy")
    publish("bots", figures, BARS, packages=packages, as_json=arguments.as_json)


if __name__ == "__main__":
    main()
