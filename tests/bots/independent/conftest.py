"""Servers that other people wrote and that know nothing of us, installed by npm into a folder of their own."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

PACKAGES = "NOCAP_TEST_WIRE_PACKAGES"
"""The folder with the `node_modules` that docs/bots.md tells how to fill."""
HERE = Path(__file__).parent


class Server:
    """A Node process that answers one JSON value a line to one JSON value a line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._turn = asyncio.Lock()

    async def read(self) -> Any:
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), 30)
        assert line, "the server has ended"
        return json.loads(line)

    async def call(self, method: str, argument: object) -> Any:
        assert self._process.stdin is not None
        async with self._turn:
            self._process.stdin.write(json.dumps([method, argument]).encode() + b"\n")
            return await self.read()


Start = Callable[..., AbstractAsyncContextManager[Server]]


@pytest.fixture
def node() -> Start:
    """Starts a script of this folder with the package folder and further arguments; `package` has to be there."""

    @asynccontextmanager
    async def start(script: str, package: str, *arguments: str) -> AsyncIterator[Server]:
        folder = os.environ.get(PACKAGES)
        if not folder:
            pytest.skip(f"{PACKAGES} does not name a folder with {package}; docs/bots.md says how to make one")
        if not (Path(folder) / "node_modules" / package).is_dir():
            pytest.skip(f"{package} is not installed in {folder}")
        if shutil.which("node") is None:
            pytest.skip("there is no node")
        process = await asyncio.create_subprocess_exec(
            "node",
            str(HERE / script),
            folder,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=2**22,
        )
        try:
            yield Server(process)
        finally:
            process.kill()
            await process.wait()

    return start
