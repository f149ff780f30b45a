"""A random Qwen3 small enough to train in a second, with the embedded base's tokenizer, and examples for it."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from nocap.domain import AdapterName, ChatMessage, MemberKey, MessageKey, Provenance
from nocap.settings import EMBEDDED_BASE, RetrainSettings
from retrain.examples import Example
from retrain.train.sft import SftPlan

TOPICS = ("school", "pizza", "music", "rain", "the exam", "my dog")
RECIPE = RetrainSettings(rank=4, alpha=8, learning_rate=3e-2, max_steps=14, batch_examples=4, max_length=96)


def build_tiny_base(folder: Path) -> Path:
    """A model folder of about 0.1 M random parameters."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(EMBEDDED_BASE)
    config.hidden_size, config.intermediate_size, config.head_dim = 64, 128, 16
    config.num_hidden_layers, config.layer_types = 2, ["full_attention", "full_attention"]
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(EMBEDDED_BASE / name, folder / name)
    return folder


def build_examples(count: int, seed: int = 0) -> list[Example]:
    draw = random.Random(seed)
    return [_example(index, draw.choice(TOPICS), draw.randint(1, 30)) for index in range(count)]


def _example(index: int, topic: str, number: int) -> Example:
    return Example(
        messages=(ChatMessage("user", f"what do you think of {topic}?"),),
        reply=f"no cap {topic} is fire, {number} out of 30",
        member=MemberKey(f"member-{index % 7}"),
        sent_at=datetime(2026, 11, 1, tzinfo=UTC),
        message_keys=(MessageKey(f"prompt-{index}"), MessageKey(f"reply-{index}")),
        provenance=Provenance.TELEGRAM_SUBMISSION,
    )


def build_plan(base: Path, work: Path, **recipe: object) -> SftPlan:
    return SftPlan(
        base_path=str(base),
        quantization="nf4",
        device="cpu",
        system_prompt="You are the bot of this chat.",
        name=AdapterName("genz-v1"),
        settings=RECIPE.model_copy(update=recipe),
        output=work / "adapters" / "genz-v1",
        checkpoints=work / "checkpoints",
    )


def as_synthetic(example: Example) -> Example:
    return replace(example, provenance=Provenance.SYNTHETIC)
