"""A backend in a process of its own that has every answer ready: it speaks OpenAI's chat protocol and nothing else."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from nocap.domain import BASE


@asynccontextmanager
async def talking_backend(pieces: int) -> AsyncIterator[int]:
    """The port of a process that answers every request with the same stream of so many pieces, at once."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_talk, args=(theirs, pieces), daemon=True)
    process.start()
    theirs.close()  # a process that dies before it listens ends the wait
    try:
        yield await asyncio.to_thread(ours.recv)
    finally:
        process.terminate()
        process.join()


def _talk(connection: multiprocessing.connection.Connection, pieces: int) -> None:
    async def serve() -> None:
        server = await asyncio.start_server(partial(_answer, _reply(pieces)), "127.0.0.1", 0)
        connection.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


async def _answer(reply: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(length)
        writer.write(reply)
        await writer.drain()


def _reply(pieces: int) -> bytes:
    """A whole HTTP answer; each event is a chunk of its own."""
    chunks = [_event({"content": f"piece {number} "}) for number in range(pieces)]
    chunks += [_event({}, "stop"), "data: [DONE]\n\n", ""]
    body = "".join(f"{len(chunk):x}\r\n{chunk}\r\n" for chunk in chunks)
    return f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}".encode()


def _event(delta: dict[str, str], finish_reason: str | None = None) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return f"data: {json.dumps({'model': BASE, 'choices': [choice]})}\n\n"
