from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass

import pytest

from inference.client import BackendClient
from inference.router import Replica, ReplicaPool, Router, channel_share
from nocap.domain import AdapterName, ChannelKey, VoiceName
from nocap.errors import BackendBusy, BackendUnavailable
from tests.fakes.backend import FakeBackend, says

VOICE = VoiceName("genz")


@dataclass
class Row:
    current: str = "genz-v1"
    previous: str | None = None
    canary: str | None = None
    canary_share: float = 0.0


class ManualClock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def replica(clock: ManualClock, backend: FakeBackend | None = None, url: str = "http://fake") -> Replica:
    transport = (backend or FakeBackend()).transport()
    return Replica(BackendClient(url, transport=transport), clock)


async def test_a_moved_pointer_is_seen_by_the_very_next_request() -> None:
    row = Row()
    router = Router(lambda voice: row)
    assert await router.resolve(VOICE, ChannelKey("c")) == "genz-v1"
    row.current = "genz-v2"
    assert await router.resolve(VOICE, ChannelKey("c")) == "genz-v2"


async def test_the_row_is_read_off_the_event_loop() -> None:
    threads: list[int] = []

    def read(voice: VoiceName) -> Row:
        threads.append(threading.get_ident())
        return Row()

    await Router(read).resolve(VOICE, ChannelKey("c"))
    assert threads != [threading.get_ident()]


async def test_a_canary_answers_in_its_share_of_the_channels_and_stays_there() -> None:
    router = Router(lambda voice: Row(canary="genz-v2", canary_share=0.2))
    channels = [ChannelKey(f"channel-{number}") for number in range(400)]
    first = [await router.resolve(VOICE, channel) for channel in channels]
    again = [await router.resolve(VOICE, channel) for channel in channels]
    assert first == again
    assert 50 < first.count(AdapterName("genz-v2")) < 110


@pytest.mark.parametrize(("share", "expected"), [(0.0, "genz-v1"), (1.0, "genz-v2")])
async def test_no_share_is_nobody_and_the_whole_share_is_everybody(share: float, expected: str) -> None:
    router = Router(lambda voice: Row(canary="genz-v2", canary_share=share))
    assert {await router.resolve(VOICE, ChannelKey(str(number))) for number in range(50)} == {expected}


def test_every_process_draws_the_same_channels() -> None:
    assert channel_share("genz-v2", ChannelKey("c" * 32)) == pytest.approx(0.414365, abs=1e-6)


def test_another_canary_draws_other_channels() -> None:
    channels = [ChannelKey(str(number)) for number in range(100)]
    first = {channel for channel in channels if channel_share("genz-v2", channel) < 0.3}
    second = {channel for channel in channels if channel_share("genz-v3", channel) < 0.3}
    assert first != second


def test_the_least_loaded_replica_comes_first() -> None:
    one, two = replica(ManualClock()), replica(ManualClock())
    with one.counted():
        assert ReplicaPool([one, two]).candidates() == [two, one]
    assert ReplicaPool([one, two]).candidates() == [one, two]


def test_a_failed_replica_rests_longer_each_time_and_is_forgiven_by_one_success() -> None:
    clock = ManualClock()
    one, two = replica(clock), replica(clock)
    pool = ReplicaPool([one, two])
    for rest_seconds in (1, 2, 4, 8, 16, 30, 30):
        one.failed()
        clock.seconds += rest_seconds - 0.01
        assert pool.candidates() == [two]
        clock.seconds += 0.02
        assert pool.candidates() == [one, two]
    one.succeeded()
    one.failed()
    clock.seconds += 1.01
    assert pool.candidates() == [one, two]


def test_where_all_rest_one_request_at_a_time_probes() -> None:
    clock = ManualClock()
    one = replica(clock)
    pool = ReplicaPool([one])
    one.failed()
    assert pool.candidates() == [one]
    with one.counted(), pytest.raises(BackendUnavailable, match="No inference replica is well"):
        pool.candidates()


def test_retry_after_is_honoured() -> None:
    clock = ManualClock()
    one, two = replica(clock), replica(clock)
    pool = ReplicaPool([one, two])
    one.busy(BackendBusy("full", 5))
    assert pool.candidates() == [two]
    two.busy(BackendBusy("full", 3))
    with pytest.raises(BackendBusy) as caught:
        pool.candidates()
    assert caught.value.retry_after_seconds == 3
    clock.seconds = 3.5
    assert pool.candidates() == [two]


async def test_requests_that_miss_an_adapter_together_cause_one_load() -> None:
    backend = FakeBackend()
    backend.loadable["here"] = says("hi")
    one = replica(ManualClock(), backend)
    await asyncio.gather(*(one.load(AdapterName("genz-v1"), "here") for _ in range(8)))
    assert backend.loads == [("genz-v1", "here")]
