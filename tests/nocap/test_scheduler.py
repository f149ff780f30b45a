"""Of several schedulers on one database exactly one works; another takes over; interrupted runs go on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text
from sqlmodel import select

from nocap import scheduler as module
from nocap.actions import Actions
from nocap.check import check_installation
from nocap.domain import RunId, VoiceName, utc_now
from nocap.errors import RunError
from nocap.findings import Level
from nocap.scheduler import Scheduler
from nocap.settings import RetrainSettings, Settings
from storage.database import Database
from storage.registry import ensure_voice
from storage.runs import create_run
from storage.tables import Lease, Run

VOICE = VoiceName("genz")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("RENEW_SECONDS", 0.05), ("STANDBY_SECONDS", 0.02)):
        monkeypatch.setattr(module, name, seconds)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[RunId]:
    """The runs whose process was started."""
    runs: list[RunId] = []
    monkeypatch.setattr("nocap.actions.start_job", lambda run_id, *_, **__: runs.append(run_id))
    return runs


@pytest.fixture
def voiced(database: Database) -> Iterator[Database]:
    """The scheduler's own table is gone afterwards, since PostgreSQL's database is shared with other tests."""
    with database.write() as session:
        ensure_voice(session, VOICE, "", [], utc_now())
    yield database
    with database.write() as session:
        session.connection().execute(text("DROP TABLE IF EXISTS apscheduler_jobs"))


@pytest.fixture
def launch(voiced: Database, settings: Callable[..., Settings]) -> Iterator[Callable[[], tuple[Scheduler, Stop]]]:
    stops: list[Stop] = []

    def start() -> tuple[Scheduler, Stop]:
        stop = Stop(Scheduler(settings(retrain=RetrainSettings(schedule=None)), voiced, threading.Event()))
        stops.append(stop)
        return stop.scheduler, stop

    yield start
    for stop in stops:
        stop()


class Stop:
    """A scheduler on a thread of its own; calling this ends it."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self._thread = threading.Thread(target=scheduler.run)
        self._thread.start()

    def __call__(self) -> None:
        self.scheduler._stopping.set()
        self._thread.join()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


def test_of_three_one_leads_and_another_takes_over_when_it_stops(
    launch: Callable[[], tuple[Scheduler, Stop]], started: list[RunId]
) -> None:
    pairs = dict(launch() for _ in range(3))
    until(lambda: any(one.leads.is_set() for one in pairs))
    for _ in range(20):
        assert sum(one.leads.is_set() for one in pairs) <= 1
        time.sleep(0.01)
    (leader,) = [one for one in pairs if one.leads.is_set()]
    pairs.pop(leader)()
    until(lambda: any(one.leads.is_set() for one in pairs))
    assert sum(one.leads.is_set() for one in pairs) == 1


def test_one_that_lost_its_lease_stops_leading(
    launch: Callable[[], tuple[Scheduler, Stop]], voiced: Database, started: list[RunId]
) -> None:
    one, _ = launch()
    until(one.leads.is_set)
    with voiced.write() as session:
        row = session.get_one(Lease, "scheduler")
        row.owner = "another machine"
    until(lambda: not one.leads.is_set())


def test_an_interrupted_run_is_resumed_but_not_for_ever(
    launch: Callable[[], tuple[Scheduler, Stop]],
    voiced: Database,
    started: list[RunId],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nocap.actions.is_running", lambda *_: False)
    now = utc_now()
    with voiced.write() as session:
        run = create_run(session, voice=VOICE, trigger="operator", as_of=now, incumbent="base", options={},
                         permission_reference=None, at=now)  # fmt: skip
        run_id = RunId(run.id)
    launch()
    until(lambda: len(started) == module.MAX_RESUMES)
    time.sleep(0.3)
    assert started == [run_id] * module.MAX_RESUMES


def test_where_nothing_can_train_an_interrupted_run_is_left_alone(
    voiced: Database, settings: Callable[..., Settings], started: list[RunId], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "can_train", lambda: False)
    now = utc_now()
    with voiced.write() as session:
        create_run(session, voice=VOICE, trigger="operator", as_of=now, incumbent="base", options={},
                   permission_reference=None, at=now)  # fmt: skip
    Scheduler(settings(), voiced, threading.Event())._resume_interrupted()
    assert started == []


def test_a_run_left_to_a_worker_waits_until_a_scheduler_with_torch_takes_it_up(
    launch: Callable[[], tuple[Scheduler, Stop]],
    voiced: Database,
    settings: Callable[..., Settings],
    started: list[RunId],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    light = Actions(voiced, settings(retrain=RetrainSettings(runs_in="worker")), actor="chat")
    with monkeypatch.context() as without_torch:
        without_torch.setattr("nocap.actions.can_train", lambda: False)
        run_id = light.retrain_now(VOICE)
        with pytest.raises(RunError, match="no torch"):
            light.resume(run_id)
    run = light.run(run_id)
    assert (started, light.is_alive(run), light.is_waiting(run)) == ([], False, True)
    found = [one for one in check_installation(settings(), voiced, utc_now()).findings if one.subject == "runs"]
    assert "waits for a worker" in next(one.sentence for one in found if one.level is Level.WARNING)
    launch()
    until(lambda: started == [run_id])
    run = light.run(run_id)
    assert (light.is_alive(run), light.is_waiting(run), light.waiting_runs()) == (True, False, [])


def test_where_nothing_can_train_a_retrain_is_refused_before_there_is_a_run(
    voiced: Database, settings: Callable[..., Settings], started: list[RunId], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nocap.actions.can_train", lambda: False)
    actions = Actions(voiced, settings(), actor="chat")
    with pytest.raises(RunError, match="runs_in"):
        actions.retrain_now(VOICE)
    assert (started, actions.runs(VOICE)) == ([], [])


def test_retrains_started_at_the_same_moment_are_one(
    voiced: Database, settings: Callable[..., Settings], started: list[RunId]
) -> None:
    actions = Actions(voiced, settings(), actor="test")

    def start(_: int) -> str:
        try:
            return actions.retrain_now(VOICE)
        except RunError:
            return ""

    with ThreadPoolExecutor(6) as pool:
        assert sum(bool(run) for run in pool.map(start, range(6))) == 1
    with voiced.read() as session:
        assert len(session.exec(select(Run)).all()) == 1
