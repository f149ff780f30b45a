"""The installation's figures, counted in the database when Prometheus asks; one process serves them for all."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import sqlalchemy
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import func
from sqlmodel import Session, col

from nocap.domain import Purpose, RunState
from nocap.errors import NocapError
from nocap.settings import Settings
from storage.consent import granted_pairs
from storage.database import Database
from storage.outbox import VoteOutbox
from storage.tables import Channel, Deployment, DuelVote, Feedback, GateOutcome, Message, Reply, Run

FRESH_SECONDS = 15.0
"""Figures are counted anew after this long, however often they are asked for."""

select: Any = sqlalchemy.select


class StateCollector(Collector):
    """Registered with a registry; never raises: a database that is away is a figure too."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._outbox = VoteOutbox(database, settings.data_dir)
        self._counting = threading.Lock()
        self._counted: list[Metric] = []
        self._counted_at = float("-inf")

    def describe(self) -> Iterable[Metric]:
        """Nothing: so that registering it does not count."""
        return []

    def collect(self) -> Iterable[Metric]:
        with self._counting:
            if time.monotonic() - self._counted_at > FRESH_SECONDS:
                self._counted, self._counted_at = list(self._count()), time.monotonic()
            return self._counted

    def _count(self) -> Iterator[Metric]:
        up = _gauge("nocap_database_up", "Whether the database answers.")
        try:
            with self._database.read() as session:
                yield from _votes(session)
                yield from _texts(session, self._settings.policy_version)
                yield from _runs(session)
                yield from _gates(session)
                yield from _pointers(session)
            up.add_metric([], 1)
        except NocapError:
            up.add_metric([], 0)
        yield up
        yield from self._machine()

    def _machine(self) -> Iterator[Metric]:
        waiting = _gauge("nocap_votes_waiting", "Votes on this machine's disk that the database could not take.")
        free = _gauge("nocap_data_free_bytes", "Bytes that are free where the data lies.")
        try:
            waiting.add_metric([], self._outbox.waiting())
            free.add_metric([], shutil.disk_usage(self._settings.data_dir).free)
        except (NocapError, OSError):
            return
        yield waiting
        yield free


def _votes(session: Session) -> Iterator[Metric]:
    replies = _gauge("nocap_replies", "Answers that are kept in count.", "voice", "adapter")
    for voice, adapter, count in session.execute(
        select(Reply.voice, Reply.adapter, func.count()).group_by(Reply.voice, Reply.adapter)
    ):
        replies.add_metric([voice, adapter], count)
    yield replies
    votes = _gauge("nocap_feedback", "Present votes on answers.", "voice", "adapter", "vote")
    for voice, adapter, vote, count in session.execute(
        select(Reply.voice, Reply.adapter, Feedback.vote, func.count())
        .join(Feedback, col(Feedback.reply_id) == Reply.id)
        .group_by(Reply.voice, Reply.adapter, Feedback.vote)
    ):
        votes.add_metric([voice, adapter, vote], count)
    yield votes
    duels = _gauge("nocap_duel_votes", "Present votes in duels.", "choice")
    for choice, count in session.execute(select(DuelVote.choice, func.count()).group_by(DuelVote.choice)):
        duels.add_metric([choice], count)
    yield duels


def _texts(session: Session, policy_version: str) -> Iterator[Metric]:
    consents = _gauge("nocap_consents", "Members' chats where the purpose is agreed to at present.", "purpose")
    for purpose in Purpose:
        pairs = granted_pairs(purpose, policy_version)
        consents.add_metric([purpose], session.scalar(select(func.count()).select_from(pairs)) or 0)
    yield consents
    messages = _gauge("nocap_messages", "Members' messages that are stored.", "provenance")
    for provenance, count in session.execute(select(Message.provenance, func.count()).group_by(Message.provenance)):
        messages.add_metric([provenance], count)
    yield messages
    channels = _gauge("nocap_channels", "Known chats.", "platform", "mode", "collect")
    for platform, mode, collect, count in session.execute(
        select(Channel.platform, Channel.mode, Channel.collect, func.count()).group_by(
            Channel.platform, Channel.mode, Channel.collect
        )
    ):
        channels.add_metric([platform, mode, str(collect).lower()], count)
    yield channels


def _runs(session: Session) -> Iterator[Metric]:
    states = _gauge("nocap_runs", "Retrains by state.", "voice", "state")
    counted = {
        (voice, state): count
        for voice, state, count in session.execute(
            select(Run.voice, Run.state, func.count()).group_by(Run.voice, Run.state)
        )
    }
    for voice in sorted({voice for voice, _ in counted}):
        for state in RunState:
            states.add_metric([voice, state], counted.get((voice, state), 0))
    yield states
    seconds = _gauge("nocap_run_seconds", "How long the newest ended retrain took.", "voice", "state")
    ended = _gauge("nocap_run_ended_timestamp_seconds", "When the newest ended retrain ended.", "voice", "state")
    money = _gauge("nocap_run_money", "What all retrains cost.", "voice", "currency")
    energy = _gauge("nocap_run_energy_joules", "What all retrains used; estimated where no counter is.", "voice")
    for voice in sorted({voice for voice, _ in counted}):
        runs = session.scalars(
            sqlalchemy.select(Run).where(col(Run.voice) == voice, col(Run.ended_at).is_not(None))
        ).all()
        if not runs:
            continue
        newest = max(runs, key=lambda run: run.ended_at or run.created_at)
        assert newest.ended_at is not None, "only ended runs were asked for"
        seconds.add_metric([voice, newest.state], float(newest.cost.get("seconds", 0.0)))
        ended.add_metric([voice, newest.state], newest.ended_at.timestamp())
        currency = str(newest.cost.get("currency", ""))
        money.add_metric([voice, currency], sum(float(run.cost.get("money", 0.0)) for run in runs))
        energy.add_metric([voice], sum(float(run.cost.get("energy_joules", 0.0)) for run in runs))
    yield from (seconds, ended, money, energy)


def _gates(session: Session) -> Iterator[Metric]:
    """Of each voice's newest run that reached the gates; drift is among them."""
    figures = _gauge("nocap_gate_statistic", "The gate's figure for the newest judged adapter.", "voice", "gate")
    verdicts = _gauge("nocap_gate_verdict", "1 for the newest judged adapter's verdict.", "voice", "gate", "verdict")
    newest = (
        select(Run.voice, func.max(Run.id).label("id"))
        .where(select(GateOutcome.run_id).where(GateOutcome.run_id == Run.id).exists())
        .group_by(Run.voice)
        .subquery()
    )
    rows = select(newest.c.voice, GateOutcome.gate, GateOutcome.verdict, GateOutcome.statistic).join(
        newest, newest.c.id == GateOutcome.run_id
    )
    for voice, gate, verdict, statistic in session.execute(rows):
        verdicts.add_metric([voice, gate, verdict], 1)
        if statistic is not None:
            figures.add_metric([voice, gate], statistic)
    yield figures
    yield verdicts


def _pointers(session: Session) -> Iterator[Metric]:
    info = _gauge("nocap_deployment_info", "1 for what is live or was before.", "voice", "adapter", "role")
    since = _gauge("nocap_deployment_since_timestamp_seconds", "Since when the current one is live.", "voice")
    for row in session.scalars(sqlalchemy.select(Deployment)):
        for role in ("current", "previous", "canary"):
            if name := getattr(row, role):
                info.add_metric([row.voice, name, role], 1)
        since.add_metric([row.voice], row.since.timestamp())
    yield info
    yield since


def _gauge(name: str, what: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, what, labels=list(labels))
