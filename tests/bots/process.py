"""`nocap bots` as an operator starts it: the installed command, a fresh data folder, and nothing but settings."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import httpx

from nocap.app import initialise
from nocap.settings import load_settings
from tests.bots.support import free_port

COMMAND = Path(sys.executable).with_name("nocap")
START_SECONDS = 60.0

Result = TypeVar("Result")


class BotsProcess:
    """What it has logged is in `log` once it has ended."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self._process = process
        self._url = f"http://127.0.0.1:{port}/readyz"
        self.pid = process.pid
        self.log = ""

    async def until_ready(self) -> None:
        """Until every bot is connected."""

        async def is_ready() -> bool:
            assert self._process.returncode is None, "it has ended"
            async with httpx.AsyncClient() as client:
                try:
                    return (await client.get(self._url)).status_code == 200
                except httpx.HTTPError:
                    return False

        await until_it_is(is_ready, START_SECONDS)

    async def stop(self) -> None:
        """Raises AssertionError where it does not end in an orderly way."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        _, errors = await asyncio.wait_for(self._process.communicate(), 60)
        self.log = errors.decode()
        assert self._process.returncode == 0, self.log
        assert "Traceback" not in self.log, self.log


@asynccontextmanager
async def bots_process(folder: Path, backend: str, section: str, *, name: str = "nocap") -> AsyncIterator[BotsProcess]:
    """The running process; `section` is a platform's part of the settings file, `backend` a URL.

    Processes of one folder share its data; each needs a `name` of its own for its settings.
    """
    file, port = folder / f"{name}.toml", free_port()
    file.write_text(f'[inference]\nurls = ["{backend}"]\n[metrics]\nbots_port = {port}\n{section}', encoding="utf-8")
    initialise(load_settings(file), file)
    process = BotsProcess(
        await asyncio.create_subprocess_exec(COMMAND, "--settings", str(file), "bots", stderr=asyncio.subprocess.PIPE),
        port,
    )
    try:
        yield process
    finally:
        await process.stop()


async def until_it_is(question: Callable[[], Awaitable[Result]], seconds: float = 15.0) -> Result:
    """The first answer that is neither empty nor false."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not (answer := await question()):
        assert asyncio.get_running_loop().time() < deadline, "it did not come to pass"
        await asyncio.sleep(0.05)
    return answer
