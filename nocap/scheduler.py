"""The scheduler's process: of several, exactly one works; the others stand by and take over when it is gone."""

from __future__ import annotations

import os
import socket
import threading
from collections import Counter

import structlog
from prometheus_client import Gauge

from nocap.actions import Actions
from nocap.app import canary_phases, live_backend
from nocap.domain import Clock, RunId, utc_now
from nocap.errors import NocapError, NotPermitted
from nocap.settings import Settings
from nocap.upkeep import keep_up_or_log
from retrain.job import can_train
from retrain.schedule import build_scheduler
from retrain.trial import look_forever
from storage.database import Database
from storage.leases import lease, renew

LEASE = "scheduler"
LEASE_SECONDS = 30.0
"""After this long another scheduler takes over from one that died or lost the database."""
RENEW_SECONDS = 10.0
STANDBY_SECONDS = 5.0
UPKEEP_SECONDS = 900.0
"""Between two rounds of `nocap.upkeep`."""
MAX_RESUMES = 3
"""A run that dies this often has a cause that another start does not mend."""

LEADS = Gauge("nocap_scheduler_leads", "1 where this scheduler works, 0 where it stands by.")

log = structlog.get_logger(__name__)


class Scheduler:
    """Waits for the lease, and while it holds it starts due retrains and resumes interrupted ones."""

    def __init__(
        self, settings: Settings, database: Database, stopping: threading.Event, *, clock: Clock = utc_now
    ) -> None:
        self._settings = settings
        self._database = database
        self._stopping = stopping
        self._clock = clock
        self._actions = Actions(database, settings, actor="scheduler", clock=clock)
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{id(self)}"
        self._resumes: Counter[RunId] = Counter()
        self.leads = threading.Event()

    def run(self) -> None:
        """Returns once `stopping` is set. A database that is away is waited for."""
        while not self._stopping.is_set():
            try:
                with lease(self._database, LEASE, self._owner, LEASE_SECONDS, self._clock):
                    self._lead()
            except NotPermitted as error:
                log.debug("standing by", reason=str(error))
            except NocapError as error:
                log.warning("scheduler waits", reason=str(error))
            self._stopping.wait(STANDBY_SECONDS)

    def not_ready(self) -> str | None:
        """Why it could not work if it led; a scheduler that stands by is ready."""
        return self._database.why_away()

    def _lead(self) -> None:
        """Works until it is stopped or the lease can no longer be renewed."""
        scheduler = build_scheduler(
            self._database, self._settings, lambda voice: self._actions.retrain_now(voice, trigger="schedule")
        )
        over = threading.Event()
        beside = [
            threading.Thread(target=work, args=(over,), name=name, daemon=True)
            for name, work in (("upkeep", self._keep_up), ("canaries", self._judge_canaries))
        ]
        for thread in beside:
            thread.start()
        self.leads.set()
        LEADS.set(1)
        log.info("scheduler leads", owner=self._owner)
        try:
            self._resume_interrupted()
            while not self._stopping.wait(RENEW_SECONDS):
                with self._database.write() as session:
                    renew(session, LEASE, self._owner, LEASE_SECONDS, self._clock())
                self._resume_interrupted()
        finally:
            self.leads.clear()
            LEADS.set(0)
            over.set()
            scheduler.shutdown()
            for thread in beside:
                thread.join(timeout=LEASE_SECONDS / 3)

    def _keep_up(self, over: threading.Event) -> None:
        """The promises about members' data that have a date; apart, so that a long round costs no lease."""
        while not over.is_set():
            keep_up_or_log(self._database, self._settings, lambda: live_backend(self._settings))
            over.wait(UPKEEP_SECONDS)

    def _judge_canaries(self, over: threading.Event) -> None:
        phases = canary_phases(self._settings, self._database, clock=self._clock)
        look_forever(phases, over.wait, self._settings.canary.check_seconds)

    def _resume_interrupted(self) -> None:
        """And takes up what waits for a worker; only where this environment can train."""
        if not can_train():
            return
        for run in self._actions.waiting_runs():
            run_id = RunId(run.id)
            if self._resumes[run_id] >= MAX_RESUMES:
                continue
            self._resumes[run_id] += 1
            log.warning("run resumed", run=run_id, stage=run.stage, time=self._resumes[run_id])
            self._actions.resume(run_id)
