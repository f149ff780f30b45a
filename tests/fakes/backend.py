"""A wire-level fake of vLLM 0.33 with its endpoints and traps; no model behind it. `tgi.py` is TGI's.

The traps: an empty name is the base model, `max_loras` says nothing about how many are loaded, a name that is loaded
again from elsewhere goes on answering what its prefix cache holds (#42125), and without
VLLM_ALLOW_RUNTIME_LORA_UPDATING there are no adapter endpoints at all.

`FakeBackend.transport()` plugs it under a real httpx client; `serve()` puts it on a local socket, for what only a
socket can show (silence, a connection cut in two).
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

Answer = Callable[[list[dict[str, str]]], list[str]]


def says(*pieces: str) -> Answer:
    """An adapter that always answers with these pieces."""
    return lambda messages: list(pieces)


def echoes(messages: list[dict[str, str]]) -> list[str]:
    """An adapter that repeats the whole prompt, word by word."""
    words = " ".join(message["content"] for message in messages if message["role"] != "system").split(" ")
    return [f"{word} " for word in words]


class ConnectionCut(Exception):
    """Raised inside a body: the connection breaks at this point."""


@dataclass(frozen=True)
class Refuse:
    """The next chat request is refused."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    message: str = "no"


@dataclass(frozen=True)
class Cut:
    """The next answer breaks off after so many pieces; `cleanly` ends the body as if all were said."""

    after: int
    cleanly: bool = False


@dataclass(frozen=True)
class Hang:
    """The next answer falls silent after so many pieces."""

    after: int


@dataclass(frozen=True)
class FailInside:
    """The next answer turns into vLLM's error event after so many pieces."""

    after: int
    code: int = 500


@dataclass
class FakeResponse:
    status: int
    body: AsyncIterator[bytes]
    headers: dict[str, str] = field(default_factory=dict)


class FakeBackend:
    def __init__(self, **adapters: Answer) -> None:
        self.models: dict[str, Answer] = {"base": says("base ", "speaking"), **_dashed(adapters)}
        self.loadable: dict[str, Answer] = {}
        """By path: what `load_lora_adapter` finds on its disk."""
        self.faults: deque[Refuse | Cut | Hang | FailInside] = deque()
        self.silent_base = False
        """A name that is unknown is answered by the base model, in the base's name."""
        self.has_adapter_routes = True
        self.resolves_from: dict[str, Answer] = {}
        """What vLLM's filesystem resolver finds by name at the first request."""
        self._prefix_cache: dict[str, list[str]] = {}
        self.omits_model = False
        self.is_down = False
        self.user_token: str | None = None
        self.admin_token: str | None = None
        self.chats: list[dict[str, Any]] = []
        self.loads: list[tuple[str, str]] = []
        self.answers_cancelled = 0
        self.was_asked = asyncio.Event()
        self.pause_seconds = 0.0
        """Before every piece, as a model takes its time."""
        self.gate: asyncio.Event | None = None
        """If set, answers wait for it before their first piece."""

    def transport(self) -> httpx.AsyncBaseTransport:
        return _FakeTransport(self)

    async def handle(self, method: str, path: str, headers: dict[str, str], body: bytes) -> FakeResponse:
        admin = path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter")
        token = self.admin_token if admin else self.user_token
        if token and headers.get("authorization") != f"Bearer {token}":
            return _error(401, "Unauthorized")
        if method == "GET" and path in ("/health", "/ready"):
            return FakeResponse(200, _bytes(b""))
        if (method, path) == ("GET", "/v1/models"):
            return _json(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]})
        if admin and not self.has_adapter_routes:
            return _json(404, {"detail": "Not Found"})
        if (method, path) == ("POST", "/v1/load_lora_adapter"):
            return self._load(json.loads(body))
        if (method, path) == ("POST", "/v1/unload_lora_adapter"):
            return self._unload(json.loads(body)["lora_name"])
        if (method, path) == ("POST", "/v1/chat/completions"):
            return self._chat(json.loads(body))
        return _error(404, "Not Found")

    def _load(self, body: dict[str, str]) -> FakeResponse:
        name, path = body["lora_name"], body["lora_path"]
        self.loads.append((name, path))
        if name in self.models:
            return _error(400, f"The lora adapter '{name}' has already been loaded.")
        if path not in self.loadable:
            return _error(404, f"Loading lora {name} failed: No adapter found for {path}")
        self.models[name] = self.loadable[path]
        return FakeResponse(200, _bytes(f"Success: LoRA adapter '{name}' added successfully.".encode()))

    def _unload(self, name: str) -> FakeResponse:
        if self.models.pop(name, None) is None:
            return _error(404, f"The lora adapter '{name}' cannot be found.")
        return FakeResponse(200, _bytes(f"Success: LoRA adapter '{name}' removed successfully.".encode()))

    def _chat(self, body: dict[str, Any]) -> FakeResponse:
        self.chats.append(body)
        self.was_asked.set()
        fault = self.faults.popleft() if self.faults else None
        if isinstance(fault, Refuse):
            return _error(fault.status, fault.message, fault.headers)
        name = body.get("model") or "base"
        if name in self.resolves_from:
            self.models.setdefault(name, self.resolves_from[name])
        if name not in self.models:
            if not self.silent_base:
                return _error(404, f"The model `{name}` does not exist.")
            name = "base"
        cached = json.dumps([name, body["messages"]])
        pieces = self._prefix_cache.setdefault(cached, self.models[name](body["messages"]))
        model = None if self.omits_model else name
        if not body.get("stream"):
            message = {"role": "assistant", "content": "".join(pieces)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return _json(200, {"object": "chat.completion", "model": model, "choices": [choice]})
        return FakeResponse(200, self._stream(model, pieces, fault), {"content-type": "text/event-stream"})

    async def _stream(
        self, model: str | None, pieces: list[str], fault: Cut | Hang | FailInside | None
    ) -> AsyncIterator[bytes]:
        try:
            yield b": keep-alive\n\n" + _event(model, {"role": "assistant", "content": ""})
            if self.gate is not None:
                await self.gate.wait()
            for index, piece in enumerate([*pieces, None]):
                if fault is not None and index == fault.after:
                    if isinstance(fault, Hang):
                        await asyncio.Event().wait()
                    if isinstance(fault, FailInside):
                        error = {"error": {"message": "EngineDeadError", "code": fault.code}}
                        yield f"data: {json.dumps(error)}\n\n".encode()
                        return
                    if not fault.cleanly:
                        raise ConnectionCut
                    return
                if piece is not None:
                    await asyncio.sleep(self.pause_seconds)
                    yield _event(model, {"content": piece})
            yield _event(model, {}, "stop") + b"data: [DONE]\n\n"
        except (asyncio.CancelledError, GeneratorExit):
            self.answers_cancelled += 1
            raise


class _FakeTransport(httpx.AsyncBaseTransport):
    def __init__(self, backend: FakeBackend) -> None:
        self._backend = backend

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._backend.is_down:
            raise httpx.ConnectError("All connection attempts failed", request=request)
        body = await request.aread()
        answer = await self._backend.handle(request.method, request.url.path, dict(request.headers), body)
        return httpx.Response(answer.status, headers=answer.headers, stream=_FakeStream(answer.body))


class _FakeStream(httpx.AsyncByteStream):
    def __init__(self, body: AsyncIterator[bytes]) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._body:
                yield chunk
        except ConnectionCut:
            raise httpx.RemoteProtocolError("peer closed connection without sending complete message body") from None

    async def aclose(self) -> None:
        await self._body.aclose()  # type: ignore[attr-defined]


@asynccontextmanager
async def serve(backend: FakeBackend) -> AsyncIterator[str]:
    """The fake's URL while it listens on a free local port; speaks just enough HTTP/1.1, one request a connection."""
    handlers: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(asyncio.current_task())  # type: ignore[arg-type]
        try:
            await _answer_one(backend, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except ConnectionCut:
            writer.transport.abort()
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in handlers:
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)


async def _answer_one(backend: FakeBackend, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = head[0].split(" ")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    response = await backend.handle(method, path, headers, body)
    lines = [f"HTTP/1.1 {response.status} X", "transfer-encoding: chunked", "connection: close"]
    lines += [f"{name}: {value}" for name, value in response.headers.items()]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    async for chunk in response.body:
        if chunk:
            writer.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
            await writer.drain()
    writer.write(b"0\r\n\r\n")
    await writer.drain()


def _dashed(adapters: dict[str, Answer]) -> dict[str, Answer]:
    return {name.replace("_", "-"): answer for name, answer in adapters.items()}


def _event(model: str | None, delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    event = {"object": "chat.completion.chunk", "choices": [choice]} | ({"model": model} if model else {})
    return f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode()


def _json(status: int, value: object, headers: dict[str, str] | None = None) -> FakeResponse:
    body = json.dumps(value).encode()
    return FakeResponse(status, _bytes(body), {"content-type": "application/json", **(headers or {})})


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> FakeResponse:
    return _json(status, {"error": {"message": message, "type": "Error", "code": status}}, headers)


async def _bytes(body: bytes) -> AsyncIterator[bytes]:
    yield body
