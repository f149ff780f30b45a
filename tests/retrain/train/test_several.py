"""Two processes on one training, started by accelerate, over gloo on the CPU."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inference.adapter_files import verify_adapter
from nocap.errors import RunError
from retrain.train.several import train_on_several
from retrain.train.sft import TrainingStopped, train_adapter
from tests.retrain.train.tiny import build_examples, build_plan

# accelerate starts processes for MULTI_CPU by mpirun alone; these two see no card and meet over gloo.
TWO_ON_THE_CPU = """\
compute_environment: LOCAL_MACHINE
distributed_type: MULTI_GPU
machine_rank: 0
main_training_function: main
mixed_precision: 'no'
num_machines: 1
num_processes: 2
gpu_ids: all
use_cpu: true
main_process_port: 0
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    file = tmp_path / "accelerate.yaml"
    file.write_text(TWO_ON_THE_CPU)
    return file


@pytest.mark.slow
def test_two_processes_train_one_adapter_along_the_losses_of_one(tiny_base, tmp_path, config) -> None:
    examples, steps = build_examples(60), []
    plan = build_plan(tiny_base, tmp_path / "two", max_steps=6)
    report = train_on_several(
        plan,
        examples,
        (),
        accelerate_config=config,
        progress=lambda step, total, loss: steps.append((step, total)),
        should_stop=lambda: False,
    )
    assert verify_adapter(plan.output, base_digest=None).name == "genz-v1"
    assert [step for step, _ in steps] == [1, 2, 3, 4, 5, 6] and report.steps == 6
    alone = build_plan(tiny_base, tmp_path / "one", max_steps=6)
    single = train_adapter(alone, examples, (), progress=lambda *_: None, should_stop=lambda: False)
    losses, of_one = ([loss for _, loss in one.losses] for one in (report, single))
    assert losses == pytest.approx(of_one, rel=1e-4), "the same batch, divided"
    assert losses[-1] < losses[0] and report.tokens == single.tokens


def test_what_stops_or_breaks_the_processes_is_told_and_nothing_of_them_is_left(tiny_base, tmp_path, config) -> None:
    plan = build_plan(tiny_base, tmp_path)
    told = {"accelerate_config": config, "progress": lambda *_: None}
    with pytest.raises(TrainingStopped):
        train_on_several(plan, build_examples(4), (), should_stop=lambda: True, **told)
    with pytest.raises(RunError, match="There is no accelerate config"):
        missing = told | {"accelerate_config": tmp_path / "none.yaml"}
        train_on_several(plan, build_examples(4), (), should_stop=lambda: False, **missing)
    assert not plan.output.exists() and "TRAINING_KEY" not in os.environ
