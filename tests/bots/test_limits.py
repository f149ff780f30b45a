from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bots.limits import Limit, RateLimits
from nocap.domain import ChannelKey, MemberKey
from nocap.settings import Settings

ADA, BEN = MemberKey("ada"), MemberKey("ben")
HERE, THERE = ChannelKey("here"), ChannelKey("there")


class ManualClock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def limits(clock: ManualClock, member: float = 1e6, channel: float = 1e6, everyone: float = 1e6) -> RateLimits:
    return RateLimits(
        member_per_minute=member, channel_per_minute=channel, everyone_per_minute=everyone, monotonic=clock
    )


def test_a_member_gets_a_burst_and_then_one_turn_per_interval() -> None:
    clock = ManualClock()
    bucket = limits(clock, member=12)
    assert [bucket.take(ADA, HERE) for _ in range(12)] == [None] * 12
    limited = bucket.take(ADA, HERE)
    assert limited is not None
    assert (limited.by, limited.wait_seconds) == (Limit.MEMBER, 5)
    assert bucket.take(BEN, HERE) is None
    clock.seconds += 5
    assert bucket.take(ADA, HERE) is None
    assert bucket.take(ADA, HERE) is not None


def test_a_channel_and_everyone_together_are_bounded_too() -> None:
    clock = ManualClock()
    bucket = limits(clock, channel=2, everyone=3)
    assert bucket.take(ADA, HERE) is None
    assert bucket.take(BEN, HERE) is None
    by_channel = bucket.take(MemberKey("cem"), HERE)
    assert by_channel is not None and by_channel.by is Limit.CHANNEL
    assert bucket.take(ADA, THERE) is None
    by_everyone = bucket.take(BEN, THERE)
    assert by_everyone is not None and by_everyone.by is Limit.EVERYONE


def test_a_refused_turn_costs_nothing_anywhere() -> None:
    clock = ManualClock()
    bucket = limits(clock, member=1, channel=2)
    assert bucket.take(ADA, HERE) is None
    for _ in range(5):
        assert bucket.take(ADA, HERE) is not None
    assert bucket.take(BEN, HERE) is None


def test_a_member_who_keeps_on_is_told_once_until_they_are_let_through_again() -> None:
    clock = ManualClock()
    bucket = limits(clock, member=1)
    bucket.take(ADA, HERE)
    told = [bucket.take(ADA, HERE) for _ in range(3)]
    assert [one.was_told for one in told if one] == [False, True, True]
    clock.seconds += 60
    assert bucket.take(ADA, HERE) is None
    again = bucket.take(ADA, HERE)
    assert again is not None and not again.was_told


def test_a_turn_that_costs_two_waits_for_both() -> None:
    clock = ManualClock()
    bucket = limits(clock, member=2)
    assert bucket.take(ADA, HERE) is None
    limited = bucket.take(ADA, HERE, turns=2)
    assert limited is not None and limited.wait_seconds == 30
    assert bucket.take(ADA, HERE) is None


def test_many_members_do_not_pile_up_in_memory() -> None:
    clock = ManualClock()
    bucket = limits(clock, member=12)
    for number in range(15_000):
        clock.seconds += 0.1
        bucket.take(MemberKey(str(number)), ChannelKey(str(number)))
    assert len(bucket._buckets) <= 10_001


@given(st.lists(st.floats(0, 20), max_size=80), st.integers(1, 20))
def test_no_window_ever_lets_through_more_than_burst_and_refill(pauses: list[float], per_minute: int) -> None:
    clock = ManualClock()
    bucket = limits(clock, member=per_minute)
    let_through = 0
    for pause in pauses:
        clock.seconds += pause
        let_through += bucket.take(ADA, HERE) is None
    assert let_through <= per_minute + clock.seconds * per_minute / 60 + 1e-6


def test_the_settings_are_the_limits() -> None:
    bucket = RateLimits.of(Settings().chat, ManualClock())
    assert [bucket.take(ADA, HERE) for _ in range(12)] == [None] * 12
    assert bucket.take(ADA, HERE) is not None
