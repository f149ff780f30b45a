from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from apscheduler.schedulers.base import BaseScheduler

from nocap.domain import ChannelKey, MemberKey, MessageKey, Provenance, Purpose, RunId, VoiceName, utc_now
from nocap.errors import ConfigurationError, RunError
from nocap.settings import RetrainSettings, Settings, VoiceSettings
from retrain import schedule
from retrain.schedule import SimulatedScheduler, build_scheduler, crontab_trigger, next_retrain
from storage.channels import ensure_channel
from storage.consent import record_consent
from storage.crypto import Keyring
from storage.database import Database
from storage.messages import NewMessage, ingest
from storage.registry import ensure_voice

SUNDAY = datetime(2026, 11, 22, 12, tzinfo=UTC)
MONDAY = datetime(2026, 11, 23, 4, tzinfo=UTC)
WEEK = timedelta(weeks=1)


@pytest.fixture
def database(tmp_path):
    Keyring.create(tmp_path / "key")
    opened = Database.open(f"sqlite:///{tmp_path / 'nocap.db'}", Keyring.load(tmp_path / "key"), create=True)
    with opened.write() as session:
        ensure_voice(session, VoiceName("genz"), "You are a bot.", ["no cap"], SUNDAY)
    yield opened
    opened.close()


def _settings(crontab: str | None = "0 4 * * 1") -> Settings:
    return Settings(retrain=RetrainSettings(schedule=crontab))


class _Starts:
    def __init__(self) -> None:
        self.voices: list[VoiceName] = []
        self.failure: Exception | None = None

    def __call__(self, voice: VoiceName) -> RunId:
        self.voices.append(voice)
        if self.failure:
            raise self.failure
        return RunId(f"run-{len(self.voices)}")


@pytest.mark.parametrize(
    ("crontab", "weekdays"),
    [
        ("0 4 * * 0", "Sun"),
        ("0 4 * * 7", "Sun"),
        ("0 4 * * 1", "Mon"),
        ("0 4 * * mon", "Mon"),
        ("0 4 * * 1-3", "Mon Tue Wed"),
        ("0 4 * * 5-7", "Sun Fri Sat"),
        ("0 4 * * 2,4", "Tue Thu"),
        ("0 4 * * */3", "Sun Wed Sat"),
        ("0 4 * * *", "Sun Mon Tue Wed Thu Fri Sat"),
    ],
)
def test_weekdays_are_those_of_crontab(crontab, weekdays):
    trigger, fired = crontab_trigger(crontab), set()
    moment = datetime(2026, 11, 22, tzinfo=UTC)
    for _ in range(7):
        moment = trigger.get_next_fire_time(None, moment)
        fired.add(f"{moment:%a}")
        moment += timedelta(minutes=1)
    assert fired == set(weekdays.split())


@pytest.mark.parametrize("crontab", ["0 4 * *", "0 4 * * 8", "61 4 * * 1", "soon"])
def test_a_malformed_crontab_is_named(crontab):
    with pytest.raises(ConfigurationError, match=r"retrain\.schedule"):
        crontab_trigger(crontab)


def test_the_next_retrain_is_told_or_none(database):
    assert next_retrain(_settings(), SUNDAY) == MONDAY
    assert next_retrain(_settings(None), SUNDAY) is None


def test_simulated_weeks_start_one_run_each_by_the_real_scheduler(database):
    starts = _Starts()
    scheduler = SimulatedScheduler(database, _settings(), starts, lambda: SUNDAY)
    assert isinstance(scheduler, BaseScheduler)
    scheduler.advance_to(MONDAY - timedelta(minutes=1))
    assert starts.voices == []
    scheduler.advance_to(MONDAY)
    scheduler.advance_to(MONDAY + timedelta(days=6))
    assert starts.voices == ["genz"]
    scheduler.advance_to(MONDAY + 3 * WEEK)
    assert starts.voices == ["genz"] * 4


def test_every_voice_has_its_own_job(database):
    with database.write() as session:
        ensure_voice(session, VoiceName("gaming"), "You are a bot.", [], SUNDAY)
    starts = _Starts()
    SimulatedScheduler(database, _settings(), starts, lambda: SUNDAY).advance_to(MONDAY)
    assert sorted(starts.voices) == ["gaming", "genz"]


def test_a_run_that_cannot_start_does_not_stop_the_schedule(database):
    starts = _Starts()
    starts.failure = RunError("a run is in progress")
    scheduler = SimulatedScheduler(database, _settings(), starts, lambda: SUNDAY)
    scheduler.advance_to(MONDAY)
    starts.failure = None
    scheduler.advance_to(MONDAY + WEEK)
    assert len(starts.voices) == 2


@pytest.mark.parametrize(("late", "started"), [(timedelta(hours=3), ["genz"]), (timedelta(hours=13), [])])
def test_a_retrain_that_fell_due_while_no_process_lived_starts_late_but_not_too_late(database, late, started):
    SimulatedScheduler(database, _settings(), _Starts(), lambda: SUNDAY).shutdown()
    starts = _Starts()
    SimulatedScheduler(database, _settings(), starts, lambda: MONDAY + late).advance_to(MONDAY + late)
    assert starts.voices == started


def test_the_real_scheduler_starts_overdue_runs_once_on_its_own_thread(database):
    SimulatedScheduler(
        database, _settings("* * * * *"), _Starts(), lambda: utc_now() - timedelta(minutes=10)
    ).shutdown()
    done, threads = threading.Event(), []

    def start(voice: VoiceName) -> RunId:
        threads.append(threading.current_thread())
        done.set()
        return RunId("run-1")

    scheduler = build_scheduler(database, _settings("* * * * *"), start)
    try:
        assert done.wait(30)
        assert threads[0] is not threading.main_thread()
        assert len(threads) == 1, "ten missed minutes are one run"
    finally:
        scheduler.shutdown()


def test_jobs_of_a_schedule_that_was_switched_off_or_changed_are_replaced(database):
    SimulatedScheduler(database, _settings(), _Starts(), lambda: SUNDAY)
    starts = _Starts()
    SimulatedScheduler(database, _settings("0 5 * * 2"), starts, lambda: SUNDAY).advance_to(MONDAY)
    assert starts.voices == []
    off = SimulatedScheduler(database, _settings(None), starts, lambda: SUNDAY)
    off.advance_to(MONDAY + 4 * WEEK)
    assert starts.voices == [] and off.get_jobs() == []


def test_enough_new_rows_start_a_run_and_too_few_do_not(database):
    chat, member = ChannelKey("chat"), MemberKey("ana")
    with database.write() as session:
        ensure_channel(session, chat, platform="import", label=None, voice=VoiceName("genz"), at=SUNDAY, collect=True)
        record_consent(session, member, chat, list(Purpose), True, "2026-11", SUNDAY)
    settings = Settings(retrain=RetrainSettings(schedule=None, after_new_rows=3))
    starts = _Starts()
    scheduler = SimulatedScheduler(database, settings, starts, lambda: SUNDAY)

    def write(numbers, sent_at):
        rows = [
            NewMessage(MessageKey(f"m{n}"), chat, member, Provenance.DONATION, sent_at, f"word {n}", None)
            for n in numbers
        ]
        with database.write() as session:
            ingest(session, rows, policy_version="2026-11", at=sent_at)

    write(range(2), SUNDAY)
    scheduler.advance_to(SUNDAY + timedelta(days=4))
    assert starts.voices == []
    write([2], SUNDAY + timedelta(days=4))
    scheduler.advance_to(SUNDAY + timedelta(days=6, hours=23))
    assert starts.voices == [], "the third row is still in quarantine"
    scheduler.advance_to(SUNDAY + timedelta(days=7, hours=1))
    assert starts.voices == ["genz"]
    assert {job.id for job in scheduler.get_jobs()} == {"look:genz"}


def test_each_voice_starts_by_its_own_schedule(database):
    gamer = VoiceName("gamer")
    with database.write() as session:
        ensure_voice(session, gamer, "You are a bot.", ["gg"], SUNDAY)
    own = VoiceSettings(retrain={"schedule": "0 5 * * 3"})
    settings = Settings(retrain=RetrainSettings(schedule="0 4 * * 1"), voices={"gamer": own})
    starts = _Starts()
    scheduler = SimulatedScheduler(database, settings, starts, lambda: SUNDAY)
    scheduler.advance_to(MONDAY)
    assert starts.voices == ["genz"]
    scheduler.advance_to(MONDAY + timedelta(days=2, hours=1))
    assert starts.voices == ["genz", "gamer"]
    scheduler.advance_to(MONDAY + WEEK)
    assert starts.voices == ["genz", "gamer", "genz"]
    assert next_retrain(settings.for_voice(gamer), SUNDAY) == MONDAY + timedelta(days=2, hours=1)


@pytest.mark.parametrize("drifted", [False, True])
def test_talk_that_has_drifted_starts_a_run_on_the_daily_look(database, monkeypatch, drifted):
    asked = []

    def looks(looked_at, settings, voice, now):
        asked.append((voice, settings.retrain.after_drift, now))
        return drifted

    monkeypatch.setattr(schedule, "talk_has_drifted", looks)
    starts = _Starts()
    settings = Settings(retrain=RetrainSettings(schedule=None, after_drift=0.4))
    scheduler = SimulatedScheduler(database, settings, starts, lambda: SUNDAY)
    scheduler.advance_to(SUNDAY + timedelta(days=1))
    assert asked == [("genz", 0.4, datetime(2026, 11, 23, 3, 15, tzinfo=UTC))]
    assert starts.voices == (["genz"] if drifted else [])
