"""`nocap bots` as it is started: a process of its own, against a Discord and a backend on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from pathlib import Path

import httpx
import psutil
import pytest
from structlog.testing import capture_logs

from bots.identity import Identity
from nocap.app import BotHealth, configured_bots, initialise, run_bots
from nocap.errors import ConfigurationError
from nocap.settings import InferenceSettings, load_settings
from storage.crypto import Keyring
from tests.bots.support import free_port, until, world
from tests.fakes.backend import FakeBackend, serve
from tests.fakes.discord_objects import ADA, GENERAL, buttons
from tests.fakes.discord_server import FakeDiscord

MOST_RESIDENT_BYTES = 150 * 2**20


async def test_the_process_answers_without_torch_in_little_memory_and_ends_when_told(tmp_path: Path) -> None:
    port = free_port()
    async with FakeDiscord() as server, serve(FakeBackend()) as backend:
        file = tmp_path / "nocap.toml"
        file.write_text(
            f'[metrics]\nbots_port = {port}\n[inference]\nurls = ["{backend}"]\n[discord]\ntoken = "{server.token}"\n'
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
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
                assert (await http.get("/healthz")).status_code == 200
                for _ in range(100):  # discord.py counts as ready two seconds after its last server came
                    if (ready := await http.get("/readyz")).status_code == 200:
                        break
                    await asyncio.sleep(0.2)
                assert (ready.status_code, ready.text) == (200, "ready\n")
                figures = (await http.get("/metrics")).text
            assert 'nocap_router_answer_seconds_count{adapter="base"} 5.0' in figures
            assert 'nocap_router_first_piece_seconds_count{adapter="base"} 5.0' in figures
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


async def test_bots_are_ready_only_while_platform_database_and_backend_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with FakeDiscord() as server, serve(FakeBackend()) as backend:
        with world(tmp_path, discord={"token": server.token, "api_base": f"http://{server.url}/api/v10"}) as bot:
            Keyring.create(bot.settings.key_file, bytes(32))
            settings = bot.settings.model_copy(update={"inference": InferenceSettings(urls=(backend,))})
            health = BotHealth(settings, bot.database)

            async def says(cause: str) -> None:
                for _ in range(600):
                    if cause in (seen := await asyncio.to_thread(health.not_ready) or "ready"):
                        return
                    await asyncio.sleep(0.05)
                raise AssertionError(f"{seen!r}, not {cause!r}")

            await says("no bot has started yet")
            task = asyncio.create_task(run_bots(settings, bot.database, health=health))
            await says("ready")
            with monkeypatch.context() as away:
                away.setattr(bot.database, "why_away", lambda: "The database is away.")
                await says("The database is away.")
            with monkeypatch.context() as gone:
                gone.setattr(health, "_settings", bot.settings)
                await says("no inference replica answers at http://127.0.0.1:8651")
            await says("ready")
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await says("discord genz: not connected")


async def test_no_bot_at_all_is_said_with_the_next_step(tmp_path: Path) -> None:
    with world(tmp_path) as bot, pytest.raises(ConfigurationError, match=r"discord\.token"):
        await run_bots(bot.settings, bot.database)


def test_a_second_voice_has_chats_of_its_own() -> None:
    keyring = Keyring(bytes(32))
    first, second = Identity(keyring, "discord"), Identity(keyring, "discord", "other")
    assert first.member(5) == second.member(5)
    assert first.channel(10) != second.channel(10)
    assert first.message(10, 7) != second.message(10, 7)
