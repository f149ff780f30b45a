"""The real trainer on a random Qwen3 of 0.1 M parameters in 4 bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from inference.adapter_files import verify_adapter
from inference.base_model import base_digest, load_base
from nocap.errors import RunError
from nocap.settings import EMBEDDED_BASE
from retrain.train import sft
from retrain.train.rows import build_rows
from retrain.train.sft import TrainingStopped, train_adapter
from tests.retrain.train.tiny import as_synthetic, build_examples, build_plan

EXAMPLES = build_examples(40)


def _train(plan, train=EXAMPLES, validation=(), progress=lambda *_: None, should_stop=lambda: False):
    return train_adapter(plan, train, validation, progress=progress, should_stop=should_stop)


def _weights(plan):
    return (plan.output / "adapter_model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def trained(tiny_base, tmp_path_factory):
    """The plan, report and steps seen of one whole training without a validation split."""
    plan = build_plan(tiny_base, tmp_path_factory.mktemp("trained"))
    seen: list[tuple[int, int, float]] = []
    report = _train(plan, progress=lambda *step: seen.append(step))
    return plan, report, seen


def test_training_learns_and_leaves_a_verified_adapter(trained, tiny_base):
    plan, report, seen = trained
    manifest = verify_adapter(plan.output, base_digest=base_digest(str(tiny_base)))
    assert (manifest.name, manifest.rank) == (plan.name, plan.settings.rank)
    assert report.losses[-1][1] < report.losses[0][1] - 0.2
    assert [step for step, _, _ in seen] == list(range(1, 15)) and {steps for _, steps, _ in seen} == {14}
    assert (report.steps, report.examples, report.too_long) == (14, 40, 0)
    assert not [path for path in plan.output.parent.iterdir() if path != plan.output]


def test_the_adapter_is_in_full_precision_and_names_no_folder_of_this_machine(trained, tiny_base):
    plan, _, _ = trained
    assert {weight.dtype for weight in load_file(plan.output / "adapter_model.safetensors").values()} == {torch.float32}
    config = json.loads((plan.output / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == tiny_base.name


def test_the_same_seed_gives_the_same_adapter_and_another_seed_another(trained, tiny_base, tmp_path):
    plan, report, _ = trained
    again, other = build_plan(tiny_base, tmp_path / "again"), build_plan(tiny_base, tmp_path / "other", seed=8)
    assert _train(again).losses == report.losses
    _train(other)
    assert _weights(again) == _weights(plan) != _weights(other)


def test_validation_passes_change_nothing_that_is_learnt(trained, tiny_base, tmp_path):
    """bitsandbytes repacks 4-bit weights in evaluation mode on some CPUs, and gradients then stop there."""
    plan, _, _ = trained
    validated = build_plan(tiny_base, tmp_path)
    report = _train(validated, validation=build_examples(8, seed=5))
    assert _weights(validated) == _weights(plan)
    steps = [step for step, _ in report.validation_losses]
    assert steps[0] == 0 and steps[-1] >= 12 and steps == sorted(set(steps))
    assert report.validation_losses[-1][1] < report.validation_losses[0][1]


def test_packed_rows_give_the_loss_of_each_example_by_itself(tmp_path):
    plan = build_plan(EMBEDDED_BASE, tmp_path, max_steps=1, batch_examples=10, max_length=512)
    first_loss = _train(plan, EXAMPLES[:10]).losses[0][1]
    base = load_base(str(EMBEDDED_BASE), quantization="nf4", device="cpu")
    total, tokens = 0.0, 0
    for row in build_rows(base.tokenizer, plan.system_prompt, EXAMPLES[:10], max_tokens=200, seed=0):
        with torch.no_grad():
            logits = base.model(torch.tensor([row.input_ids])).logits[0, :-1]
        total += cross_entropy(logits, torch.tensor(row.labels[1:]), reduction="sum", ignore_index=-100).item()
        tokens += sum(label != -100 for label in row.labels)
    assert first_loss == pytest.approx(total / tokens, abs=1e-4)


def test_a_training_killed_by_sigkill_resumes_to_the_same_adapter_and_losses(trained, tiny_base, tmp_path):
    whole, report, _ = trained
    plan = build_plan(tiny_base, tmp_path)
    _kill_at_step(12, tiny_base, tmp_path)
    assert not plan.output.exists()
    seen: list[int] = []
    resumed = _train(plan, progress=lambda step, *_: seen.append(step))
    assert seen == [11, 12, 13, 14], "it goes on from the checkpoint of step 10"
    assert resumed.losses == report.losses
    assert _weights(plan) == _weights(whole)


def _kill_at_step(step: int, base: Path, work: Path) -> None:
    code = f"""
        import os, signal
        from pathlib import Path
        import torch
        torch.set_num_threads({torch.get_num_threads()})
        from retrain.train.sft import train_adapter
        from tests.retrain.train.tiny import build_examples, build_plan
        def progress(step, *_):
            if step == {step}:
                os.kill(os.getpid(), signal.SIGKILL)
        plan = build_plan(Path({str(base)!r}), Path({str(work)!r}))
        train_adapter(plan, build_examples(40), (), progress=progress, should_stop=lambda: False)
    """
    root = Path(__file__).parents[3]
    environment = os.environ | {"PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=root, env=environment, timeout=200)
    assert done.returncode == -signal.SIGKILL


def test_other_examples_never_resume_from_an_old_checkpoint_but_new_synthetic_replies_do(tiny_base, tmp_path):
    plan = build_plan(tiny_base, tmp_path)
    synthetic = [as_synthetic(example) for example in build_examples(6, seed=3)]
    _train(plan, [*EXAMPLES, *synthetic])
    for train, first_step in (([*EXAMPLES, *map(as_synthetic, build_examples(6, seed=4))], None), (EXAMPLES[:-1], 1)):
        seen: list[int] = []
        _train(plan, train, progress=lambda step, *_, seen=seen: seen.append(step))
        assert (seen[0] if seen else None) == first_step


def test_out_of_memory_halves_what_is_computed_at_once_and_keeps_the_batch(trained, tiny_base, tmp_path, monkeypatch):
    build, step, batchings = sft._build_trainer, sft._Trainer.training_step, []

    def noted(*arguments):
        batchings.append(arguments[-1])
        return build(*arguments)

    def too_small_at_first(self, *arguments):
        if len(batchings) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(self, *arguments)

    monkeypatch.setattr(sft, "_build_trainer", noted)
    monkeypatch.setattr(sft._Trainer, "training_step", too_small_at_first)
    _, whole, _ = trained
    report = _train(build_plan(tiny_base, tmp_path))
    first, second = batchings
    assert second.row_tokens < first.row_tokens
    assert second.row_tokens * second.rows_per_step >= 0.75 * first.row_tokens * first.rows_per_step
    assert report.steps == whole.steps and report.losses[-1][1] < report.losses[0][1] - 0.2


def test_too_little_memory_for_one_example_ends_with_a_reason(tiny_base, tmp_path, monkeypatch):
    def too_small(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(sft._Trainer, "training_step", too_small)
    with pytest.raises(RunError, match=r"too small for one example.*max_length"):
        _train(build_plan(tiny_base, tmp_path))


@pytest.mark.parametrize(("losses", "stops"), [([3.0, 2.0, 2.1], True), ([3.0, 2.0, 2.01], False), ([3.0], False)])
def test_a_rising_validation_loss_stops_the_training(losses, stops):
    state = SimpleNamespace(log_history=[{"eval_loss": loss, "step": step} for step, loss in enumerate(losses)])
    control = SimpleNamespace(should_training_stop=False)
    sft.Watch(lambda *_: None, lambda: False).on_evaluate(None, state, control)
    assert control.should_training_stop is stops


def test_a_stopped_training_leaves_nothing_behind(tiny_base, tmp_path):
    plan = build_plan(tiny_base, tmp_path)
    seen: list[int] = []
    with pytest.raises(TrainingStopped, match="step 3 of 14"):
        _train(plan, progress=lambda step, *_: seen.append(step), should_stop=lambda: len(seen) == 3)
    assert not plan.output.exists()


def test_a_training_that_breaks_down_ends_with_a_reason_and_no_adapter(tiny_base, tmp_path):
    plan = build_plan(tiny_base, tmp_path, learning_rate=1e30)
    with pytest.raises(RunError, match=r"Training stopped at step \d+.*learning_rate"):
        _train(plan)
    assert not plan.output.exists()


def test_examples_that_never_fit_end_with_a_reason(tiny_base, tmp_path):
    with pytest.raises(RunError, match="None of 40 examples fits into 10 tokens"):
        _train(build_plan(tiny_base, tmp_path, max_length=10))


def test_attention_targets_leave_the_other_layers_alone(tiny_base, tmp_path):
    plan = build_plan(tiny_base, tmp_path, targets="attention", max_steps=1)
    _train(plan)
    names = load_file(plan.output / "adapter_model.safetensors")
    assert {name.split(".")[-4] for name in names} == {"self_attn"}
