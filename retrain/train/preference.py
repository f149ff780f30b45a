"""Preference training after the supervised one: KTO from thumbs, DPO from duels, by trl's trainers.

Both start from a finished adapter and hold it to what it was: its frozen copy is the reference. Rows are tokens of
`inference.prompt.render_reply`, as everywhere (docs/decisions/0050-preferences.md).
"""

from __future__ import annotations

import math
import random
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel, load_peft_weights, set_peft_model_state_dict
from transformers.trainer_callback import PrinterCallback
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

from inference.adapter_files import read_manifest
from inference.base_model import BaseModel, Device, Quantization, load_base
from nocap.domain import AdapterName
from nocap.settings import PreferenceSettings
from retrain.examples import Example
from retrain.preferences import Pair, Thumb, label_weights
from retrain.train.publish import publish_adapter
from retrain.train.rows import build_row
from retrain.train.sft import ProgressReport, TrainReport, Watch

BATCH_EXAMPLES = 16
GPU_MICRO_BATCH = 4
"""KTO needs more than one row at a time: it takes a batch's mismatched replies for its estimate of the divergence."""
WARM_UP_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class PreferencePlan:
    """Which adapter goes on from where."""

    base_path: str
    quantization: Quantization
    device: Device
    system_prompt: str
    name: AdapterName
    start: Path
    """A finished adapter, which stays as it is."""
    output: Path
    settings: PreferenceSettings
    max_length: int
    """Tokens of one row."""
    seed: int


class _OwnRows:
    """Takes rows that are tokens already, tells nobody, and writes no card."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def _send_telemetry(self) -> None:
        pass

    def create_model_card(self, *_: Any, **__: Any) -> None:
        pass


class _KtoTrainer(_OwnRows, KTOTrainer):  # type: ignore[misc]
    pass


class _DpoTrainer(_OwnRows, DPOTrainer):  # type: ignore[misc]
    pass


def train_on_thumbs(
    plan: PreferencePlan, thumbs: Sequence[Thumb], *, progress: ProgressReport, should_stop: Callable[[], bool]
) -> TrainReport:
    """KTO (Ethayarajh et al. 2024): towards what members liked, away from what they disliked or found cringe.

    The same plan and thumbs give the same adapter on the same machine. Raises as `train_adapter` does.
    """
    base = _load(plan)
    rows = [_tokens(base, plan, one.example) | {"label": one.is_good} for one in thumbs]
    fitting = _shuffled([row for row in rows if "prompt_ids" in row], plan.seed)
    micro = _micro_batch(base, len(fitting))
    whole = len(fitting) - (len(fitting) % micro == 1)
    good, bad = label_weights(thumbs)
    return _train(
        plan,
        base,
        _KtoTrainer,
        KTOConfig(
            **_arguments(plan, base, micro, whole, plan.settings.kto_learning_rate),
            desirable_weight=good,
            undesirable_weight=bad,
        ),
        _with_mismatched(fitting[:whole], micro),
        left_out=len(thumbs) - whole,
        watch=Watch(progress, should_stop),
    )


def train_on_duels(
    plan: PreferencePlan, pairs: Sequence[Pair], *, progress: ProgressReport, should_stop: Callable[[], bool]
) -> TrainReport:
    """DPO (Rafailov et al. 2023) with a supervised term on the winners, so that their likelihood never sinks."""
    base = _load(plan)
    rows = []
    for pair in pairs:
        chosen = _tokens(base, plan, pair.chosen)
        rejected = _tokens(base, plan, pair.chosen, pair.rejected)
        if chosen and rejected:
            rows.append(
                {
                    "prompt_ids": chosen["prompt_ids"],
                    "chosen_ids": chosen["completion_ids"],
                    "rejected_ids": rejected["completion_ids"],
                }
            )
    micro = _micro_batch(base, len(rows))
    return _train(
        plan,
        base,
        _DpoTrainer,
        DPOConfig(
            **_arguments(plan, base, micro, len(rows), plan.settings.dpo_learning_rate), loss_type=["sigmoid", "sft"]
        ),
        _shuffled(rows, plan.seed),
        left_out=len(pairs) - len(rows),
        watch=Watch(progress, should_stop),
    )


def _load(plan: PreferencePlan) -> BaseModel:
    return load_base(plan.base_path, quantization=plan.quantization, device=plan.device)


def _tokens(base: BaseModel, plan: PreferencePlan, example: Example, reply: str | None = None) -> dict[str, Any]:
    """Prompt and reply as tokens; nothing where they do not fit."""
    asked = example if reply is None else Example(
        example.messages, reply, example.member, example.sent_at, example.message_keys, example.provenance
    )  # fmt: skip
    row = build_row(base.tokenizer, plan.system_prompt, asked, min(plan.max_length, base.max_length))
    if row is None:
        return {}
    starts = next(index for index, label in enumerate(row.labels) if label >= 0)
    return {"prompt_ids": row.input_ids[:starts], "completion_ids": row.input_ids[starts:]}


def _shuffled(rows: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    return random.Random(seed).sample(rows, len(rows))


def _with_mismatched(rows: list[dict[str, Any]], micro: int) -> list[dict[str, Any]]:
    """Each row with the reply of its neighbour in the batch, as KTO's estimate of the divergence wants it."""
    batches = [rows[start : start + micro] for start in range(0, len(rows), micro)]
    return [
        row | {"KL_completion_ids": batch[index - 1]["completion_ids"]}
        for batch in batches
        for index, row in enumerate(batch)
    ]


def _micro_batch(base: BaseModel, rows: int) -> int:
    return max(1, min(BATCH_EXAMPLES if base.device == "cpu" else GPU_MICRO_BATCH, rows))


def _arguments(plan: PreferencePlan, base: BaseModel, micro: int, rows: int, rate: float) -> dict[str, Any]:
    on_cpu = base.device == "cpu"
    accumulation = max(1, BATCH_EXAMPLES // micro)
    return {
        "output_dir": str(plan.output.parent / f".{plan.output.name}.trainer"),
        "max_steps": max(1, round(plan.settings.epochs * rows / (micro * accumulation))),
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": accumulation,
        "learning_rate": rate,
        "beta": plan.settings.beta,
        "lr_scheduler_type": "cosine",
        "warmup_steps": WARM_UP_SHARE,
        "weight_decay": 0.0,
        "seed": plan.seed,
        "max_length": plan.max_length,
        "train_sampling_strategy": "sequential",
        "use_cpu": on_cpu,
        "bf16": not on_cpu,
        "gradient_checkpointing": not on_cpu,
        "dataloader_pin_memory": not on_cpu,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def _train(
    plan: PreferencePlan,
    base: BaseModel,
    trainer_class: type[Any],
    arguments: Any,
    rows: list[dict[str, Any]],
    *,
    left_out: int,
    watch: Watch,
) -> TrainReport:
    started = time.monotonic()
    trainer = trainer_class(
        model=PeftModel.from_pretrained(base.model, str(plan.start), is_trainable=True),
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=base.tokenizer,
        callbacks=[watch],
    )
    trainer.remove_callback(PrinterCallback)
    _restore(trainer.model, plan.start)
    trainer.train()
    shutil.rmtree(arguments.output_dir, ignore_errors=True)
    publish_adapter(trainer.model, plan.output, name=plan.name, base=base, rank=read_manifest(plan.start).rank)
    losses = [(line["step"], line["loss"]) for line in trainer.state.log_history if "loss" in line]
    seen = trainer.state.global_step * arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
    tokens = sum(len(part) for row in rows for name, part in row.items() if name.endswith("_ids") and name[:2] != "KL")
    return TrainReport(
        steps=trainer.state.global_step,
        losses=tuple(losses),
        validation_losses=(),
        tokens=math.ceil(tokens * seen / len(rows)),
        examples=len(rows),
        too_long=left_out,
        seconds=time.monotonic() - started,
    )


def _restore(model: PeftModel, start: Path) -> None:
    """Gives adapter and reference the stored weights in full precision again: trl has rounded them to bf16."""
    for name, weight in model.named_parameters():
        if ".default." in name or ".ref." in name:
            weight.data = weight.data.to(torch.float32)
    weights = load_peft_weights(str(start), device="cpu")
    for adapter in ("default", "ref"):
        set_peft_model_state_dict(model, weights, adapter_name=adapter)
