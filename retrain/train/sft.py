"""QLoRA supervised fine-tuning of one adapter by trl's SFTTrainer, always from the base model.

Why the trainer is set up this way stands in docs/decisions/0003-training-stack.md.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from torch.nn.functional import cross_entropy
from transformers import TrainerCallback, TrainerState
from transformers.trainer_callback import PrinterCallback
from trl import SFTConfig, SFTTrainer
from trl.data_utils import pack_dataset

from inference.base_model import BaseModel, Device, Quantization, load_base
from nocap.domain import AdapterName, Provenance
from nocap.errors import RunError
from nocap.settings import RetrainSettings
from retrain.examples import Example
from retrain.train.checkpoints import fingerprint, latest_complete, mark_complete
from retrain.train.guard import LossGuard
from retrain.train.publish import publish_adapter
from retrain.train.rows import IGNORED, Batching, Row, build_rows, plan_batching

ATTENTION_BLOCKS = frozenset({"self_attn", "self_attention", "attention", "attn"})
"""What the supported architectures call the module that holds the attention's projections."""
CPU_ROW_TOKENS = 512
"""On a CPU a packed row costs its square in attention (36 % of a step at 935 tokens, 12 % at 256)."""
WARM_UP_SHARE = 0.1
OVERFIT_RATIO = 1.01
"""A validation loss this much above the lowest one ends the training: more would only be learnt by heart."""
VALIDATIONS = 4
"""Passes over the validation split in a training, besides the one before it."""
SAVES = 10
MIN_SAVE_STEPS, MAX_SAVE_STEPS = 10, 200

ProgressReport = Callable[[int, int, float], None]
"""Called with the step, the number of steps and the step's loss in nats per token."""


class TrainingStopped(RunError):
    """`should_stop` said so."""


@dataclass(frozen=True, slots=True)
class SftPlan:
    """What to train, on which base, and where to."""

    base_path: str
    quantization: Quantization
    device: Device
    system_prompt: str
    name: AdapterName
    settings: RetrainSettings
    output: Path
    """The adapter's folder: written beside and renamed into place, so that it is whole or absent."""
    checkpoints: Path


@dataclass(frozen=True, slots=True)
class TrainReport:
    """How a training went; losses are (step, nats per reply token)."""

    steps: int
    losses: tuple[tuple[int, float], ...]
    validation_losses: tuple[tuple[int, float], ...]
    tokens: int
    """Trained on, prompts included, over all epochs."""
    examples: int
    too_long: int
    """Examples left out because prompt and reply exceed `max_length` tokens."""
    seconds: float
    """Of this process; a resumed training counts from its checkpoint."""


def train_adapter(
    plan: SftPlan,
    train: Sequence[Example],
    validation: Sequence[Example],
    *,
    progress: ProgressReport,
    should_stop: Callable[[], bool],
) -> TrainReport:
    """Trains `plan.name` and leaves its verified folder at `plan.output`, resuming from the last whole checkpoint.

    The same plan and examples give the same adapter on the same machine. Synthetic examples do not name the
    checkpoint, since they are made anew after a restart. Raises RunError where nothing fits `max_length` or the
    loss breaks down, TrainingStopped once `should_stop` is true, ModelError where the base cannot be loaded.
    """
    started = time.monotonic()
    settings = plan.settings
    base = load_base(plan.base_path, quantization=plan.quantization, device=plan.device)
    max_tokens = min(settings.max_length, base.max_length)
    rows = build_rows(base.tokenizer, plan.system_prompt, train, max_tokens=max_tokens, seed=settings.seed)
    if not rows:
        raise RunError(f"None of {len(train)} examples fits into {max_tokens} tokens; raise `retrain.max_length`.")
    held_out = build_rows(base.tokenizer, plan.system_prompt, validation, max_tokens=max_tokens, seed=settings.seed)
    checkpoints = _checkpoint_folder(plan, base, train, max_tokens)
    watch = Watch(progress, should_stop)
    trainer = _trained_within_memory(plan, base, rows, held_out, checkpoints, watch)
    if trainer.is_world_process_zero():
        model = trainer.accelerator.unwrap_model(trainer.model)
        publish_adapter(model, plan.output, name=plan.name, base=base, rank=settings.rank)
    return _report(trainer, rows, too_long=len(train) - len(rows), seconds=time.monotonic() - started)


def _trained_within_memory(
    plan: SftPlan, base: BaseModel, rows: Sequence[Row], held_out: Sequence[Row], checkpoints: Path, watch: Watch
) -> _Trainer:
    """The trainer, done; where memory runs out it starts over with half the tokens at once and the same batch."""
    limit, longest = _row_limit(plan.settings, base.device), max(map(len, rows))
    batching: Batching | None = plan_batching(rows, batch_examples=plan.settings.batch_examples, max_length=limit)
    while batching is not None:
        folder = checkpoints / f"rows-of-{batching.row_tokens}"
        trainer = _build_trainer(plan, base, rows, held_out, folder, watch, batching)
        try:
            _run(trainer, latest_complete(folder))
        except (torch.OutOfMemoryError, MemoryError):
            if _processes() > 1:  # the others wait for this one's gradients
                break
            batching = batching.halved(longest)
        else:
            return trainer
        del trainer
        base = _load_again(plan)
    raise RunError("The memory is too small for one example at a time; lower `retrain.max_length` or `retrain.rank`.")


def _row_limit(settings: RetrainSettings, device: str) -> int:
    return min(settings.max_length, CPU_ROW_TOKENS) if device == "cpu" else settings.max_length


def _load_again(plan: SftPlan) -> BaseModel:
    """The base anew, once what ran out of memory is freed: the adapter was built into the one before."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return load_base(plan.base_path, quantization=plan.quantization, device=plan.device)


def _run(trainer: _Trainer, checkpoint: Path | None) -> None:
    """Trains from `checkpoint` on; a finished one is only loaded, since the trainer would add a step to it."""
    if checkpoint is None:
        trainer.train()
        return
    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    if state.global_step < trainer.args.max_steps:
        trainer.train(resume_from_checkpoint=str(checkpoint))
    else:
        trainer._load_from_checkpoint(str(checkpoint))
        trainer.state = state


class _Trainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer that tells nobody, marks whole checkpoints, and on a CPU projects reply positions only."""

    def _send_telemetry(self) -> None:
        pass

    def create_model_card(self, *_: Any, **__: Any) -> None:
        pass

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.args.should_save:
            mark_complete(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}")

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        if self.args.device.type != "cpu" or return_outputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = inputs.pop("labels")
        scored = (labels[0, 1:] != IGNORED).nonzero().squeeze(1)
        logits = model(**inputs, logits_to_keep=scored, use_cache=False).logits[0]
        total = cross_entropy(logits.float(), labels[0, scored + 1], reduction="sum")
        if num_items_in_batch is None:
            return total / len(scored)
        # The count is over all processes, whose gradients are averaged.
        return total / num_items_in_batch * self.accelerator.num_processes


class Watch(TrainerCallback):  # type: ignore[misc]
    """Reports each step, stops on request, and stops a training that breaks down."""

    def __init__(self, progress: ProgressReport, should_stop: Callable[[], bool]) -> None:
        self._progress = progress
        self._should_stop = should_stop
        self._guard = LossGuard()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._should_stop():
            raise TrainingStopped(f"Training was stopped at step {state.global_step} of {state.max_steps}.")

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stops where the validation loss has begun to rise; resumed trainings see the same history."""
        losses = [line["eval_loss"] for line in state.log_history if "eval_loss" in line]
        if losses and losses[-1] > OVERFIT_RATIO * min(losses):
            control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self._guard.check(state.global_step, logs["loss"], logs.get("grad_norm"))
            self._progress(state.global_step, state.max_steps, logs["loss"])


def _build_trainer(
    plan: SftPlan,
    base: BaseModel,
    rows: Sequence[Row],
    held_out: Sequence[Row],
    checkpoints: Path,
    watch: Watch,
    batching: Batching,
) -> _Trainer:
    packed = _packed(rows, batching.row_tokens)
    trainer = _Trainer(
        model=base.model,
        args=_arguments(plan.settings, base.device, batching, len(packed), bool(held_out), checkpoints),
        train_dataset=packed,
        eval_dataset=_packed(held_out, batching.row_tokens) if held_out else None,
        processing_class=base.tokenizer,
        peft_config=_lora(plan.settings, base.model),
        callbacks=[watch],
    )
    trainer.remove_callback(PrinterCallback)
    for weight in trainer.model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.to(torch.float32)
    return trainer


def _packed(rows: Sequence[Row], row_tokens: int) -> Dataset:
    longest = max(row_tokens, max(len(row) for row in rows))
    return pack_dataset(Dataset.from_list([asdict(row) for row in rows]), longest, "bfd")


def _lora(settings: RetrainSettings, model: torch.nn.Module) -> LoraConfig:
    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=0.0,
        target_modules="all-linear" if settings.targets == "all-linear" else _attention_layers(model),
        task_type="CAUSAL_LM",
    )


def _attention_layers(model: torch.nn.Module) -> list[str]:
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and ATTENTION_BLOCKS & set(name.split(".")[:-1])
    ]


def _arguments(
    settings: RetrainSettings, device: str, batching: Batching, packed_rows: int, validate: bool, checkpoints: Path
) -> SFTConfig:
    at_once = max(1, round(batching.rows_per_step / _processes()))
    rows_per_step = at_once * _processes()
    steps = settings.max_steps or max(1, round(settings.epochs * packed_rows / rows_per_step))
    on_cpu = device == "cpu"
    return SFTConfig(
        output_dir=str(checkpoints),
        max_steps=steps,
        per_device_train_batch_size=1,
        per_device_eval_batch_size=1,
        gradient_accumulation_steps=at_once,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=WARM_UP_SHARE,
        weight_decay=0.0,
        seed=settings.seed,
        max_length=batching.row_tokens,
        packing=True,
        packing_strategy="bfd",
        dataset_kwargs={"skip_prepare_dataset": True},
        use_cpu=on_cpu,
        bf16=not on_cpu,
        gradient_checkpointing=not on_cpu,
        dataloader_pin_memory=not on_cpu,
        logging_steps=1,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if validate else "no",
        eval_steps=max(1, steps // VALIDATIONS),
        eval_on_start=validate,
        prediction_loss_only=True,
        save_strategy="steps",
        save_steps=min(MAX_SAVE_STEPS, max(MIN_SAVE_STEPS, steps // SAVES)),
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
    )


def _processes() -> int:
    """How many processes train together, as accelerate's launcher says (see `several.py`)."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def _checkpoint_folder(plan: SftPlan, base: BaseModel, train: Sequence[Example], max_tokens: int) -> Path:
    lasting = [example for example in train if example.provenance is not Provenance.SYNTHETIC]
    rows = build_rows(base.tokenizer, plan.system_prompt, lasting, max_tokens=max_tokens, seed=plan.settings.seed)
    return plan.checkpoints / fingerprint(plan.settings.model_dump(mode="json"), base.digest, rows)


def _report(trainer: _Trainer, rows: Sequence[Row], *, too_long: int, seconds: float) -> TrainReport:
    history = trainer.state.log_history
    return TrainReport(
        steps=trainer.state.global_step,
        losses=tuple((line["step"], line["loss"]) for line in history if "loss" in line),
        validation_losses=tuple((line["step"], line["eval_loss"]) for line in history if "eval_loss" in line),
        tokens=round(trainer.state.epoch * sum(len(row) for row in rows)),
        examples=len(rows),
        too_long=too_long,
        seconds=seconds,
    )
