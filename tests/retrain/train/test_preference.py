"""KTO and DPO by the real trainers, on the random Qwen3 of 0.1 M parameters after a short supervised training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.preferences import prompts
from inference.adapter_files import verify_adapter
from inference.base_model import load_base
from nocap.settings import PreferenceSettings
from retrain.preferences import Pair, Thumb
from retrain.train.preference import PreferencePlan, train_on_duels, train_on_thumbs
from retrain.train.rows import build_row
from retrain.train.sft import TrainingStopped, train_adapter
from tests.retrain.train.tiny import build_examples, build_plan

EXAMPLES = build_examples(32, seed=2)
GOOD, BAD = EXAMPLES[:16], [replace(one, reply="i am a large language model") for one in EXAMPLES[16:]]
THUMBS = [Thumb(number, one, number < 16) for number, one in enumerate([*GOOD, *BAD])]
PAIRS = [Pair(number, one, "i am a large language model", True) for number, one in enumerate(GOOD)]
QUICK = PreferenceSettings(kto_learning_rate=1e-2, dpo_learning_rate=1e-2, epochs=10)


@pytest.fixture(scope="module")
def supervised(tiny_base, tmp_path_factory):
    plan = build_plan(tiny_base, tmp_path_factory.mktemp("supervised"))
    train_adapter(plan, build_examples(40), (), progress=lambda *_: None, should_stop=lambda: False)
    return plan


def _plan(supervised, work: Path, settings: PreferenceSettings = QUICK) -> PreferencePlan:
    return PreferencePlan(
        base_path=supervised.base_path,
        quantization="nf4",
        device="cpu",
        system_prompt=supervised.system_prompt,
        name=supervised.name,
        start=supervised.output,
        output=work / "after",
        settings=settings,
        max_length=96,
        seed=7,
    )


def _train(train, plan, data, progress=lambda *_: None, should_stop=lambda: False):
    return train(plan, data, progress=progress, should_stop=should_stop)


def _loss(plan, folder, examples) -> float:
    """Mean nats per reply of `examples` with the adapter in `folder`."""
    from peft import PeftModel

    base = load_base(plan.base_path, quantization="nf4", device="cpu")
    model, total = PeftModel.from_pretrained(base.model, str(folder)), 0.0
    for example in examples:
        row = build_row(base.tokenizer, plan.system_prompt, example, 96)
        with torch.no_grad():
            total += model(torch.tensor([row.input_ids]), labels=torch.tensor([row.labels])).loss.item()
    return total / len(examples)


@pytest.mark.parametrize(("train", "data"), [(train_on_thumbs, THUMBS), (train_on_duels, PAIRS)])
def test_it_moves_from_what_was_disliked_towards_what_was_liked(supervised, tmp_path, train, data):
    plan = _plan(supervised, tmp_path)
    report = _train(train, plan, data)
    manifest = verify_adapter(plan.output, base_digest=None)
    assert (manifest.name, manifest.rank) == (plan.name, supervised.settings.rank)
    assert {path.name for path in tmp_path.iterdir()} == {"after"}
    before, after = (
        _loss(plan, folder, BAD[:8]) - _loss(plan, folder, GOOD[:8]) for folder in (plan.start, plan.output)
    )
    assert after > before + 0.2
    again = replace(plan, output=tmp_path / "again")
    assert _train(train, again, data).losses == report.losses
    assert verify_adapter(again.output, base_digest=None).digest == manifest.digest
    assert report.examples == len(data) and report.losses[-1][1] < report.losses[0][1]


@pytest.mark.parametrize(("train", "data"), [(train_on_thumbs, THUMBS), (train_on_duels, PAIRS)])
def test_training_starts_from_the_supervised_weights_to_the_last_bit(supervised, tmp_path, train, data):
    """trl rounds the adapter of a quantised base to bf16; a rate of next to nothing must leave it as it was."""
    plan = _plan(
        supervised, tmp_path, QUICK.model_copy(update={"kto_learning_rate": 1e-30, "dpo_learning_rate": 1e-30})
    )
    _train(train, plan, data)
    start, end = (load_file(folder / "adapter_model.safetensors") for folder in (plan.start, plan.output))
    assert start.keys() == end.keys()
    assert all(torch.equal(start[name], end[name]) for name in start)


def test_a_stopped_one_leaves_no_adapter(supervised, tmp_path):
    plan = _plan(supervised, tmp_path)
    with pytest.raises(TrainingStopped):
        _train(train_on_duels, plan, PAIRS, should_stop=lambda: True)
    assert not plan.output.exists()


def test_the_ablation_asks_different_prompts_and_none_of_those_that_judge():
    voted, judged = prompts("1:thumbs", 300), prompts("1:liking", 300, "held_out")
    assert len({one.prompt for one in voted}) > 200 and len({one.prompt for one in judged}) > 100
    assert prompts("1:thumbs", 300) == voted
    assert {one.prompt for one in voted}.isdisjoint(one.prompt for one in judged)
