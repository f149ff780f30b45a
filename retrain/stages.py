"""What a run does in each stage; every stage may be repeated, and none but the last touches what is live."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import TYPE_CHECKING, Any

from inference.credentials import backend_tokens
from inference.prompt import chat_messages
from nocap.domain import (
    BASE,
    AdapterName,
    AdapterStatus,
    Clock,
    Purpose,
    RunId,
    RunState,
    Stage,
    Verdict,
    VoiceName,
)
from nocap.errors import NocapError, NotPermitted, RunError
from nocap.settings import GateSettings, Settings
from nocap.text.lexicon import Lexicon
from retrain import run_folder
from retrain.card_room import CardRoom
from retrain.cost import Budget, CostMeter
from retrain.dataset import Snapshot, build_snapshot, load_snapshot, record_snapshot, voice_terms
from retrain.examples import Example
from retrain.promote import GOLDEN_FILE, live_backend, promote, start_canary
from retrain.run_folder import ProgressFile, open_log, write_file
from retrain.slang import BACKGROUND, RECENT, find_terms, uses_of
from storage import registry, runs, slang
from storage.database import Database
from storage.eligibility import EligibilityQuery, eligible_messages
from storage.tables import Adapter, GateOutcome, Run, Voice

if TYPE_CHECKING:
    from retrain._observations import Fading

EARLIER_RUNS = 5
ON_THE_CARD = frozenset({Stage.TRAIN, Stage.PREFERENCES, Stage.MEASURE})
Outcome = tuple[RunState, str]
"""How a run ends, and why in one sentence."""


class RunCancelled(Exception):
    """An operator asked for the end; raised between two steps."""


class LeaseLost(NotPermitted):
    """Another process took the run over."""


class StaleSnapshot(Exception):
    """Rows that the run learnt from or is judged by were erased: what was trained must not go live."""


class StageContext:
    """One process's hold on a run: where it writes, how it reports, when it must stop."""

    def __init__(self, run_id: RunId, settings: Settings, database: Database, clock: Clock) -> None:
        self.run_id = run_id
        self.settings = settings
        self.database = database
        self.clock = clock
        self.folder = settings.runs_dir / run_id
        self.folder.mkdir(parents=True, exist_ok=True)
        self.meter = CostMeter(settings.retrain, run_folder.read_cost(self.folder))
        self.budget = Budget.of(settings.retrain)
        self.room = CardRoom(settings, database.keyring, run_id)
        self.cancelled = False
        self.lost: str | None = None
        self._progress = ProgressFile(self.folder, clock)
        self._stage = Stage.SNAPSHOT

    def __enter__(self) -> StageContext:
        self.log, self._log_file = open_log(self.folder, self.clock)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._log_file.close()

    def run(self) -> Run:
        with self.database.read() as session:
            return runs.get_run(session, self.run_id)

    def begin(self, stage: Stage) -> None:
        with self.database.write() as session:
            run = session.get_one(Run, self.run_id)
            assert run.pid is not None, "a run is claimed before its stages begin"
            runs.begin_stage(session, self.run_id, stage, run.pid, self.clock())
        self._stage = stage
        self.meter.begin_stage(stage)
        self.log.info("stage", stage=stage)
        self.report(0.0, "")

    def report(self, fraction: float, text: str, **figures: Any) -> None:
        """Tells watchers how far the stage is. Raises RunCancelled, LeaseLost or OverBudget where the run must stop."""
        self.raise_if(self.cancelled)
        if self.lost is not None:
            raise LeaseLost(self.lost)
        self.budget.check(self.meter.seconds, is_estimate=False)
        self._progress.write(self._stage, fraction, text, **figures)

    def raise_if(self, cancelled: bool) -> None:
        if cancelled:
            raise RunCancelled

    def make_room(self, stage: Stage) -> None:
        """Has the servers free their card for the stages that need it, and serve again for the others."""
        if stage in ON_THE_CARD:
            self.room.take()
        elif (problem := self.room.give_back()) is not None:
            self.log.warning("the server does not serve again yet", reason=str(problem))

    def save_cost(self) -> None:
        run_folder.write_cost(self.folder, self.meter.read())

    def snapshot(self) -> Snapshot:
        """The run's data set as recorded. Raises StaleSnapshot where it is no longer what may be used."""
        with self.database.read() as session:
            run = runs.get_run(session, self.run_id)
            try:
                return load_snapshot(session, run, self.settings, self.database.keyring)
            except RunError as error:
                raise StaleSnapshot(str(error)) from error

    def voice(self) -> Voice:
        with self.database.read() as session:
            return session.get_one(Voice, runs.get_run(session, self.run_id).voice)

    def system_prompt(self) -> str:
        """What serving says at the run's moment: the voice's prompt with its approved glossary."""
        run, voice = self.run(), self.voice()
        with self.database.read() as session:
            words = slang.glossary(session, VoiceName(voice.name), run.as_of)
        messages = chat_messages(voice.system_prompt, words, (), glossary_tokens=self.settings.chat.glossary_tokens)
        return "".join(message.content for message in messages)


def take_snapshot(context: StageContext) -> Outcome | None:
    """Looks for fresh slang, then freezes what the run learns from and is judged by."""
    run = context.run()
    found = _discover_slang(context, run)
    context.report(0.5, f"{found} terms looked at, choosing examples")
    with context.database.read() as session:
        snapshot = build_snapshot(session, run, context.settings, context.database.keyring)
    with context.database.write() as session:
        record_snapshot(session, run, snapshot, context.settings, context.database.keyring)
    counts = {"train": len(snapshot.train), "validation": len(snapshot.validation), "evaluate": len(snapshot.evaluate)}
    context.log.info("snapshot", digest=snapshot.digest, **counts, dropped=dict(snapshot.dropped))
    context.report(1.0, f"{len(snapshot.train)} examples to train on, {len(snapshot.evaluate)} to judge by")
    _refuse_over_budget(context, snapshot)
    return _too_little_to_judge(snapshot, context.settings.gates)


def _refuse_over_budget(context: StageContext, snapshot: Snapshot) -> None:
    """Raises OverBudget by what earlier runs of the voice took for an example; the first run has no such estimate
    and is judged by its own first steps."""
    with context.database.read() as session:
        earlier = runs.latest_runs(session, VoiceName(context.run().voice), EARLIER_RUNS)
    paces = [run.cost["seconds"] / run.cost["examples"] for run in earlier if run.cost.get("examples")]
    if paces:
        learned = len(snapshot.train) + len(snapshot.preferences.thumbs) + len(snapshot.preferences.pairs)
        context.budget.check(context.meter.seconds + median(paces) * learned, is_estimate=True)


def _too_little_to_judge(snapshot: Snapshot, settings: GateSettings) -> Outcome | None:
    """Ends the run before it costs anything where the gates could only abstain on what it would train."""
    from retrain.gates.result import enough

    members = {example.member for example in snapshot.evaluate}
    evidence = enough(
        (len(snapshot.evaluate), settings.min_replies, "replies"), (len(members), settings.min_members, "members")
    )
    if evidence.is_enough:
        return None
    return RunState.ABSTAINED, f"Too little to judge a new adapter by, so none was trained: {evidence.sentence}."


def _discover_slang(context: StageContext, run: Run) -> int:
    query = EligibilityQuery(
        voice=VoiceName(run.voice),
        purpose=Purpose.TRAIN,
        policy_version=context.settings.policy_version,
        permission_reference=run.permission_reference,
        since=run.as_of - RECENT - BACKGROUND,
        until=run.as_of,
    )
    with context.database.read() as session:
        known = [term.term for term in slang.terms(session, VoiceName(run.voice))]
        findings = find_terms(uses_of(session, query), run.as_of, known)
    with context.database.write() as session:
        slang.upsert_candidates(session, VoiceName(run.voice), findings)
    return len(findings)


def train(context: StageContext) -> Outcome | None:
    """Supervised training from the base, into the run's folder."""
    from retrain.training import train_supervised

    train_supervised(context)
    return None


def prefer(context: StageContext) -> Outcome | None:
    """What votes and duels add; then the challenger is registered."""
    from retrain.training import train_preferences

    train_preferences(context)
    return None


def discard_training(context: StageContext) -> None:
    """Retires and deletes what was trained on rows that are gone; its name is never used again."""
    with context.database.write() as session:
        run = runs.get_run(session, context.run_id)
        name, run.challenger = run.challenger, None
        if name is not None and session.get(Adapter, name) is not None:
            registry.set_adapter_status(session, AdapterName(name), AdapterStatus.RETIRED)
    if name is not None:
        shutil.rmtree(context.settings.adapters_dir / name, ignore_errors=True)
    for folder in (run_folder.CHECKPOINTS, run_folder.STEPS):
        shutil.rmtree(context.folder / folder, ignore_errors=True)
    for file in (run_folder.TRAIN_FILE, run_folder.MEASUREMENTS_FILE, run_folder.SAMPLES_FILE, GOLDEN_FILE):
        (context.folder / file).unlink(missing_ok=True)


def take_measurements(context: StageContext) -> Outcome | None:
    """Measures the challenger against incumbent and base: numbers, and answers to our own prompts."""
    from retrain.measure import MeasurePlan, measure

    snapshot, run, settings = context.snapshot(), context.run(), context.settings
    assert run.challenger is not None, "the train stage names the challenger"
    with context.database.read() as session:
        lexicon = voice_terms(session, VoiceName(run.voice), run.as_of)
    plan = MeasurePlan(
        base_path=settings.base_path,
        quantization=settings.served_quantization,
        device=settings.model.device,
        system_prompt=context.system_prompt(),
        challenger=settings.adapters_dir / run.challenger,
        incumbent=None if run.incumbent == BASE else settings.adapters_dir / run.incumbent,
        train=snapshot.train,
        evaluate=snapshot.evaluate,
        lexicon=lexicon,
        settings=settings.gates,
        seed=settings.retrain.seed,
        cache_dir=settings.data_dir / "cache" / "measure",
        sampling=settings.chat.sampling,
        fading=_fading(context, run, lexicon),
        earlier_train=_last_promoted_rows(context, run),
        earlier_adapters=_clean_adapters(context, run),
    )
    measured = measure(plan, lambda what, done, total: context.report(done / max(1, total), f"{what} {done}/{total}"))
    write_file(context.folder / run_folder.MEASUREMENTS_FILE, measured.measurements.to_json())
    samples = {"samples": [asdict(sample) for sample in measured.samples]}
    write_file(context.folder / run_folder.SAMPLES_FILE, run_folder.as_json(samples))
    return None


def _fading(context: StageContext, run: Run, lexicon: Sequence[str]) -> Fading:
    """Which markers the members are giving up, by ten weeks of what may be used for evaluation."""
    from retrain._observations import NEW_SPAN, OLD_SPAN, fading_terms

    query = EligibilityQuery(
        voice=VoiceName(run.voice),
        purpose=Purpose.EVALUATE,
        policy_version=context.settings.policy_version,
        permission_reference=run.permission_reference,
        since=run.as_of - NEW_SPAN - OLD_SPAN,
        until=run.as_of,
    )
    with context.database.read() as session:
        rows = [(row.sent_at, row.text) for row in eligible_messages(session, query)]
    return fading_terms(Lexicon(lexicon), rows, run.as_of)


def _last_promoted_rows(context: StageContext, run: Run) -> Sequence[Example]:
    """What the last promoted run of the voice was trained on, as far as it may all still be used; else nothing."""
    with context.database.read() as session:
        earlier = runs.latest_runs(session, VoiceName(run.voice), limit=20)
        promoted = [one for one in earlier if one.state == RunState.PROMOTED and one.id != run.id]
        try:
            return load_snapshot(session, promoted[0], context.settings, context.database.keyring).train
        except (IndexError, RunError):
            return ()


def _clean_adapters(context: StageContext, run: Run) -> list[Path]:
    """Folders of the voice's adapters whose gates passed, on this base and still there."""
    with context.database.read() as session:
        rows = registry.adapters(session, VoiceName(run.voice))
    clean = [row for row in rows if row.status == AdapterStatus.PASSED and row.name != run.challenger]
    folders = [context.settings.adapters_dir / row.name for row in clean]
    return [folder for folder in folders if (folder / "adapter_model.safetensors").is_file()]


def decide(context: StageContext) -> Outcome | None:
    """Lets every gate decide; anything but a pass of all ends the run here."""
    from retrain import gates
    from retrain.gates.record import decision_record

    text = (context.folder / run_folder.MEASUREMENTS_FILE).read_text(encoding="utf-8")
    decision = gates.decide(gates.Measurements.from_json(text), context.settings.gates)
    record = decision_record(decision, text, context.settings.gates)
    write_file(context.folder / run_folder.GATES_FILE, run_folder.as_json(record))
    outcomes = [
        GateOutcome(
            run_id=context.run_id,
            **{field: value for field, value in asdict(result).items() if field in GateOutcome.model_fields},
        )
        for result in decision.results
    ]
    name = AdapterName(str(context.run().challenger))
    with context.database.write() as session:
        runs.set_gate_results(session, context.run_id, outcomes)
        if decision.verdict is not Verdict.ABSTAIN:
            passed = decision.verdict is Verdict.PASS
            status = AdapterStatus.PASSED if passed else AdapterStatus.REFUSED
            registry.set_adapter_status(session, name, status)
    context.log.info("decided", verdict=decision.verdict, gates={one.gate: one.verdict for one in decision.results})
    ends = {Verdict.FAIL: RunState.REFUSED, Verdict.ABSTAIN: RunState.ABSTAINED}
    return (ends[decision.verdict], decision.sentence) if decision.verdict in ends else None


def go_live(context: StageContext) -> Outcome | None:
    """Promotes the challenger, or gives it its share of the channels where `canary.share` asks for a trial.

    Neither happens where rows it learnt from were erased or another adapter went live meanwhile.
    """
    run, share = context.run(), context.settings.canary.share
    name = AdapterName(str(run.challenger))
    with context.database.read() as session:
        pointer = registry.deployment(session, VoiceName(run.voice))
        live, canary = pointer.current, pointer.canary
    if live == name:
        return RunState.PROMOTED, f"All gates passed; {name} is live."
    if canary == name:
        return RunState.ON_TRIAL, f"All gates passed; {name} is on trial."
    context.snapshot()
    if live != run.incumbent:
        raise NotPermitted(
            f"{name} passed its gates against {run.incumbent}, but {live} went live meanwhile; nothing was promoted."
            f" Start another run, or decide with `nocap promote {name}`."
        )
    tokens = backend_tokens(context.settings, context.database.keyring)
    backend = live_backend(context.settings, user_token=tokens.user, admin_token=tokens.admin)
    into = (context.database, backend, context.settings, name)
    actor, at = f"run {run.id}", context.clock()
    if share:
        start_canary(*into, share, actor=actor, at=at)
        return RunState.ON_TRIAL, f"All gates passed; {name} is tried out in {share:.0%} of the channels beside {live}."
    move = promote(*into, actor=actor, reason="all gates passed", at=at)
    where = "on every replica" if backend else "as soon as a server starts"
    return RunState.PROMOTED, f"All gates passed; {move.before} → {move.after}, {where}."


def finish(context: StageContext, state: RunState, reason: str) -> RunState:
    """Ends the run in its row and its folder; a page that cannot be written does not change how it ended."""
    from retrain.artefacts import write_artefacts

    cost = context.meter.read()
    run_folder.write_cost(context.folder, cost)
    try:
        write_artefacts(context.folder, context.settings, context.database, context.run_id, state, reason, cost)
    except (NocapError, OSError, ValueError) as error:
        context.log.error("artefacts not written", reason=str(error))
    with context.database.write() as session:
        runs.finish_run(session, context.run_id, state, reason, context.clock(), cost.as_json())
    context.log.info("over", state=state, reason=reason)
    return state


WORK: dict[Stage, Callable[[StageContext], Outcome | None]] = {
    Stage.SNAPSHOT: take_snapshot,
    Stage.TRAIN: train,
    Stage.PREFERENCES: prefer,
    Stage.MEASURE: take_measurements,
    Stage.GATES: decide,
    Stage.PROMOTE: go_live,
}
