"""Whole runs: the real stages on a random model of 0.1 M parameters, in process and as processes that are killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from huggingface_hub import ModelCard

from inference.adapter_files import verify_adapter
from nocap.domain import BASE, AdapterStatus, RunState, Stage, Verdict, utc_now
from nocap.errors import AdapterError, RunError
from nocap.settings import CanarySettings, GateSettings
from retrain import gates, job, measure, stages
from retrain.cost import Cost
from retrain.gates import Measurements
from retrain.job import is_running, start_job
from retrain.run_folder import read_config, read_json, write_config, write_cost
from storage import registry, runs
from storage.messages import delete_message, forget_member
from storage.tables import Lease
from tests.retrain.job_world import (
    AS_OF,
    GENZ,
    LEARNERS,
    QUICK_STAGES,
    World,
    build_settings,
    decided,
    new_run,
    secret_of,
    vote,
)


@pytest.fixture
def world(tmp_path, tiny_base):
    made = World(tmp_path / "data", tiny_base)
    yield made
    made.database.close()


@pytest.fixture
def quick_measure(monkeypatch):
    """Measuring is tested by itself; here it takes no time."""
    monkeypatch.setattr(measure, "measure", lambda plan, progress: measure.Measured(Measurements(), ()))


def _decide(monkeypatch, verdict: Verdict) -> None:
    monkeypatch.setattr(gates, "decide", lambda *_: decided(verdict))


def test_too_little_to_judge_by_abstains_before_anything_is_trained(tmp_path, tiny_base):
    world = World(tmp_path / "data", tiny_base)
    world.settings = world.settings.model_copy(update={"gates": GateSettings(min_members=40, min_replies=1000)})
    assert world.work() is RunState.ABSTAINED
    assert "needs 1,000 replies of 40 members, has" in world.run().reason
    assert world.adapters() == {}
    assert (world.folder / "report.html").exists()


def test_a_whole_run_of_real_stages_leaves_everything_but_the_members_texts(world):
    vote(world.database)
    assert world.work() in (RunState.ABSTAINED, RunState.REFUSED)
    run = world.run()
    assert run.reason and run.ended_at == AS_OF and run.pid is None
    assert world.live() == BASE
    assert {row.gate for row in _gate_rows(world)} == {gate.name for gate in gates.GATES}
    assert run.cost["tokens"] > 0 and run.cost["energy_is_estimate"] and run.cost["money"] > 0
    assert set(run.cost["seconds_by_stage"]) == {"snapshot", "train", "preferences", "measure", "gates"}
    present = {path.name for path in world.folder.iterdir()}
    assert present >= {
        "bom.json", "config.json", "gates.json", "golden.json", "log.jsonl", "measurements.json", "progress.json",
        "README.md", "report.html", "samples.json", "snapshot.json", "train.json",
    }  # fmt: skip
    assert not {"checkpoints", "steps"} & present
    _assert_no_texts(world)
    trained = read_json(world.folder / "train.json")
    assert (trained["thumbs"]["examples"], trained["duels"]["examples"]) == (20, 10)
    with world.database.read() as session:
        assert {row.role for row in runs.sources(session, world.run_id)} >= {"train", "thumb", "duel"}
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str((world.folder / "bom.json").read_text()) is None
    card = ModelCard((world.folder / "README.md").read_text())
    assert card.data.library_name == "peft" and "is a bot" in card.text


def _gate_rows(world):
    with world.database.read() as session:
        return runs.gate_results(session, world.run_id)


def _assert_no_texts(world) -> None:
    written = [path for root in (world.settings.runs_dir, world.settings.adapters_dir) for path in root.rglob("*")]
    contents = {path: path.read_bytes() for path in written if path.is_file()}
    assert contents
    for number in range(120):
        for path, content in contents.items():
            assert secret_of(number).encode() not in content, path


def test_a_passed_run_is_promoted_and_working_on_it_again_changes_nothing(world, quick_measure, monkeypatch):
    _decide(monkeypatch, Verdict.PASS)
    monkeypatch.setattr(stages, "WORK", stages.WORK | QUICK_STAGES)
    assert world.work() is RunState.PROMOTED
    assert world.live() == "genz-v1"
    assert world.adapters() == {"genz-v1": AdapterStatus.PASSED}
    assert world.run().reason == "All gates passed; base → genz-v1, as soon as a server starts."
    before = world.run()
    assert world.work() is RunState.PROMOTED
    assert world.run() == before


def test_with_a_canary_share_a_passed_run_goes_on_trial_once(world, quick_measure, monkeypatch):
    _decide(monkeypatch, Verdict.PASS)
    monkeypatch.setattr(stages, "WORK", stages.WORK | QUICK_STAGES)
    world.settings = world.settings.model_copy(update={"canary": CanarySettings(share=0.2)})
    assert world.work() is RunState.ON_TRIAL
    assert world.live() == BASE
    with world.database.read() as session:
        pointer = registry.deployment(session, GENZ)
    assert (pointer.canary, pointer.canary_share) == ("genz-v1", 0.2)
    assert world.run().reason == "All gates passed; genz-v1 is tried out in 20% of the channels beside base."
    assert world.work() is RunState.ON_TRIAL


@pytest.mark.parametrize(
    ("verdict", "state", "status"),
    [
        (Verdict.FAIL, RunState.REFUSED, AdapterStatus.REFUSED),
        (Verdict.ABSTAIN, RunState.ABSTAINED, AdapterStatus.CANDIDATE),
    ],
)
def test_anything_but_a_pass_leaves_the_live_adapter(world, quick_measure, monkeypatch, verdict, state, status):
    _decide(monkeypatch, verdict)
    monkeypatch.setattr(stages, "WORK", stages.WORK | QUICK_STAGES)
    assert world.work() is state
    assert (world.live(), world.adapters()) == (BASE, {"genz-v1": status})


@pytest.mark.parametrize("stage", list(Stage))
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_process_that_dies_at_any_stage_is_taken_up_there(world, quick_measure, monkeypatch, stage, moment):
    """A SystemExit ends the process's work as a kill does: nothing of the run is tidied up."""
    _decide(monkeypatch, Verdict.PASS)
    work = stages.WORK | QUICK_STAGES
    real = work[stage]

    def dies(context):
        if moment == "after":
            real(context)
        raise SystemExit

    monkeypatch.setattr(stages, "WORK", work | {stage: dies})
    with pytest.raises(SystemExit):
        world.work()
    assert (world.run().state, world.run().stage) == (RunState.RUNNING, stage)
    monkeypatch.setattr(stages, "WORK", work)
    assert world.work() is RunState.PROMOTED
    assert (world.live(), world.adapters()) == ("genz-v1", {"genz-v1": AdapterStatus.PASSED})


def test_rows_erased_during_a_run_send_it_back_and_what_was_trained_is_discarded(world, quick_measure, monkeypatch):
    _decide(monkeypatch, Verdict.PASS)
    member, erased = LEARNERS[0], []

    def forgets(context):
        if not erased:
            with world.database.write() as session:
                erased.append(forget_member(session, member, AS_OF))
        return stages.take_measurements(context)

    monkeypatch.setattr(stages, "WORK", stages.WORK | QUICK_STAGES | {Stage.MEASURE: forgets})
    assert world.work() is RunState.PROMOTED
    assert world.live() == "genz-v2"
    assert world.adapters() == {"genz-v1": AdapterStatus.RETIRED, "genz-v2": AdapterStatus.PASSED}
    assert not (world.settings.adapters_dir / "genz-v1").exists()
    with world.database.read() as session:
        assert member not in {row.member for row in runs.sources(session, world.run_id)}
    assert erased[0].messages > 0


def test_rows_erased_after_the_gates_passed_stop_the_promotion_too(world, quick_measure, monkeypatch):
    _decide(monkeypatch, Verdict.PASS)
    erased = []

    def forgets(context):
        if not erased:
            with world.database.write() as session:
                erased.append(forget_member(session, LEARNERS[0], AS_OF))
        return stages.go_live(context)

    monkeypatch.setattr(stages, "WORK", stages.WORK | QUICK_STAGES | {Stage.PROMOTE: forgets})
    assert world.work() is RunState.PROMOTED
    assert world.live() == "genz-v2"


def test_a_prompt_erased_after_its_answer_taught_sends_the_run_back(world, quick_measure, monkeypatch):
    _decide(monkeypatch, Verdict.PASS)
    vote(world.database)
    taken = []

    def erases(context):
        taken.append(len(context.snapshot().preferences.thumbs))
        if len(taken) == 1:
            with world.database.write() as session:
                assert not delete_message(session, "asked-0-0", AS_OF)
        return stages.take_measurements(context)

    monkeypatch.setattr(stages, "WORK", stages.WORK | QUICK_STAGES | {Stage.MEASURE: erases})
    assert world.work() is RunState.PROMOTED
    assert (taken, world.live()) == ([20, 19], "genz-v2")


def test_a_run_that_would_exceed_its_budget_is_refused_by_its_first_steps(tmp_path, tiny_base):
    world = World(tmp_path / "data", tiny_base, budget_minutes=0.001)
    assert world.work() is RunState.FAILED
    assert "more than 0.001 minutes (`retrain.budget_minutes`)" in world.run().reason
    assert (world.live(), world.adapters()) == (BASE, {})


def test_a_run_that_has_spent_its_budget_is_stopped_wherever_it_is(world):
    world.settings = world.settings.model_copy(
        update={"retrain": world.settings.retrain.model_copy(update={"budget_minutes": 30.0})}
    )
    world.folder.mkdir(parents=True)
    write_cost(world.folder, Cost(seconds=3_600.0))
    assert world.work() is RunState.FAILED
    assert "The run has taken 60.0 minutes" in world.run().reason
    assert (world.live(), world.adapters()) == (BASE, {})


def test_a_plan_that_earlier_runs_say_is_too_dear_is_refused_before_it_trains(world, monkeypatch):
    with world.database.write() as session:
        runs.finish_run(session, world.run_id, RunState.REFUSED, "earlier", AS_OF, {"seconds": 36_000, "examples": 10})
    world.run_id = new_run(world.database)
    world.settings = world.settings.model_copy(
        update={"retrain": world.settings.retrain.model_copy(update={"budget_money": 1.0, "price_per_hour": 1.0})}
    )
    assert world.work() is RunState.FAILED
    assert "would take about" in world.run().reason and "1.00 USD" in world.run().reason
    assert world.run().stage == Stage.SNAPSHOT


def test_another_adapter_that_went_live_meanwhile_is_not_overwritten(world, quick_measure, monkeypatch):
    _decide(monkeypatch, Verdict.PASS)

    def overtaken(context):
        with world.database.write() as session:
            registry.register_adapter(session, _other_adapter())
            registry.move_pointer(session, GENZ, "genz-v7", actor="operator", reason="by hand", at=AS_OF)
        return stages.go_live(context)

    monkeypatch.setattr(stages, "WORK", stages.WORK | QUICK_STAGES | {Stage.PROMOTE: overtaken})
    assert world.work() is RunState.FAILED
    assert "but genz-v7 went live meanwhile; nothing was promoted" in world.run().reason
    assert world.live() == "genz-v7"


def _other_adapter():
    from storage.tables import Adapter

    return Adapter(
        name="genz-v7", voice=GENZ, base="embedded", base_digest="b", digest="d", status=AdapterStatus.PASSED,
        created_at=AS_OF,
    )  # fmt: skip


def test_too_few_examples_end_the_run_with_the_counts(tmp_path, tiny_base):
    world = World(tmp_path / "data", tiny_base, min_examples=500)
    assert world.work() is RunState.NOTHING_TO_LEARN
    assert "examples are left of the 500" in world.run().reason
    assert (world.folder / "report.html").exists()
    assert world.adapters() == {}


def test_a_corrupt_adapter_fails_the_run_with_one_sentence(world, quick_measure, monkeypatch):
    _decide(monkeypatch, Verdict.PASS)

    def corrupts(context):
        weights = world.settings.adapters_dir / "genz-v1" / "adapter_model.safetensors"
        weights.chmod(0o644)
        weights.write_bytes(b"Genz-v1")
        return stages.decide(context)

    monkeypatch.setattr(stages, "WORK", stages.WORK | QUICK_STAGES | {Stage.GATES: corrupts})
    assert world.work() is RunState.FAILED
    assert "corrupt" in world.run().reason and world.run().reason.count("\n") == 0
    assert world.live() == BASE
    with pytest.raises(AdapterError):
        verify_adapter(world.settings.adapters_dir / "genz-v1", base_digest=None)


def test_an_unforeseen_error_is_told_by_its_kind_and_never_by_its_text(world, monkeypatch):
    def breaks(context):
        raise KeyError(secret_of(3))

    monkeypatch.setattr(stages, "WORK", stages.WORK | {Stage.SNAPSHOT: breaks})
    assert world.work() is RunState.FAILED
    assert world.run().reason == "An unforeseen KeyError; the run's log.jsonl says where."
    assert secret_of(3) not in (world.folder / "log.jsonl").read_text()


def test_a_cancelled_run_ends_between_two_steps(world, monkeypatch):
    monkeypatch.setattr(job, "HEARTBEAT_SECONDS", 0.02)

    def cancelled(context):
        with world.database.write() as session:
            runs.request_cancel(session, world.run_id)
        for _ in range(500):
            time.sleep(0.02)
            context.report(0.5, "working")
        raise AssertionError("the wish was never seen")

    monkeypatch.setattr(stages, "WORK", stages.WORK | {Stage.TRAIN: cancelled})
    assert world.work() is RunState.CANCELLED
    assert (world.live(), world.adapters()) == (BASE, {})


def test_a_run_that_waits_for_another_can_be_cancelled(world, monkeypatch):
    with world.database.write() as session:
        session.add(Lease(name="retrain", owner="other@elsewhere:1", expires_at=AS_OF + timedelta(hours=1)))
        runs.request_cancel(session, world.run_id)
    assert world.work() is RunState.CANCELLED


def test_the_lease_of_a_dead_process_of_this_machine_is_taken_over(world, quick_measure, monkeypatch):
    monkeypatch.setattr(stages, "WORK", stages.WORK | QUICK_STAGES)
    with world.database.write() as session:
        owner = f"other@{job.socket.gethostname()}:{_dead_pid()}"
        session.add(Lease(name="retrain", owner=owner, expires_at=AS_OF + timedelta(hours=1)))
    assert world.work().is_over


def _dead_pid() -> int:
    return max(psutil.pids()) + 1


def test_a_lost_lease_leaves_the_run_to_whoever_has_it(world, monkeypatch):
    monkeypatch.setattr(job, "HEARTBEAT_SECONDS", 0.02)

    def robbed(context):
        with world.database.write() as session:
            session.get_one(Lease, "retrain").owner = "other@elsewhere:1"
        for _ in range(500):
            time.sleep(0.02)
            context.report(0.5, "working")

    monkeypatch.setattr(stages, "WORK", stages.WORK | {Stage.TRAIN: robbed})
    with pytest.raises(stages.LeaseLost):
        world.work()
    assert world.run().state == RunState.RUNNING


@pytest.mark.slow
def test_a_run_killed_by_sigkill_while_training_resumes_to_the_adapter_of_an_unharmed_run(tmp_path, tiny_base):
    harmed = World(tmp_path / "harmed", tiny_base, max_steps=14)
    shutil.copytree(tmp_path / "harmed", tmp_path / "whole")
    process = start_job(harmed.run_id, harmed.settings)
    _wait_for(lambda: (_progress(harmed).get("step") or 0) >= 11 or process.poll() is not None)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert harmed.run().stage == Stage.TRAIN
    assert not is_running(harmed.run(), utc_now())
    assert list((harmed.folder / "checkpoints").rglob("complete"))
    resumed = start_job(harmed.run_id, harmed.settings)
    _wait_for(lambda: harmed.run().stage not in (Stage.TRAIN, Stage.PREFERENCES))
    assert is_running(harmed.run(), utc_now())
    _end(resumed, harmed)
    data = tmp_path / "whole"
    whole = build_settings(data, tiny_base, data / "nocap.key", max_steps=14)
    unharmed = start_job(harmed.run_id, whole)
    _wait_for(lambda: (whole.adapters_dir / "genz-v1").exists() or unharmed.poll() is not None)
    unharmed.kill()
    unharmed.wait()
    digests = {
        verify_adapter(one.adapters_dir / "genz-v1", base_digest=None).digest for one in (harmed.settings, whole)
    }
    assert len(digests) == 1


def _progress(world) -> dict:
    path = world.folder / "progress.json"
    return read_json(path) if path.exists() else {}


def _end(process, world) -> None:
    """Cancels the run, whose later stages have tests of their own, and sees its process end."""
    with world.database.write() as session:
        runs.request_cancel(session, world.run_id)
    assert process.wait(timeout=120) == 0
    assert world.run().state in (RunState.CANCELLED, RunState.ABSTAINED, RunState.REFUSED)


def _wait_for(condition, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


def test_a_resumed_run_keeps_its_recipe_and_thresholds_but_not_where_things_are(world, tmp_path):
    path = write_config(world.folder, world.settings)
    changed = world.settings.model_copy(
        update={
            "retrain": world.settings.retrain.model_copy(update={"seed": 99}),
            "gates": world.settings.gates.model_copy(update={"alpha": 0.5}),
            "inference": world.settings.inference.model_copy(update={"urls": ("http://elsewhere:1",)}),
        }
    )
    write_config(world.folder, changed)
    settings = read_config(path)
    assert (settings.retrain, settings.gates) == (world.settings.retrain, world.settings.gates)
    assert settings.inference.urls == ("http://elsewhere:1",)


def test_no_secret_is_written_into_the_run_folder(world, monkeypatch):
    monkeypatch.setenv("NOCAP_INFERENCE__ADMIN_TOKEN", "t0p-s3cret")
    monkeypatch.setenv("NOCAP_DATABASE__URL", "postgresql://me:p4ssword@db/nocap")
    monkeypatch.setenv("NOCAP_DISCORD__TOKEN", "d1scord")
    settings = build_settings(world.settings.data_dir, Path("embedded"))
    path = write_config(world.folder, settings)
    assert not any(secret in path.read_text() for secret in ("t0p-s3cret", "p4ssword", "d1scord"))
    assert read_config(path).inference.admin_token.get_secret_value() == "t0p-s3cret"


def test_a_run_is_running_only_while_its_process_or_its_heartbeat_lives(world):
    run = world.run()
    assert is_running(run, AS_OF + timedelta(seconds=30)), "its process may be starting"
    assert not is_running(run, AS_OF + timedelta(hours=1))
    run.pid, run.state, run.heartbeat_at = _dead_pid(), RunState.RUNNING, AS_OF
    run.options = {"host": job.socket.gethostname()}
    assert not is_running(run, AS_OF)
    run.options = {"host": "elsewhere"}
    assert is_running(run, AS_OF + timedelta(seconds=60))
    assert not is_running(run, AS_OF + timedelta(hours=1))
    run.pid, run.options = os.getpid(), {"host": job.socket.gethostname()}
    assert is_running(run, AS_OF + timedelta(hours=1))
    run.state = RunState.FAILED
    assert not is_running(run, AS_OF)


def test_an_unknown_run_or_a_broken_config_ends_the_process_with_a_sentence(world, capsys, tmp_path):
    path = write_config(world.folder, world.settings)
    os.environ["NOCAP_DATABASE__URL"] = world.settings.database_url
    try:
        assert job.main(["no-such-run", "--settings", str(path)]) == RunError.exit_code
        assert "There is no run no-such-run" in capsys.readouterr().err
    finally:
        del os.environ["NOCAP_DATABASE__URL"]
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps({"retrain": {"rank": "high"}}))
    assert job.main(["x", "--settings", str(broken)]) == RunError.exit_code
    assert capsys.readouterr().err.startswith(f"{broken} holds no run's settings")
