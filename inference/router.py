"""Which adapter answers (`Router`) and on which replica (`ReplicaPool`)."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from inference.client import BackendClient
from nocap.domain import AdapterName, ChannelKey, VoiceName
from nocap.errors import BackendBusy, BackendPaused, BackendUnavailable

FIRST_REST_SECONDS = 1.0
LONGEST_REST_SECONDS = 30.0


class DeploymentLike(Protocol):
    """What is live for a voice: a row of `storage.tables.Deployment`."""

    @property
    def current(self) -> str: ...
    @property
    def previous(self) -> str | None: ...
    @property
    def canary(self) -> str | None: ...
    @property
    def canary_share(self) -> float: ...


class Router:
    """Names the adapter that answers in a channel, from the deployment row as it is at this moment."""

    def __init__(self, read_deployment: Callable[[VoiceName], DeploymentLike]) -> None:
        self._read_deployment = read_deployment

    async def deployment(self, voice: VoiceName) -> DeploymentLike:
        """The voice's row, read now and off the event loop."""
        return await asyncio.to_thread(self._read_deployment, voice)

    async def resolve(self, voice: VoiceName, channel: ChannelKey) -> AdapterName:
        """The adapter for one request: the canary in its share of the channels, else the current one."""
        live = await self.deployment(voice)
        if live.canary and channel_share(live.canary, channel) < live.canary_share:
            return AdapterName(live.canary)
        return AdapterName(live.current)


def channel_share(adapter: str, channel: ChannelKey) -> float:
    """Where the channel stands in [0, 1) for this canary: fixed for the pair, drawn anew for each adapter."""
    digest = hashlib.sha256(f"{adapter}/{channel}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64


class Replica:
    """One backend with what we know of its load and health."""

    def __init__(self, client: BackendClient, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.client = client
        self.outstanding = 0
        self._monotonic = monotonic
        self._failures = 0
        self._resting_until = 0.0
        self._busy_until = 0.0
        self.is_paused = False
        self._loads: dict[AdapterName, asyncio.Task[None]] = {}

    @property
    def is_resting(self) -> bool:
        """Whether it failed a moment ago; one request at a time may still try it."""
        return self._monotonic() < self._resting_until

    @property
    def busy_seconds(self) -> float:
        """How long it has asked to be left alone, by its Retry-After."""
        return max(0.0, self._busy_until - self._monotonic())

    def succeeded(self) -> None:
        self._failures = 0
        self._resting_until = 0.0

    def failed(self) -> None:
        """It rests for 1, 2, 4, … seconds, at most 30."""
        rest = min(LONGEST_REST_SECONDS, FIRST_REST_SECONDS * 2**self._failures)
        self._failures = min(self._failures + 1, 10)
        self._resting_until = self._monotonic() + rest

    def busy(self, error: BackendBusy) -> None:
        """It wants to be left alone for as long as `error` says."""
        self._busy_until = self._monotonic() + error.retry_after_seconds
        self.is_paused = isinstance(error, BackendPaused)

    @contextmanager
    def counted(self) -> Iterator[None]:
        self.outstanding += 1
        try:
            yield
        finally:
            self.outstanding -= 1

    async def load(self, adapter: AdapterName, path: str) -> None:
        """The replica holds the adapter afterwards; requests that miss it together cause one load."""
        task = self._loads.get(adapter)
        if task is None:
            task = asyncio.create_task(self.client.load_adapter(adapter, path))
            self._loads[adapter] = task
            task.add_done_callback(lambda done: self._forget_load(adapter, done))
        await asyncio.shield(task)

    def _forget_load(self, adapter: AdapterName, task: asyncio.Task[None]) -> None:
        self._loads.pop(adapter, None)
        if not task.cancelled():
            task.exception()


class ReplicaPool:
    """The replicas that hold the same adapters, in the order in which a request should try them."""

    def __init__(self, replicas: Sequence[Replica]) -> None:
        self.replicas = tuple(replicas)

    def candidates(self, beside: Collection[Replica] = ()) -> list[Replica]:
        """The well ones that are not in `beside`, least loaded first; where none is, an idle resting one, so that
        recovery is noticed.

        Raises BackendBusy where every well replica has asked to be left alone (BackendPaused where all of them make
        room for a retrain), BackendUnavailable where none
        is well and each is being tried already.
        """
        among = [one for one in self.replicas if one not in beside]
        ready = [one for one in among if not one.is_resting]
        free = sorted((one for one in ready if not one.busy_seconds), key=lambda one: one.outstanding)
        probes = [one for one in among if one.is_resting and not one.outstanding]
        if free or (probes and not ready):
            return free or probes[:1]
        if ready:
            wait_seconds = min(one.busy_seconds for one in ready)
            if all(one.is_paused for one in ready):
                raise BackendPaused(
                    "Every inference replica has made room for a retrain; ask again later.", wait_seconds
                )
            raise BackendBusy(f"Every inference replica is full for {wait_seconds:.1f} s more.", wait_seconds)
        urls = ", ".join(one.client.url for one in self.replicas)
        raise BackendUnavailable(f"No inference replica is well ({urls}); see their logs, or mend `inference.urls`.")
