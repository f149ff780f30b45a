"""What bots know of inference: ask a voice, get a stream of text from exactly one adapter."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Protocol

import httpx

from inference.client import BackendClient, BackendReply
from inference.dialects import dialect_of
from inference.router import DeploymentLike, Replica, ReplicaPool, Router
from inference.router_metrics import FAILURES, FIRST_PIECE, MOVED, WHOLE_ANSWER
from nocap.domain import BASE, AdapterName, ChannelKey, ChatMessage, SamplingOptions, VoiceName
from nocap.errors import (
    BackendBusy,
    BackendUnavailable,
    InferenceError,
    NocapError,
    UnknownAdapter,
    WrongModelAnswered,
)
from nocap.settings import Settings


@dataclass(frozen=True, slots=True)
class ReplyRequest:
    """A prompt for a voice in a channel; `adapter` overrules what the router would choose (duels, smoke tests)."""

    voice: VoiceName
    channel: ChannelKey
    messages: tuple[ChatMessage, ...]
    sampling: SamplingOptions
    adapter: AdapterName | None = None


class ReplyStream(Protocol):
    """An answer as it arrives; `adapter` is the one that really answers."""

    @property
    def adapter(self) -> AdapterName: ...
    def __aiter__(self) -> AsyncIterator[str]: ...
    async def aclose(self) -> None: ...


class Responder(Protocol):
    async def open(self, request: ReplyRequest) -> ReplyStream:
        """The answer, with its first piece here; raises an InferenceError."""
        ...

    async def deployment(self, voice: VoiceName) -> DeploymentLike:
        """What is live for the voice at this moment."""
        ...


class RoutedReply:
    """An answer that keeps its replica's load and health in step with it, and survives the replica.

    Where the replica breaks off, another is asked the same with the same seed; if it repeats what was given out
    already, the answer goes on there and nobody notices. If not, the failure is raised: text is never taken back.
    """

    def __init__(self, responder: RoutedResponder, request: ReplyRequest, part: _Part, started: float) -> None:
        self.adapter = part.reply.adapter
        self._responder = responder
        self._request = request
        self._part = part
        self._tried = [part.replica]
        self._started = started

    async def __aiter__(self) -> AsyncIterator[str]:
        given = ""
        try:
            while True:
                try:
                    async for piece in _without_prefix(self._part.reply, given):
                        given += piece
                        yield piece
                    WHOLE_ANSWER.labels(self.adapter).observe(time.monotonic() - self._started)
                    return
                except BackendUnavailable as broken:
                    await self._move(broken)
                except _BegunDifferently:
                    raise BackendUnavailable(
                        "A replica broke off in the middle of an answer and another began it differently; ask again."
                    ) from None
        except InferenceError as error:
            FAILURES.labels(self.adapter, type(error).__name__).inc()
            raise
        finally:
            await self.aclose()

    async def _move(self, broken: BackendUnavailable) -> None:
        """Goes on at a replica that was not tried yet. Raises `broken` where none answers."""
        self._part.replica.failed()
        await self._part.close()
        try:
            self._part = await self._responder.open_part(self.adapter, self._request, self._tried)
        except InferenceError:
            raise broken from None
        self._tried.append(self._part.replica)
        MOVED.labels(self.adapter).inc()

    async def aclose(self) -> None:
        await self._part.close()


@dataclass(frozen=True, slots=True)
class _Part:
    """What one replica gives of an answer."""

    replica: Replica
    reply: BackendReply
    accounting: ExitStack

    async def close(self) -> None:
        self.accounting.close()
        await self.reply.aclose()


class _BegunDifferently(Exception):
    """The answer is not a repetition of what was given out."""


async def _without_prefix(reply: BackendReply, given: str) -> AsyncIterator[str]:
    """The pieces after `given`. Raises _BegunDifferently where the answer does not begin with it."""
    seen = ""
    async for piece in reply:
        if len(seen) >= len(given):
            yield piece
            continue
        seen += piece
        if seen[: len(given)] != given[: len(seen)]:
            break
        if len(seen) > len(given):
            yield seen[len(given) :]
    if seen[: len(given)] != given:
        raise _BegunDifferently


class RoutedResponder:
    """Answers by whichever replica can, and only ever by the adapter that the router named.

    A replica that lacks the adapter is told to load it (`adapter_path` says from where) and asked once more,
    then the next one is tried.
    """

    def __init__(self, router: Router, replicas: Sequence[Replica], adapter_path: Callable[[AdapterName], str]) -> None:
        self._router = router
        self._pool = ReplicaPool(replicas)
        self._adapter_path = adapter_path

    async def __aenter__(self) -> RoutedResponder:
        return self

    async def __aexit__(self, *failure: object) -> None:
        for replica in self._pool.replicas:
            await replica.client.aclose()

    async def deployment(self, voice: VoiceName) -> DeploymentLike:
        return await self._router.deployment(voice)

    async def open(self, request: ReplyRequest) -> RoutedReply:
        started = time.monotonic()
        adapter = request.adapter or await self._router.resolve(request.voice, request.channel)
        repeatable = _seeded(request)
        try:
            part = await self.open_part(adapter, repeatable)
        except InferenceError as error:
            FAILURES.labels(adapter, type(error).__name__).inc()
            raise
        FIRST_PIECE.labels(adapter).observe(time.monotonic() - started)
        return RoutedReply(self, repeatable, part, started)

    async def open_part(self, adapter: AdapterName, request: ReplyRequest, beside: Collection[Replica] = ()) -> _Part:
        """An answer with its first piece here, by a replica that is not in `beside`."""
        failure: InferenceError | None = None
        for replica in self._pool.candidates(beside):
            try:
                return await self._open_on(replica, adapter, request)
            except BackendUnavailable as error:
                replica.failed()
                failure = error
            except BackendBusy as error:
                replica.busy(error)
                failure = failure or error
            except (UnknownAdapter, WrongModelAnswered) as error:
                failure = error
        assert failure is not None, "candidates() yields at least one replica"
        raise failure

    async def _open_on(self, replica: Replica, adapter: AdapterName, request: ReplyRequest) -> _Part:
        with ExitStack() as accounting:
            accounting.enter_context(replica.counted())
            try:
                reply = await replica.client.chat(adapter, request.messages, request.sampling)
            except (UnknownAdapter, WrongModelAnswered) as missing:
                await self._load(replica, adapter, missing)
                reply = await replica.client.chat(adapter, request.messages, request.sampling)
            replica.succeeded()
            return _Part(replica, reply, accounting.pop_all())

    async def _load(self, replica: Replica, adapter: AdapterName, missing: InferenceError) -> None:
        if adapter == BASE:
            raise missing
        try:
            await replica.load(adapter, self._adapter_path(adapter))
        except (BackendUnavailable, BackendBusy):
            raise
        except NocapError as error:
            raise UnknownAdapter(f"{missing} Loading it there failed: {error}") from error


def _seeded(request: ReplyRequest) -> ReplyRequest:
    """The request with a seed of its own, so that another replica can repeat the answer."""
    if request.sampling.seed is not None:
        return request
    return replace(request, sampling=replace(request.sampling, seed=random.getrandbits(31)))


def connect(
    settings: Settings,
    read_deployment: Callable[[VoiceName], DeploymentLike],
    *,
    user_token: str | None,
    admin_token: str | None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> RoutedResponder:
    """A responder over every replica of `settings.inference.urls`; `async with` closes its connections."""
    inference = settings.inference
    clients = [
        BackendClient(url, user_token, admin_token, inference.timeout_seconds, transport, dialect_of(inference))
        for url in inference.urls
    ]
    return RoutedResponder(Router(read_deployment), [Replica(client) for client in clients], adapter_path_for(settings))


def adapter_path_for(settings: Settings) -> Callable[[AdapterName], str]:
    """Where a replica finds an adapter: by name under the embedded server's root, by full path elsewhere."""
    if settings.inference.backend == "embedded":
        return str
    return lambda name: str(settings.adapters_dir.resolve() / name)
