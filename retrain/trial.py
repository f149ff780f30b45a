"""The canary phase: a share of the channels hears the new adapter until members' votes promote or withdraw it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field

import httpx
import structlog
from prometheus_client.parser import text_string_to_metric_families
from sqlmodel import select

from nocap.domain import AdapterName, AdapterStatus, Clock, RunId, RunState, Verdict, VoiceName
from nocap.errors import NocapError, RunError
from nocap.settings import Settings
from retrain import run_folder
from retrain.dataset import load_snapshot
from retrain.gates.result import GateResult
from retrain.gates.votes import CommunityVotes, Harm, Trial
from retrain.promote import Backend, promote
from storage import registry, runs, trial
from storage.database import Database
from storage.tables import Deployment, Run

TRIAL_FILE = "trial.json"
ACTOR = "canary phase"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Served:
    """Requests that a backend has answered as one adapter since it started."""

    finished: float = 0.0
    failed: float = 0.0
    slow: float = 0.0


@dataclass
class CanaryPhases:
    """Looks at every voice's canary; what it did is in the database, so another process can go on.

    `served` gives the backend's figures by adapter. They start from zero with this object: a new leader judges
    failures and slowness by what it has seen itself.
    """

    database: Database
    settings: Settings
    backend: Callable[[], Backend | None]
    served: Callable[[], Mapping[str, Served]]
    clock: Clock
    _first_seen: dict[tuple[str, str], Served] = field(default_factory=dict)

    def look(self) -> dict[VoiceName, GateResult]:
        """Judges every canary now, promotes or withdraws those that are decided, and ends their runs."""
        with self.database.read() as session:
            live = [row for row in session.exec(select(Deployment)) if row.canary]
        served = self.served() if live else {}
        found = {VoiceName(row.voice): self._look_at(row, served) for row in live}
        self._settle()
        return found

    def _look_at(self, row: Deployment, served: Mapping[str, Served]) -> GateResult:
        numbers = self._numbers(row, served)
        result = CommunityVotes().decide(numbers, self.settings.for_voice(row.voice).canary)
        log.info("canary", voice=row.voice, adapter=row.canary, verdict=result.verdict, reason=result.sentence)
        run_id = self._record(row, numbers, result)
        if result.verdict is Verdict.PASS:
            self._promote(row, run_id, result)
        elif result.verdict is Verdict.FAIL:
            self._withdraw(row, result.sentence)
        return result

    def _numbers(self, row: Deployment, served: Mapping[str, Served]) -> Trial:
        voice, canary, live = VoiceName(row.voice), AdapterName(str(row.canary)), AdapterName(row.current)
        with self.database.read() as session:
            since = registry.canary_since(session, voice, canary) or row.since
            votes = trial.duel_votes_since(session, voice, canary, live, since)
            known = trial.members_known_before(session, since)
            met = [trial.members_met(session, voice, name, since) for name in (canary, live)]
            displeased = [trial.members_displeased(session, voice, name, since) for name in (canary, live)]
        sided = [vote for vote in votes if vote.is_win is not None]
        ours, theirs = (self._since_first_look(canary, name, served) for name in (canary, live))
        return Trial(
            hours=(self.clock() - since).total_seconds() / 3600,
            voters=tuple(vote.member for vote in sided),
            wins=tuple(int(bool(vote.is_win)) for vote in sided),
            newcomers=tuple(int(vote.member not in known) for vote in sided),
            undecided=len(votes) - len(sided),
            disliked=_harm(displeased, [one | other for one, other in zip(met, displeased, strict=True)]),
            failed=_requests(ours, theirs, "failed"),
            slow=_requests(ours, theirs, "slow"),
        )

    def _since_first_look(self, canary: str, name: str, served: Mapping[str, Served]) -> Served:
        now = served.get(name, Served())
        first = self._first_seen.setdefault((canary, name), now)
        if now.finished + now.failed < first.finished + first.failed:  # the server was restarted
            first = self._first_seen[canary, name] = Served()
        return Served(now.finished - first.finished, now.failed - first.failed, now.slow - first.slow)

    def _record(self, row: Deployment, numbers: Trial, result: GateResult) -> RunId | None:
        """Keeps numbers and verdict in the run's folder: pseudonyms only. The run that trained the canary, if any."""
        with self.database.read() as session:
            run_id = registry.get_adapter(session, AdapterName(str(row.canary))).run_id
        if run_id is None:
            return None
        folder = self.settings.runs_dir / run_id
        if folder.is_dir():
            found = {"at": self.clock().isoformat(), "trial": asdict(numbers), "result": asdict(result)}
            run_folder.write_file(folder / TRIAL_FILE, run_folder.as_json(found))
        return RunId(run_id)

    def _promote(self, row: Deployment, run_id: RunId | None, result: GateResult) -> None:
        name, at = AdapterName(str(row.canary)), self.clock()
        try:
            self._check_sources(run_id)
            promote(self.database, self.backend(), self.settings, name, actor=ACTOR, reason=result.sentence, at=at)
        except RunError as error:
            self._withdraw(row, f"what it learned from may no longer be used ({error})")

    def _check_sources(self, run_id: RunId | None) -> None:
        """Raises RunError where a row that the canary was trained on was erased or revoked meanwhile."""
        if run_id is not None:
            with self.database.read() as session:
                load_snapshot(session, runs.get_run(session, run_id), self.settings, self.database.keyring)

    def _withdraw(self, row: Deployment, why: str) -> None:
        name, at = AdapterName(str(row.canary)), self.clock()
        with self.database.write() as session:
            if registry.deployment(session, VoiceName(row.voice)).canary != name:
                return
            registry.set_canary(session, VoiceName(row.voice), None, 0.0, actor=ACTOR, at=at, reason=why)
            registry.set_adapter_status(session, name, AdapterStatus.REFUSED)

    def _settle(self) -> None:
        """Ends the runs whose trial is over, whoever ended it."""
        with self.database.write() as session:
            for run in session.exec(select(Run).where(Run.state == RunState.ON_TRIAL)).all():
                pointer = registry.deployment(session, VoiceName(run.voice))
                if pointer.canary == run.challenger:
                    continue
                ended = registry.ended_canaries(session, VoiceName(run.voice), run.created_at)
                how = [event.detail["how"] for event in ended if event.detail["canary"] == run.challenger]
                state = RunState.PROMOTED if pointer.current == run.challenger else RunState.REFUSED
                told = how[-1] if how else "no longer tried out"
                runs.end_trial(session, RunId(run.id), state, f"{run.challenger} was {told}", self.clock())


def look_forever(phases: CanaryPhases, wait: Callable[[float], bool], every_seconds: float) -> None:
    """Looks until `wait` says that it is time to stop; an error is logged and the next look tries again."""
    while not wait(every_seconds):
        try:
            phases.look()
        except NocapError as error:
            log.warning("canary not judged", reason=str(error))


def served_by(urls: Iterable[str], token: str | None, slow_seconds: float) -> dict[str, Served]:
    """The replicas' figures by adapter, added up, from `/metrics`; those of a replica that is away are left out."""
    totals: dict[str, Served] = {}
    for url in urls:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            answer = httpx.get(f"{url.rstrip('/')}/metrics", headers=headers, timeout=5.0)
            answer.raise_for_status()
        except httpx.HTTPError as error:
            log.warning("no figures of a replica", url=url, reason=str(error))
            continue
        for name, one in _served(answer.text, slow_seconds).items():
            sofar = totals.get(name, Served())
            totals[name] = Served(sofar.finished + one.finished, sofar.failed + one.failed, sofar.slow + one.slow)
    return totals


def _served(exposition: str, slow_seconds: float) -> dict[str, Served]:
    finished: dict[str, float] = {}
    quick: dict[str, float] = {}
    failed: dict[str, float] = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            name = sample.labels.get("model_name", "")
            if sample.name == "vllm:e2e_request_latency_seconds_count":
                finished[name] = sample.value
            elif sample.name == "vllm:e2e_request_latency_seconds_bucket":
                if float(sample.labels["le"]) <= slow_seconds:
                    quick[name] = max(quick.get(name, 0.0), sample.value)
            elif sample.name == "nocap:request_failures_total":
                failed[name] = sample.value
    return {
        name: Served(count, failed.get(name, 0.0), count - quick.get(name, 0.0))
        for name in finished.keys() | failed.keys()
        for count in (finished.get(name, 0.0),)
    }


def _harm(harmed: list[set[str]], met: list[set[str]]) -> Harm:
    return Harm(len(harmed[0]), len(met[0]), len(harmed[1]), len(met[1]))


def _requests(ours: Served, theirs: Served, kind: str) -> Harm:
    met = [round(one.finished + one.failed) for one in (ours, theirs)]
    return Harm(round(getattr(ours, kind)), met[0], round(getattr(theirs, kind)), met[1])
