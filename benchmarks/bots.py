"""What the bots cost: `nocap bots` as it is installed, between platforms that talk and a backend that answers at once.

A process for each platform runs the bots, this one plays the platforms (wire-level fakes on loopback) and their
members, another the backend; they share the machine's cores as they like. Measured is from a member's message to the
request that answers it, the way through the fakes included. Nothing of the bots is replaced: only settings point them
here and lift the rate limits.
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
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from benchmarks._report import Bar, publish
from benchmarks._talking import talking_backend
from bots.identity import Identity
from nocap.app import initialise, open_database
from nocap.domain import Purpose, VoiceName, utc_now
from nocap.settings import load_settings
from storage.channels import ensure_channel
from storage.consent import record_consent
from tests.fakes.discord_server import FakeDiscord
from tests.fakes.telegram import FakeTelegram
from tests.fakes.telegram_objects import Json

MEMBERS = 400
CHANNELS = 40
KEPT_MESSAGES = 20
CONSENTING_SHARE = 0.25
WARM_UP = 200
STEADY_PER_SECOND = 50
"""On each platform."""
FULL_PER_SECOND = 200
"""On all platforms together."""
MESSAGES = 20_000
FIRST = 2_000
"""Messages after which memory has to be flat."""
START_SECONDS = 120.0
DRAIN_SECONDS = 30.0
PIECES = 3
PLATFORMS = ("telegram", "discord")
OVERHEAD = Bar(15.0)
BARS = {
    "full_load_seconds_behind": Bar(1.0),
    "messages_lost": Bar(0),
    "messages_answered_twice": Bar(0),
    "memory_growth_share": Bar(0.05),
    "memory_of_the_largest_process_mib": Bar(150.0),
    "torch_libraries_mapped": Bar(0),
}


class Meter:
    """When each message was said, and when it was first answered."""

    def __init__(self) -> None:
        self.said: dict[object, float] = {}
        self.answered: dict[object, float] = {}
        self.twice = 0
        self._now = 0.0

    def say_next(self) -> None:
        self._now = time.perf_counter()

    def note_said(self, key: object) -> None:
        self.said[key] = self._now

    def note_answered(self, key: object) -> None:
        if key not in self.said:
            return  # said before the measurement
        self.twice += key in self.answered
        self.answered.setdefault(key, time.perf_counter())

    @property
    def lost(self) -> int:
        return len(self.said.keys() - self.answered.keys())

    def seconds(self, since: float) -> list[float]:
        """From each message that was said since then to its answer."""
        said = self.said.items()
        return [self.answered[key] - at for key, at in said if at >= since and key in self.answered]


class Platform:
    """A fake platform whose members wait to speak; each has a channel to speak in."""

    name: str
    settings: dict[str, object]

    def __init__(self) -> None:
        self.meter = Meter()

    @property
    def members(self) -> list[tuple[int, int]]:
        """Channel id and user id of each member."""
        raise NotImplementedError

    async def say(self, number: int) -> None:
        raise NotImplementedError

    async def wait_for_bot(self) -> None:
        """Until the bot has answered something; what was said before it was there does not count."""
        async with asyncio.timeout(START_SECONDS):
            while not self.meter.answered:
                await self.say(0)
                await asyncio.sleep(1.0)
        self.meter = Meter()


class TelegramPlatform(Platform):
    """Private chats: in groups Telegram allows twenty messages a minute, whatever the bot could do."""

    name = "telegram"

    def __init__(self, telegram: FakeTelegram) -> None:
        super().__init__()
        self._telegram = telegram
        telegram.add_bot("7:BENCH")
        telegram.keeps_calls = False
        telegram.on_send = self._sent
        people = [telegram.person(1000 + number, f"Member {number}") for number in range(MEMBERS)]
        self._chats = [(telegram.private(person), person) for person in people]
        self.settings = {"token": "7:BENCH", "base_url": telegram.url, "messages_per_second": 10_000}

    @property
    def members(self) -> list[tuple[int, int]]:
        return [(chat.id, person.id) for chat, person in self._chats]

    async def say(self, number: int) -> None:
        chat, person = self._chats[number % MEMBERS]
        while len(chat.messages) > KEPT_MESSAGES:
            del chat.messages[next(iter(chat.messages))]
        self.meter.say_next()
        message = self._telegram.say(chat, person, f"number {number}: is sushi overrated", date=int(time.time()))
        self.meter.note_said(message["message_id"])

    def _sent(self, message: Json) -> None:
        if "reply_to_message" in message:
            self.meter.note_answered(message["reply_to_message"]["message_id"])


class DiscordPlatform(Platform):
    """Mentions in many channels of one server."""

    name = "discord"

    def __init__(self, discord: FakeDiscord) -> None:
        super().__init__()
        self._discord = discord
        discord.keeps_all = False
        discord.on_post = self._posted
        self._channels = [300 + number for number in range(CHANNELS)]
        discord.extra_channels = [discord._channel(channel) for channel in self._channels]
        api, gateway = f"http://{discord.url}/api/v10", f"ws://{discord.url}/gateway"
        self.settings = {"token": discord.token, "api_base": api, "gateway_url": gateway}

    @property
    def members(self) -> list[tuple[int, int]]:
        return [(self._channels[number % CHANNELS], 5000 + number) for number in range(MEMBERS)]

    async def say(self, number: int) -> None:
        channel, user = self.members[number % MEMBERS]
        self.meter.say_next()
        message = await self._discord.say(user, f"number {number}: is sushi overrated", channel=channel)
        self.meter.note_said(message["id"])

    def _posted(self, message: Json) -> None:
        if message.get("message_reference"):
            self.meter.note_answered(message["message_reference"]["message_id"])


def write_installation(folder: Path, backend_port: int, platforms: Sequence[Platform]) -> Path:
    """A settings file and a database in which a quarter of the members agree to everything."""
    limits = "\n".join(f"{name} = 1000000" for name in _LIMITS)
    lines = [f'[inference]\nbackend = "openai"\nurls = ["http://127.0.0.1:{backend_port}"]', f"[chat]\n{limits}"]
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
            for chat_id, user_id in platform.members[: int(MEMBERS * CONSENTING_SHARE)]:
                channel, member = identity.channel(chat_id), identity.member(user_id)
                voice = VoiceName(settings.voice)
                ensure_channel(session, channel, platform=platform.name, label=None, voice=voice, at=at, collect=True)
                record_consent(session, member, channel, list(Purpose), True, settings.policy_version, at)
    database.close()
    return file


_LIMITS = ("turns_per_minute", "channel_turns_per_minute", "total_turns_per_minute")


class BotProcesses:
    """`nocap bots` as it is started: its supervisor and a process for each platform."""

    def __init__(self, settings: Path) -> None:
        self._log = (settings.parent / "bots.log").open("wb")
        command = [sys.executable, "-m", "nocap.cli", "--settings", str(settings), "bots"]
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log)

    @property
    def _all(self) -> list[psutil.Process]:
        process = psutil.Process(self._process.pid)
        return [process, *process.children(recursive=True)]

    @property
    def resident_mib(self) -> list[float]:
        """Of each process."""
        return [one.memory_info().rss / 2**20 for one in self._all]

    @property
    def cpu_seconds(self) -> float:
        return float(sum(sum(one.cpu_times()[:2]) for one in self._all))

    def mapped(self, word: str) -> int:
        """How many libraries with `word` in their path the processes have loaded."""
        maps = [Path(f"/proc/{one.pid}/maps").read_text(encoding="utf-8") for one in self._all]
        return len({line.split()[-1] for text in maps for line in text.splitlines() if word in line})

    async def stop(self) -> None:
        """While the fakes go on: a bot that stops finishes what it has begun."""
        self._process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(self._process.wait, 30)
        self._log.close()


async def talk(platforms: Sequence[Platform], per_second: float, count: int) -> float:
    """`count` messages at `per_second` in all, the platforms in turn; how long the last answers took to come."""
    begun = time.perf_counter()
    for number in range(count):
        await asyncio.sleep(max(0.0, begun + number / per_second - time.perf_counter()))
        platform = platforms[number % len(platforms)]
        await platform.say(len(platform.meter.said))
    ended = time.perf_counter()
    for _ in range(int(DRAIN_SECONDS * 100)):
        if not any(one.meter.lost for one in platforms):
            break
        await asyncio.sleep(0.01)
    return time.perf_counter() - ended


async def measure(folder: Path, *, names: Sequence[str], quick: bool) -> dict[str, float]:
    async with AsyncExitStack() as stack:
        backend = await stack.enter_async_context(talking_backend(PIECES))
        platforms: list[Platform] = []
        if "telegram" in names:
            platforms.append(TelegramPlatform(await stack.enter_async_context(FakeTelegram())))
        if "discord" in names:
            platforms.append(DiscordPlatform(await stack.enter_async_context(FakeDiscord())))
        process = BotProcesses(write_installation(folder, backend, platforms))
        stack.push_async_callback(process.stop)
        for platform in platforms:
            await platform.wait_for_bot()
        return await _phases(platforms, process, quick=quick)


async def _phases(platforms: Sequence[Platform], process: BotProcesses, *, quick: bool) -> dict[str, float]:
    steady = STEADY_PER_SECOND * len(platforms)
    full = FULL_PER_SECOND * len(platforms) / 2
    await talk(platforms, steady / 2, WARM_UP)
    begun, cpu, own = time.perf_counter(), process.cpu_seconds, time.process_time()
    await talk(platforms, steady, steady * (5 if quick else 20))
    even = {one.name: one.meter.seconds(begun) for one in platforms}
    own = (time.process_time() - own) / (time.perf_counter() - begun)
    cpu = (process.cpu_seconds - cpu) / sum(len(seconds) for seconds in even.values())
    await talk(platforms, full, max(0, (FIRST // 4 if quick else FIRST) - _said(platforms)))
    before, begun = process.resident_mib, time.perf_counter()
    behind = await talk(platforms, full, 500 if quick else MESSAGES - _said(platforms))
    after = process.resident_mib
    loaded = [seconds for one in platforms for seconds in one.meter.seconds(begun)]
    figures = {f"{name}_overhead_p50_ms": statistics.median(seconds) * 1e3 for name, seconds in even.items()}
    figures |= {f"{name}_overhead_p95_ms": _p95(seconds) * 1e3 for name, seconds in even.items()}
    return figures | {
        "cpu_per_message_ms": cpu * 1e3,
        "players_cpu_share": own,
        "full_load_per_second": full,
        "full_load_p50_ms": statistics.median(loaded) * 1e3,
        "full_load_p95_ms": _p95(loaded) * 1e3,
        "full_load_seconds_behind": behind,
        "messages": _said(platforms),
        "messages_lost": sum(one.meter.lost for one in platforms),
        "messages_answered_twice": sum(one.meter.twice for one in platforms),
        "memory_first_mib": sum(before),
        "memory_last_mib": sum(after),
        "memory_growth_share": sum(after) / sum(before) - 1,
        "memory_of_the_largest_process_mib": max(*before, *after),
        "torch_libraries_mapped": process.mapped("/torch/"),
    }


def _said(platforms: Sequence[Platform]) -> int:
    return sum(len(one.meter.said) for one in platforms)


def _p95(seconds: Sequence[float]) -> float:
    return statistics.quantiles(seconds, n=20)[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about 1,000 messages instead of 20,000")
    parser.add_argument("--json", action="store_true", dest="as_json")
    parser.add_argument("--platform", choices=PLATFORMS, action="append", help="only this one, at half the full load")
    arguments = parser.parse_args()
    names = arguments.platform or PLATFORMS
    with TemporaryDirectory() as folder:
        figures = asyncio.run(measure(Path(folder), names=names, quick=arguments.quick))
    bars = BARS | {f"{name}_overhead_p95_ms": OVERHEAD for name in names}
    packages = ("python-telegram-bot", "discord.py", "aiohttp", "SQLAlchemy")
    publish("bots", figures, bars, packages=packages, as_json=arguments.as_json)


if __name__ == "__main__":
    main()
