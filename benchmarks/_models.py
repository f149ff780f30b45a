"""Models with random weights and real shapes, adapters for them, and what they are asked: nothing to download."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PretrainedConfig, Qwen2Config, Qwen3Config

from inference.adapter_files import write_manifest
from inference.base_model import BaseModel, Device, Quantization, base_digest, load_base
from nocap.domain import BASE, AdapterName
from nocap.settings import EMBEDDED_BASE

_QWEN3: Mapping[str, tuple[int, int, int, int]] = {
    "6M": (256, 768, 7, 4),
    "30M": (512, 1536, 9, 8),
    "150M": (1024, 3072, 12, 16),
}
"""Hidden size, intermediate size, layers, heads (half as many for keys and values), as Qwen3 has them."""


@dataclass(frozen=True)
class Job:
    """One request: its prompt, how long the reply is, and who answers."""

    prompt: tuple[int, ...]
    max_tokens: int
    adapter: AdapterName = BASE


def qwen3(size: str) -> Qwen3Config:
    hidden, intermediate, layers, heads = _QWEN3[size]
    return Qwen3Config(
        vocab_size=2048,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        head_dim=64,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )


def qwen2_7b() -> Qwen2Config:
    """The shapes of Qwen2.5-7B-Instruct, from its published config.json."""
    return Qwen2Config(
        vocab_size=152_064,
        hidden_size=3584,
        intermediate_size=18_944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        max_position_embeddings=32_768,
        tie_word_embeddings=False,
    )


def write_random_model(config: PretrainedConfig, folder: Path, device: str = "cpu") -> Path:
    """A model folder with the embedded base's tokenizer; on a GPU in bf16, drawn there."""
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32 if device == "cpu" else torch.bfloat16)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(EMBEDDED_BASE).save_pretrained(folder)
    return folder


def load_endless(folder: Path, quantization: Quantization = "none", device: Device = "cpu") -> BaseModel:
    """The model, whose replies end at their length alone."""
    base = load_base(str(folder), quantization=quantization, device=device)
    base.model.generation_config.eos_token_id = None
    return replace(base, stop_token_ids=frozenset())


def write_random_adapter(base: BaseModel, base_folder: Path, folder: Path, *, seed: int, rank: int = 8) -> Path:
    """A LoRA on every linear layer whose answers are not the base's."""
    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    lora = get_peft_model(base.model, config)
    with torch.no_grad():
        for name, weight in lora.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.05)
    lora.save_pretrained(folder)
    lora.unload()
    (folder / "README.md").unlink(missing_ok=True)
    write_manifest(folder, name=folder.name, base_digest=base_digest(str(base_folder)), rank=rank)
    return folder


def chat_jobs(count: int, *, seed: int, words: int = 0, system_tokens: int = 120, longest_reply: int = 96) -> list[Job]:
    """Chat messages of 8 to 40 random tokens behind one system prompt, with replies of 8 to `longest_reply` tokens.

    The defaults are those of the chat settings: a system prompt with 120 tokens of glossary, replies of at most 96.
    `seed` draws the lengths; other `words` say other things in messages of the same lengths, behind the same prompt.
    """
    system = _random_tokens(random.Random("system prompt"), system_tokens)
    lengths, tokens = random.Random(seed), random.Random(f"{seed} {words}")
    jobs = []
    for _ in range(count):
        message, reply = lengths.randint(8, 40), lengths.randint(min(8, longest_reply), longest_reply)
        jobs.append(Job(system + _random_tokens(tokens, message), reply))
    return jobs


def _random_tokens(rng: random.Random, count: int) -> tuple[int, ...]:
    return tuple(rng.randrange(10, 2000) for _ in range(count))


def answered_by(jobs: list[Job], *adapters: str) -> list[Job]:
    """The same requests, to these adapters in turn."""
    return [replace(job, adapter=AdapterName(adapters[turn % len(adapters)])) for turn, job in enumerate(jobs)]


def parameters(model: Any) -> int:
    return sum(weight.numel() for weight in model.parameters())
