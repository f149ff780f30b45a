"""Adapters that learnt from erased texts go out of service by themselves."""

from __future__ import annotations

from datetime import timedelta

import pytest

from nocap.domain import BASE, RunId, RunState, VoiceName
from nocap.errors import NotPermitted
from retrain.retire import retire_due
from storage import registry, runs
from tests.retrain.test_promote import GENZ, NOW, V1, V2, V3, _live, _promote, _Replicas, _rollback, world  # noqa: F401

DAY = timedelta(days=1)
DEADLINE = timedelta(days=14)


class _Service:
    """The replicas, and the retrains that were asked for."""

    def __init__(self, world) -> None:  # noqa: F811
        self.world = world
        self.replicas = _Replicas()
        self.replicas.unload_adapters = self._unload  # type: ignore[attr-defined]
        self.asked: list[VoiceName] = []

    def _unload(self, names) -> None:
        self.replicas.held = [name for name in self.replicas.held if name not in names]

    def start(self, voice: VoiceName) -> None:
        self.asked.append(voice)
        with self.world[0].write() as session:
            run = runs.create_run(
                session, voice=voice, trigger="erasure", as_of=NOW, incumbent="x", options={},
                permission_reference=None, at=self.now,
            )  # fmt: skip
            runs.finish_run(session, RunId(run.id), RunState.REFUSED, "no better", self.now)

    def tick(self, after: timedelta):
        self.now = NOW + after
        return retire_due(
            self.world[0], self.world[1], self.start, lambda: self.replicas, actor="scheduler", at=self.now
        )


@pytest.fixture
def service(world):  # noqa: F811
    made = _Service(world)
    for name in (V1, V2, V3):
        _promote(world, made.replicas, name)
    return made


def _mark(world, *names) -> None:  # noqa: F811
    with world[0].write() as session:
        registry.request_retirement(session, names, NOW)


def _status(world, name):  # noqa: F811
    with world[0].read() as session:
        return registry.get_adapter(session, name).status


def test_nothing_marked_changes_nothing(service, world):  # noqa: F811
    assert service.tick(100 * DAY) == []
    assert _live(world) == (V3, V2)


def test_one_that_is_not_live_goes_at_once_with_its_files_and_its_place_on_the_replicas(service, world):  # noqa: F811
    _mark(world, V2)
    (done,) = service.tick(timedelta(0))
    assert done.adapters == (V2,)
    assert _live(world) == (V3, None), "a rollback cannot lead to it any more"
    assert not (world[1].adapters_dir / V2).exists()
    assert V2 not in service.replicas.held
    assert _status(world, V2) == "retired"
    assert service.asked == []
    assert service.tick(DAY) == []


def test_a_live_one_is_replaced_by_a_clean_retrain_asked_for_once_a_day(service, world):  # noqa: F811
    _mark(world, V3)
    for after in (timedelta(0), timedelta(hours=1), DAY, 1.5 * DAY, 2 * DAY):
        service.tick(after)
    assert len(service.asked) == 3
    assert _live(world)[0] == V3
    _mark(world, V1)
    with pytest.raises(NotPermitted, match="erased"):
        _promote(world, service.replicas, V1)
    with pytest.raises(NotPermitted, match="erased"):
        _rollback(world, service.replicas, V1)


def test_at_its_deadline_a_live_one_gives_way_to_the_newest_clean_older_one(service, world):  # noqa: F811
    _mark(world, V3, V2)
    service.tick(DEADLINE - timedelta(seconds=1))
    assert _live(world)[0] == V3
    (done,) = service.tick(DEADLINE)
    assert (done.moved_to, done.adapters) == (V1, (V3,))
    assert _live(world) == (V1, None)
    assert service.replicas.held == [V1]


def test_without_a_clean_and_intact_older_one_the_base_speaks(service, world):  # noqa: F811
    _mark(world, V3, V2)
    weights = world[1].adapters_dir / V1 / "adapter_model.safetensors"
    weights.chmod(0o600)
    weights.write_bytes(b"damaged")
    (done,) = service.tick(DEADLINE)
    assert (done.moved_to, _live(world)[0]) == (BASE, BASE)


def test_a_clean_successor_retires_it_before_the_deadline(service, world):  # noqa: F811
    _rollback(world, service.replicas, V1)
    _mark(world, V1)
    service.tick(timedelta(0))
    _promote(world, service.replicas, V3)
    (done,) = service.tick(DAY)
    assert (done.adapters, _live(world)) == ((V1,), (V3, None))
    assert done.voice == GENZ
