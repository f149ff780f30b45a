"""`nocap bots` as it is started, against a Telegram and a backend on loopback, by nothing but settings."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import psutil

from nocap.app import initialise
from nocap.settings import load_settings
from tests.fakes.backend import FakeBackend, serve
from tests.fakes.telegram import FakeTelegram
from tests.fakes.telegram_objects import buttons

MOST_RESIDENT_BYTES = 150 * 2**20


async def test_the_process_answers_without_torch_in_little_memory_and_ends_when_told(tmp_path: Path) -> None:
    async with FakeTelegram() as telegram, serve(FakeBackend()) as backend:
        telegram.add_bot("7:TEST")
        file = tmp_path / "nocap.toml"
        file.write_text(
            f'[inference]\nurls = ["{backend}"]\n[telegram]\ntoken = "7:TEST"\nbase_url = "{telegram.url}"\n',
            encoding="utf-8",
        )
        initialise(load_settings(file), file)
        ada = telegram.person(101, "Ada")
        chat = telegram.private(ada)
        telegram.say(chat, ada, "are you there yet?")
        command = [sys.executable, "-m", "nocap.cli", "--settings", str(file), "bots"]
        process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
        try:
            answer = await telegram.answer_in(chat)
            query = telegram.press(answer, "👍", ada)
            await telegram.answered(query)
            seen = psutil.Process(process.pid)
            assert seen.memory_info().rss < MOST_RESIDENT_BYTES
            assert not [one.path for one in seen.memory_maps() if "torch" in one.path]
        finally:
            process.send_signal(signal.SIGTERM)
            _, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, errors.decode()
    assert b"Traceback" not in errors and b"7:TEST" not in errors
    assert answer["text"] == "base speaking" and buttons(answer)
    assert telegram.violations == []
