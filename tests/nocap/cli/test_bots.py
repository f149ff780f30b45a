"""`nocap bots` as it is started: a process of its own, against a Discord and a backend on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from pathlib import Path

import psutil
import pytest
from structlog.testing import capture_logs

from bots.identity import Identity
from nocap.app import configured_bots, initialise, run_bots
from nocap.errors import ConfigurationError
from nocap.settings import load_settings
from storage.crypto import Keyring
from tests.bots.support import until, world
from tests.fakes.backend import FakeBackend, serve
from tests.fakes.discord_objects import ADA, GENERAL, buttons
from tests.fakes.discord_server import FakeDiscord

MOST_RESIDENT_BYTES = 150 * 2**20


async def test_the_process_answers_without_torch_in_little_memory_and_ends_when_told(tmp_path: Path) -> None:
    async with FakeDiscord() as server, serve(FakeBackend()) as backend:
        file = tmp_path / "nocap.toml"
        file.write_text(
            f'[inference]\nurls = ["{backend}"]\n[discord]\ntoken = "{server.token}"\n'
            f'api_base = "http://{server.url}/api/v10"\n',
            encoding="utf-8",
        )
        initialise(load_settings(file), file)
        command = [sys.executable, "-m", "nocap.cli", "--settings", str(file), "bots"]
        process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
        try:
            await server.until(lambda: server.sessions, seconds=60)
            for number in range(5):
                await server.say(ADA, f"hi {number}")
                await server.until(lambda number=number: len(server.posts()) == number + 1)  # type: ignore[misc]
            await server.press(ADA, buttons(server.posts()[0])["👍"], server.posts()[0])
            seen = psutil.Process(process.pid)
            assert seen.memory_info().rss < MOST_RESIDENT_BYTES
            assert not [one.path for one in seen.memory_maps() if "torch" in one.path]
        finally:
            process.send_signal(signal.SIGTERM)
            _, errors = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, errors.decode()
    assert b"Traceback" not in errors
    assert server.violations == []
    assert {one["channel_id"] for one in server.posts()} == {str(GENERAL)}


async def test_two_voices_live_in_one_process_and_one_that_is_refused_leaves_the_other_alone(tmp_path: Path) -> None:
    async with FakeDiscord() as server:
        section = {
            "token": server.token,
            "voices": {"other": "wrong-token"},
            "api_base": f"http://{server.url}/api/v10",
        }
        with world(tmp_path, discord=section) as bot:
            assert [(one.platform, one.voice) for one in configured_bots(bot.settings)] == [
                ("discord", "genz"),
                ("discord", "other"),
            ]
            Keyring.create(bot.settings.key_file, bytes(32))
            task = asyncio.create_task(run_bots(bot.settings, bot.database))
            with capture_logs() as lines:
                await server.until(lambda: server.sessions)
                await server.say(ADA, "anybody there?")
                await server.until(server.posts)
                await until(lambda: any((one["event"], one.get("voice")) == ("refused", "other") for one in lines))
            assert not task.done()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def test_no_bot_at_all_is_said_with_the_next_step(tmp_path: Path) -> None:
    with world(tmp_path) as bot, pytest.raises(ConfigurationError, match=r"discord\.token"):
        await run_bots(bot.settings, bot.database)


def test_a_second_voice_has_chats_of_its_own() -> None:
    keyring = Keyring(bytes(32))
    first, second = Identity(keyring, "discord"), Identity(keyring, "discord", "other")
    assert first.member(5) == second.member(5)
    assert first.channel(10) != second.channel(10)
    assert first.message(10, 7) != second.message(10, 7)
