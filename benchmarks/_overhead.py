"""What router and client add to a request: CPU and wall time beside a bare socket, against a server that only talks."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks._talking import talking_backend
from inference.dialects import Dialect
from inference.responder import ReplyRequest, connect
from inference.wire import chat_body
from nocap.domain import BASE, ChannelKey, ChatMessage, SamplingOptions, VoiceName
from nocap.settings import InferenceSettings, Settings
from storage import registry
from storage.crypto import Keyring
from storage.database import Database
from storage.tables import Deployment

VOICE = VoiceName("genz")
PIECES = 24
MESSAGES = (ChatMessage("system", "You are a bot. " * 20), ChatMessage("user", "what's up with school today"))
SAMPLING = SamplingOptions(seed=1)


async def router_overhead(folder: Path, requests: int) -> dict[str, float]:
    """Milliseconds a request at the 95th percentile; `folder` takes a database with the voice's pointer."""
    database = _database(folder)

    def read(voice: VoiceName) -> Deployment:
        with database.read() as session:
            return registry.deployment(session, voice)

    cpu_ms, routed_ms, bare_ms = [], [], []
    async with talking_backend(PIECES) as port:
        url = f"http://127.0.0.1:{port}"
        settings = Settings(inference=InferenceSettings(urls=(url,)))
        async with connect(settings, read, user_token=None, admin_token=None) as responder:
            for turn in range(requests + 20):
                wall, cpu = time.perf_counter(), time.process_time()
                reply = await responder.open(ReplyRequest(VOICE, ChannelKey(str(turn)), MESSAGES, SAMPLING))
                assert len([piece async for piece in reply]) == PIECES
                routed, spent = time.perf_counter() - wall, time.process_time() - cpu
                wall = time.perf_counter()
                await _bare_request(port)
                if turn >= 20:
                    bare_ms.append(1e3 * (time.perf_counter() - wall))
                    routed_ms.append(1e3 * routed)
                    cpu_ms.append(1e3 * spent)
    database.close()
    return {
        "router_cpu_ms_p95": _p95(cpu_ms),
        "router_wall_ms_p95": _p95(routed_ms),
        "bare_socket_wall_ms_p95": _p95(bare_ms),
    }


def _p95(values: list[float]) -> float:
    return sorted(values)[int(0.95 * len(values))]


def _database(folder: Path) -> Database:
    database = Database.open(f"sqlite:///{folder / 'nocap.db'}", Keyring.create(folder / "key"), create=True)
    with database.write() as session:
        registry.ensure_voice(session, VOICE, "You are a bot.", [], datetime.now(UTC))
    return database


async def _bare_request(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps(chat_body(Dialect(), BASE, MESSAGES, SAMPLING, True))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body.encode())}\r\n\r\n"
    writer.write((head + body).encode())
    await reader.readuntil(b"\r\n0\r\n\r\n")
    writer.close()
