"""Ours against what a user would write instead: peft and `transformers.Trainer` with padded batches.

`python -m benchmarks.training [--base FOLDER] [--quick] [--json]`. Both train the same rows of the same base in NF4, at
the same rate, for the same number of tokens, in turns; counted are tokens that are no padding, by seconds of the
process's CPU time, so that other work on the machine does not count. Where a GPU is at hand, the same is done on the
architecture of Qwen2.5-7B with random weights (its speed does not depend on them), by the clock.
"""

from __future__ import annotations

import argparse
import gc
import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import DataCollatorForSeq2Seq, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from benchmarks._report import Bar, publish
from inference.base_model import BaseModel, load_base
from nocap.demo import grammar
from nocap.domain import AdapterName, ChatMessage, MemberKey, MessageKey, Provenance
from nocap.settings import EMBEDDED_BASE, RetrainSettings
from retrain.cost import CostMeter, peak_bytes
from retrain.examples import Example
from retrain.train.rows import Row, build_rows
from retrain.train.sft import SftPlan, train_adapter

PROMPT = "You are the bot of this chat."
TURNS = (1, 1, 1, 2, 2, 3, 4, 6, 9)
"""Messages before a reply: a few long threads among many short ones, as in chat."""
FOUNDING_MINUTES, FOUNDING_MONEY = 120.0, (1.2, 3.5)
PUBLISHED = {
    "published: torchtune QLoRA 8B on a 4090, tokens/s": 2413.0,
    "published: torchtune QLoRA 8B, GiB": 7.4,
    "published: Unsloth LLaMA-2-7B, tokens/s": 3726.0,
    "published: Unsloth LLaMA-2-7B, GiB": 7.0,
}
QWEN_7B = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "max_position_embeddings": 32768,
}


@dataclass(frozen=True)
class Trained:
    tokens_per_second: float
    loss: float
    """Nats per reply token on held-out examples, after the training."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, default=EMBEDDED_BASE, help="a model folder; default the embedded base")
    parser.add_argument("--quick", action="store_true", help="one round instead of three")
    parser.add_argument("--json", action="store_true", dest="as_json")
    arguments = parser.parse_args()
    with TemporaryDirectory() as name:
        figures = compare(arguments.base, Path(name), rounds=1 if arguments.quick else 3, device="cpu")
        bars = {"tokens/s, ours over padded": Bar(1.8, at_most=False), "loss, ours over padded": Bar(1.02)}
        if torch.cuda.is_available():
            figures |= on_gpu(Path(name))
            bars |= {"gpu: peak GiB": Bar(7.5), "gpu: tokens/s, ours over padded": Bar(2.0, at_most=False)}
    publish("training", figures, bars, packages=("torch", "transformers", "trl", "peft"), as_json=arguments.as_json)


def compare(base: Path, folder: Path, *, rounds: int, device: str, **recipe: Any) -> dict[str, float]:
    """Both trainers in turns on the same rows; ratios by the median round."""
    values = {"learning_rate": 1e-3, "epochs": 1.0, "batch_examples": 16, "max_length": 1024} | recipe
    settings = RetrainSettings.model_validate(values)
    examples = chat(640 if device == "cpu" else 1500)
    train, held_out = examples[:-120], examples[-120:]
    ours, padded = [], []
    for number in range(rounds):
        ours.append(_ours(base, folder / f"ours-{number}", settings, train, held_out, device))
        padded.append(_padded(base, folder / f"padded-{number}", settings, train, held_out, device))
    speed = median(one.tokens_per_second / other.tokens_per_second for one, other in zip(ours, padded, strict=True))
    return {
        "tokens/s, ours": median(one.tokens_per_second for one in ours),
        "tokens/s, padded": median(one.tokens_per_second for one in padded),
        "tokens/s, ours over padded": speed,
        "loss, ours": ours[0].loss,
        "loss, padded": padded[0].loss,
        "loss, ours over padded": ours[0].loss / padded[0].loss,
    }


def on_gpu(folder: Path) -> dict[str, float]:
    """Peak memory, speed and the cost of 10,000 examples on the architecture of Qwen2.5-7B."""
    base = random_base(folder / "qwen-7b", **QWEN_7B)
    torch.cuda.reset_peak_memory_stats()
    meter = CostMeter(RetrainSettings())
    figures = {f"gpu: {name}": value for name, value in compare(base, folder, rounds=1, device="cuda", rank=8).items()}
    cost, tokens = meter.read(), sum(TURNS) / len(TURNS) * 40
    minutes = 10_000 * tokens / figures["gpu: tokens/s, ours"] / 60
    return figures | {
        "gpu: peak GiB": peak_bytes() / 2**30,
        "gpu: minutes for 10,000 examples": minutes,
        "gpu: kWh for 10,000 examples": cost.energy_joules / cost.seconds * minutes * 60 / 3.6e6,
        "gpu: money for 10,000 examples": minutes / 60 * RetrainSettings().price_per_hour,
        "founding run: minutes": FOUNDING_MINUTES,
        "founding run: money, from": FOUNDING_MONEY[0],
        "founding run: money, to": FOUNDING_MONEY[1],
        **PUBLISHED,
    }


def random_base(folder: Path, **sizes: int) -> Path:
    """A Qwen2 of these sizes with random weights and the embedded base's tokenizer."""
    from transformers import AutoModelForCausalLM, Qwen2Config

    config = Qwen2Config(tie_word_embeddings=False, dtype="bfloat16", **sizes)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(EMBEDDED_BASE / name, folder / name)
    gc.collect()
    return folder


def chat(count: int) -> list[Example]:
    """Replies in threads of chat's lengths, from the project's own grammar."""
    rng = random.Random(5)
    return [_example(rng, number) for number in range(count)]


def _example(rng: random.Random, number: int) -> Example:
    said = [grammar.answers(rng, 1)[0] for _ in range(rng.choice(TURNS))]
    turns = [ChatMessage(role, text) for one in said for role, text in (("user", one.prompt), ("assistant", one.reply))]
    return Example(
        messages=tuple(turns[:-1]),  # type: ignore[arg-type]
        reply=turns[-1].content,
        member=MemberKey(f"m{number % 50}"),
        sent_at=datetime(2026, 11, 1, tzinfo=UTC),
        message_keys=(MessageKey(f"k{number}"),),
        provenance=Provenance.OPERATOR_SEED,
    )


def _ours(
    base: Path,
    folder: Path,
    settings: RetrainSettings,
    train: Sequence[Example],
    held_out: Sequence[Example],
    device: Any,
) -> Trained:
    marks: list[float] = []
    plan = SftPlan(str(base), "nf4", device, PROMPT, AdapterName("bench-v1"), settings, folder / "a", folder / "c")
    report = train_adapter(plan, train, (), progress=lambda *_: marks.append(_now(device)), should_stop=lambda: False)
    gc.collect()
    return Trained(_speed(report.tokens, marks), _loss(base, plan.output, settings, held_out, device))


class _Marks(TrainerCallback):  # type: ignore[misc]
    def __init__(self, device: str) -> None:
        self._device = device
        self.times: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.times.append(_now(self._device))


def _now(device: str) -> float:
    """Seconds of CPU time on a CPU, of the clock on a card, which works beside the process."""
    return time.process_time() if device == "cpu" else time.perf_counter()


def _padded(
    base: Path,
    folder: Path,
    settings: RetrainSettings,
    train: Sequence[Example],
    held_out: Sequence[Example],
    device: Any,
) -> Trained:
    """The usual script: LoRA on the same 4-bit base, batches padded to their longest row, loss on the reply."""
    loaded = load_base(str(base), quantization="nf4", device=device)
    rows = _rows(loaded, settings, train)
    tokenizer = loaded.tokenizer
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    torch.manual_seed(settings.seed)
    lora = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    marks = _Marks(device)
    trainer = Trainer(
        model=get_peft_model(loaded.model, lora),
        args=TrainingArguments(
            output_dir=str(folder / "c"),
            num_train_epochs=settings.epochs,
            per_device_train_batch_size=settings.batch_examples,
            learning_rate=settings.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=0.1,
            weight_decay=0.0,
            seed=settings.seed,
            use_cpu=device == "cpu",
            bf16=device != "cpu",
            gradient_checkpointing=device != "cpu",
            dataloader_pin_memory=device != "cpu",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=[{"input_ids": row.input_ids, "labels": row.labels} for row in rows],
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        callbacks=[marks],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    trainer.model.save_pretrained(str(folder / "a"))
    gc.collect()
    return Trained(
        _speed(sum(map(len, rows)) * settings.epochs, marks.times),
        _loss(base, folder / "a", settings, held_out, device),
    )


def _speed(tokens: float, marks: Sequence[float]) -> float:
    """Tokens a second between the first and the last step."""
    return tokens * (len(marks) - 1) / len(marks) / (marks[-1] - marks[0])


def _rows(base: BaseModel, settings: RetrainSettings, examples: Sequence[Example]) -> list[Row]:
    return build_rows(base.tokenizer, PROMPT, examples, max_tokens=settings.max_length, seed=settings.seed)


def _loss(base: Path, adapter: Path, settings: RetrainSettings, examples: Sequence[Example], device: Any) -> float:
    loaded = load_base(str(base), quantization="nf4", device=device)
    model = PeftModel.from_pretrained(loaded.model, str(adapter)).eval()
    total, tokens = 0.0, 0
    for row in _rows(loaded, settings, examples):
        count = sum(label >= 0 for label in row.labels)
        with torch.no_grad():
            ids, labels = (torch.tensor([one], device=loaded.device) for one in (row.input_ids, row.labels))
            total += model(ids, labels=labels).loss.item() * count
        tokens += count
    gc.collect()
    return total / tokens


if __name__ == "__main__":
    main()
