"""Whether a voice's talk has moved away from what its last promoted run learnt: a reason to retrain.

The statistic is the data-drift gate's; a run starts at a share of what the gate allows, since the gate would refuse
what has moved beyond it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from nocap.domain import RunState, VoiceName
from nocap.errors import RunError
from nocap.settings import Settings
from nocap.text.lexicon import Lexicon
from retrain.dataset import eligible_examples, load_snapshot, voice_terms
from storage import runs
from storage.database import Database

PAUSE = timedelta(days=7)
"""After any run of the voice: a refused one leaves the reference where it was, and would be started daily."""
EARLIER_RUNS = 50
CHANCE_AREA = 0.5
"""The area under the curve where nothing has moved."""


@dataclass(frozen=True)
class TalkDrift:
    """The gate's figures, each as a share of what the gate allows; empty where there is too little to compare."""

    shares: tuple[tuple[str, float], ...] = ()

    @property
    def largest(self) -> float:
        return max((share for _, share in self.shares), default=0.0)


def talk_has_drifted(database: Database, settings: Settings, voice: VoiceName, now: datetime) -> bool:
    """Whether `retrain.after_drift` is crossed, at most once a week. Curates the whole window, so look rarely."""
    wanted = settings.retrain.after_drift
    if wanted is None:
        return False
    with database.read() as session:
        latest = runs.latest_runs(session, voice, 1)
    if latest and now - latest[0].created_at < PAUSE:
        return False
    return talk_drift(database, settings, voice, now).largest > wanted


def talk_drift(database: Database, settings: Settings, voice: VoiceName, now: datetime) -> TalkDrift:
    """What may be learnt now against what the last promoted run learnt; empty where no such run can be read."""
    from retrain._observations import data_shift
    from retrain.gates import Measurements
    from retrain.gates.data_drift import MAX_AREA, MAX_DIVERGENCE, DataDrift
    from retrain.gates.resampling import Unmeasurable

    with database.read() as session:
        earlier = runs.latest_runs(session, voice, EARLIER_RUNS)
        promoted = next((run for run in earlier if run.state == RunState.PROMOTED), None)
        try:
            before = load_snapshot(session, promoted, settings, database.keyring).train if promoted else ()
        except RunError:  # a row of it may no longer be used
            before = ()
        after = eligible_examples(session, voice, settings, now) if before else ()
        lexicon = Lexicon(voice_terms(session, voice, now))
    measured = Measurements(data=data_shift(lexicon, before, after, settings.retrain.seed))
    gate = DataDrift()
    try:
        if not gate.evidence(measured, settings.gates).is_enough:
            return TalkDrift()
        area, *divergence = gate.checks(measured, settings.gates)
    except Unmeasurable:
        return TalkDrift()
    shares = [("area", (area.value - CHANCE_AREA) / (MAX_AREA - CHANCE_AREA))]
    shares += [("divergence", one.value / MAX_DIVERGENCE) for one in divergence]
    return TalkDrift(tuple(shares))
