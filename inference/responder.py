"""What bots know of inference: ask a voice, get a stream of text from exactly one adapter."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

import httpx

from inference.client import BackendClient, BackendReply
from inference.router import DeploymentLike, Replica, ReplicaPool, Router
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
    """A replica's answer that keeps the replica's load and health in step with it."""

    def __init__(self, replica: Replica, reply: BackendReply, accounting: ExitStack) -> None:
        self.adapter = reply.adapter
        self._replica = replica
        self._reply = reply
        self._accounting = accounting

    async def __aiter__(self) -> AsyncIterator[str]:
        try:
            async for piece in self._reply:
                yield piece
        except BackendUnavailable:
            self._replica.failed()
            raise
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        self._accounting.close()
        await self._reply.aclose()


class RoutedResponder:
    """Answers by whichever replica can, and only ever by the adapter that the router named.

    A replica that lacks the adapter is told to load it (`adapter_path` says from where) and asked once more,
    then the next one is tried. Nothing is tried again once text has come.
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
        adapter = request.adapter or await self._router.resolve(request.voice, request.channel)
        failure: InferenceError | None = None
        for replica in self._pool.candidates():
            try:
                return await self._open_on(replica, adapter, request)
            except BackendUnavailable as error:
                replica.failed()
                failure = error
            except BackendBusy as error:
                replica.busy(error.retry_after_seconds)
                failure = failure or error
            except (UnknownAdapter, WrongModelAnswered) as error:
                failure = error
        assert failure is not None, "candidates() yields at least one replica"
        raise failure

    async def _open_on(self, replica: Replica, adapter: AdapterName, request: ReplyRequest) -> RoutedReply:
        with ExitStack() as accounting:
            accounting.enter_context(replica.counted())
            try:
                reply = await replica.client.chat(adapter, request.messages, request.sampling)
            except (UnknownAdapter, WrongModelAnswered) as missing:
                await self._load(replica, adapter, missing)
                reply = await replica.client.chat(adapter, request.messages, request.sampling)
            replica.succeeded()
            return RoutedReply(replica, reply, accounting.pop_all())

    async def _load(self, replica: Replica, adapter: AdapterName, missing: InferenceError) -> None:
        if adapter == BASE:
            raise missing
        try:
            await replica.load(adapter, self._adapter_path(adapter))
        except (BackendUnavailable, BackendBusy):
            raise
        except NocapError as error:
            raise UnknownAdapter(f"{missing} Loading it there failed: {error}") from error


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
        BackendClient(url, user_token, admin_token, inference.timeout_seconds, transport) for url in inference.urls
    ]
    return RoutedResponder(Router(read_deployment), [Replica(client) for client in clients], adapter_path_for(settings))


def adapter_path_for(settings: Settings) -> Callable[[AdapterName], str]:
    """Where a replica finds an adapter: by name under the embedded server's root, by full path elsewhere."""
    if settings.inference.backend == "embedded":
        return str
    return lambda name: str(settings.adapters_dir.resolve() / name)
