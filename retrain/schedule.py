"""When retrains start by themselves: APScheduler with its job store in nocap's own database.

A due job only calls `start`, which makes a run and starts its process; nothing trains on the scheduler's thread. Runs
are due by the voice's crontab, and where `retrain.after_new_rows` or `retrain.after_drift` is set, once an hourly look
finds so many new rows, or a daily one finds that the talk has moved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from typing import Any

import structlog
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED, EVENT_JOB_MISSED, JobExecutionEvent
from apscheduler.executors.base import BaseExecutor
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.base import BaseScheduler
from apscheduler.triggers.cron import CronTrigger
from sqlmodel import select

from nocap.domain import Clock, Purpose, RunId, VoiceName, utc_now
from nocap.errors import ConfigurationError, NocapError
from nocap.settings import Settings
from retrain.talk_drift import talk_has_drifted
from storage import runs
from storage.database import Database
from storage.eligibility import EligibilityQuery, eligible_count
from storage.tables import Voice

MISFIRE_GRACE_SECONDS = 12 * 3600
"""A retrain that is late by less (a machine that slept, a restart) still starts; APScheduler's default is 1 s."""
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
STORE = EXECUTOR = "default"
LOOK_PREFIX = "look:"
LOOK_CRONTAB = "30 * * * *"
DRIFT_PREFIX = "drift:"
DRIFT_CRONTAB = "15 3 * * *"
"""Once a day, since it curates the whole window: about 20 s for 100,000 messages."""

Start = Callable[[VoiceName], RunId]

log = structlog.get_logger(__name__)


def crontab_trigger(crontab: str) -> CronTrigger:
    """The trigger of a standard crontab line in UTC. Raises ConfigurationError for a malformed one.

    APScheduler 3's own reading takes weekday 0 for Monday where crontab means Sunday (agronholm/apscheduler#286).
    """
    fields = crontab.split()
    try:
        if len(fields) != 5:
            raise ValueError(f"it has {len(fields)} fields, not 5")
        fields[4] = ",".join(_weekdays(part) for part in fields[4].lower().split(","))
        names = ("minute", "hour", "day", "month", "day_of_week")
        return CronTrigger(**dict(zip(names, fields, strict=True)), timezone=UTC)
    except ValueError as error:
        raise ConfigurationError(
            f"`retrain.schedule` is {crontab!r}, which is no crontab line ({error}); write one such as `0 4 * * 1`."
        ) from error


def next_retrain(settings: Settings, now: datetime) -> datetime | None:
    """When the next retrain is due by the crontab of a voice's settings; None where it has none."""
    if settings.retrain.schedule is None:
        return None
    moment: datetime | None = crontab_trigger(settings.retrain.schedule).get_next_fire_time(None, now)
    return moment


def enough_new_rows(database: Database, settings: Settings, voice: VoiceName, now: datetime) -> bool:
    """Whether `retrain.after_new_rows` rows that may train have left quarantine since the voice's last run."""
    wanted = settings.retrain.after_new_rows
    if wanted is None:
        return False
    quarantine = timedelta(hours=settings.retrain.quarantine_hours)
    with database.read() as session:
        last = runs.latest_runs(session, voice, 1)
        query = EligibilityQuery(
            voice=voice,
            purpose=Purpose.TRAIN,
            policy_version=settings.policy_version,
            permission_reference=settings.discord.training_permission_reference,
            since=last[0].as_of - quarantine if last else None,
            until=now - quarantine,
        )
        return eligible_count(session, query) >= wanted


def build_scheduler(
    database: Database, settings: Settings, start: Start, clock: Clock = utc_now
) -> BackgroundScheduler:
    """A running scheduler with one job per voice, on a thread of its own; end it with `shutdown()`."""
    scheduler = BackgroundScheduler(**_options(database, settings, start, clock))
    scheduler.start(paused=True)
    _schedule_voices(scheduler, database, settings, clock())
    scheduler.resume()
    return scheduler


def due_voice(voice: str) -> VoiceName:
    """What a stored job calls: whose retrain is due. The executor starts it, since no job store could keep `start`."""
    return VoiceName(voice)


class SimulatedScheduler(BaseScheduler):  # type: ignore[misc]
    """The same scheduler without a thread: time passes by `advance_to`, and due jobs run within that call."""

    def __init__(self, database: Database, settings: Settings, start: Start, clock: Clock) -> None:
        self._simulated_now = clock()
        super().__init__(**_options(database, settings, start, lambda: self._simulated_now))
        self.start(paused=True)
        _schedule_voices(self, database, settings, self._simulated_now)

    def advance_to(self, moment: datetime) -> None:
        """Runs every job that falls due up to `moment`, at its time or, if late, at once."""
        while (due := self._lookup_jobstore(STORE).get_next_run_time()) is not None and due <= moment:
            self._simulated_now = max(self._simulated_now, due.astimezone(UTC))
            self._run_due_jobs()
        self._simulated_now = moment

    def wakeup(self) -> None:
        """Nothing sleeps here."""

    def shutdown(self, wait: bool = True) -> None:
        super().shutdown(wait)

    def _run_due_jobs(self) -> None:
        now, store = self._simulated_now, self._lookup_jobstore(STORE)
        for job in store.get_due_jobs(now):
            run_times = job._get_run_times(now)
            self._lookup_executor(job.executor).submit_job(job, run_times[-1:] if job.coalesce else run_times)
            following = job.trigger.get_next_fire_time(run_times[-1], now)
            if following is None:
                self.remove_job(job.id, STORE)
            else:
                job._modify(next_run_time=following)
                store.update_job(job)


class _StartingExecutor(BaseExecutor):  # type: ignore[misc]
    """Runs a job where it is submitted, by a clock that may be simulated; starting a process takes milliseconds."""

    def __init__(self, start: Start, is_wanted: Mapping[str, Callable[[VoiceName], bool]], clock: Clock) -> None:
        """`is_wanted` by what a job's name begins with; a job of another name is started without a question."""
        super().__init__()
        self._start = start
        self._is_wanted = is_wanted
        self._clock = clock

    def _do_submit_job(self, job: Any, run_times: list[datetime]) -> None:
        self._run_job_success(job.id, [self._run(job, run_time) for run_time in run_times])

    def _run(self, job: Any, run_time: datetime) -> JobExecutionEvent:
        if self._clock() - run_time > timedelta(seconds=job.misfire_grace_time):
            log.warning("scheduled retrain missed", job=job.id, due=run_time.isoformat())
            return JobExecutionEvent(EVENT_JOB_MISSED, job.id, STORE, run_time)
        try:
            voice = job.func(*job.args)
            asks = [ask for prefix, ask in self._is_wanted.items() if job.id.startswith(prefix)]
            if not all(ask(voice) for ask in asks):
                return JobExecutionEvent(EVENT_JOB_EXECUTED, job.id, STORE, run_time)
            run_id = self._start(voice)
        except NocapError as error:
            log.warning("scheduled retrain not started", job=job.id, reason=str(error))
            return JobExecutionEvent(EVENT_JOB_ERROR, job.id, STORE, run_time, exception=error)
        log.info("scheduled retrain started", job=job.id, run=run_id)
        return JobExecutionEvent(EVENT_JOB_EXECUTED, job.id, STORE, run_time, retval=run_id)


def _options(database: Database, settings: Settings, start: Start, clock: Clock) -> dict[str, Any]:
    is_wanted: dict[str, Callable[[VoiceName], bool]] = {
        LOOK_PREFIX: lambda voice: enough_new_rows(database, settings.for_voice(voice), voice, clock()),
        DRIFT_PREFIX: lambda voice: talk_has_drifted(database, settings.for_voice(voice), voice, clock()),
    }

    with database.write() as session:
        engine = session.get_bind()
    return {
        "jobstores": {STORE: SQLAlchemyJobStore(engine=engine)},
        "executors": {EXECUTOR: _StartingExecutor(start, is_wanted, clock)},
        "job_defaults": {"coalesce": True, "max_instances": 1, "misfire_grace_time": MISFIRE_GRACE_SECONDS},
        "timezone": UTC,
    }


def _schedule_voices(scheduler: BaseScheduler, database: Database, settings: Settings, now: datetime) -> None:
    """Makes the stored jobs those that the settings ask for; one that is there already keeps its due time."""
    with database.read() as session:
        voices = list(session.exec(select(Voice.name)))
    wanted: dict[str, tuple[str, str]] = {}
    for voice in voices:
        retrain = settings.for_voice(voice).retrain
        if retrain.schedule:
            wanted[f"retrain:{voice}"] = voice, retrain.schedule
        if retrain.after_new_rows is not None:
            wanted[f"{LOOK_PREFIX}{voice}"] = voice, LOOK_CRONTAB
        if retrain.after_drift is not None and _can_compare():
            wanted[f"{DRIFT_PREFIX}{voice}"] = voice, DRIFT_CRONTAB
    stored = {job.id: job for job in scheduler.get_jobs()}
    for job_id in stored.keys() - wanted.keys():
        scheduler.remove_job(job_id)
    for job_id, (voice, crontab) in wanted.items():
        trigger = crontab_trigger(crontab)
        if job_id not in stored or str(stored[job_id].trigger) != str(trigger):
            scheduler.add_job(
                "retrain.schedule:due_voice",
                trigger,
                args=[voice],
                id=job_id,
                replace_existing=True,
                next_run_time=trigger.get_next_fire_time(None, now),
            )


def _can_compare() -> bool:
    """Whether this environment has the classifier that tells drift."""
    if find_spec("sklearn") is None:
        log.warning("`retrain.after_drift` is not looked at: this environment lacks the extra `model`")
        return False
    return True


def _weekdays(part: str) -> str:
    """One entry of a crontab's weekday field, by names."""
    span, _, step = part.partition("/")
    if not (span[:1].isdigit() or step):
        return span
    return ",".join(dict.fromkeys(WEEKDAYS[day % 7] for day in _days(span, int(step or 1))))


def _days(span: str, step: int) -> Iterator[int]:
    first, _, last = ("0-6" if span == "*" else span).partition("-")
    days = range(int(first), int(last or (6 if step > 1 else first)) + 1, step)
    if not days or days[-1] > 7:
        raise ValueError(f"{span} is no weekday")
    yield from days
