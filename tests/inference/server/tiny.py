"""Tiny random models of real architectures, adapters for them, and transformers' own answers to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from inference.adapter_files import write_manifest
from inference.base_model import BaseModel, base_digest, load_base
from inference.server.generation import GenerationRequest
from nocap.domain import BASE, AdapterName, SamplingOptions

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CORPUS = ("the quick brown fox says hello to you and me", "what is up with school today", "no cap it slaps 😀 👍🏽 é")

_SIZES: dict[str, Any] = {
    "vocab_size": 600,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "initializer_range": 0.6,
    "tie_word_embeddings": False,
}
ARCHITECTURES: dict[str, Any] = {
    "qwen2": lambda: Qwen2Config(**_SIZES),
    "qwen2-window": lambda: Qwen2Config(**_SIZES, use_sliding_window=True, sliding_window=7, max_window_layers=1),
    "qwen3": lambda: Qwen3Config(**_SIZES),
    "llama": lambda: LlamaConfig(**_SIZES),
    "mistral": lambda: MistralConfig(**_SIZES, sliding_window=None),
    "mistral-window": lambda: MistralConfig(**_SIZES, sliding_window=7),
    "gemma2": lambda: Gemma2Config(**_SIZES, sliding_window=7, query_pre_attn_scalar=16),
    "gemma3": lambda: Gemma3TextConfig(
        **_SIZES,
        sliding_window=7,
        query_pre_attn_scalar=16,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
    ),
}


def write_tokenizer(folder: Path, *, template: str | None = CHATML) -> None:
    """A byte-level BPE of a few hundred tokens with ChatML's control tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", additional_special_tokens=["<|im_start|>"]
    )
    fast.chat_template = template
    fast.save_pretrained(folder)


def write_model(folder: Path, architecture: str = "qwen3", *, seed: int = 0, template: str | None = CHATML) -> Path:
    """A model with random weights, whose end token is out of the way so that replies have a length."""
    torch.manual_seed(seed)
    config = ARCHITECTURES[architecture]()
    config.eos_token_id = config.pad_token_id = config.bos_token_id = 1
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    write_tokenizer(folder, template=template)
    return folder


def load(folder: Path, quantization: Any = "none") -> BaseModel:
    return load_base(str(folder), quantization=quantization, device="cpu")


def write_adapter(base_folder: Path, folder: Path, *, seed: int, rank: int = 4, targets: Any = "all-linear") -> Path:
    """A LoRA with random A and B, saved by PEFT, with its manifest; `folder`'s name is the adapter's."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
    lora = get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets, task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, weight in lora.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.5)
    lora.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    write_manifest(folder, name=folder.name, base_digest=base_digest(str(base_folder)), rank=rank)
    return folder


def reference(base_folder: Path, prompts: Sequence[Sequence[int]], max_tokens: int, adapter: Path | None = None,
              quantization: Any = "none") -> list[list[int]]:  # fmt: skip
    """What transformers' `generate` (with PEFT, where there is an adapter) answers, one prompt at a time."""
    base = load(base_folder, quantization)
    model = base.model if adapter is None else PeftModel.from_pretrained(base.model, adapter)
    answers = []
    for prompt in prompts:
        ids_BT = torch.tensor([list(prompt)])
        out_BT = model.generate(
            input_ids=ids_BT,
            attention_mask=torch.ones_like(ids_BT),
            max_new_tokens=max_tokens,
            do_sample=False,
            eos_token_id=sorted(base.stop_token_ids),
            pad_token_id=1,
        )
        answers.append(out_BT[0, ids_BT.shape[1] :].tolist())
    return answers


def random_prompts(count: int, *, seed: int = 3, longest: int = 40) -> list[tuple[int, ...]]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest, (count,), generator=generator).tolist()
    return [tuple(torch.randint(2, 400, (length,), generator=generator).tolist()) for length in lengths]


def greedy(prompt: Sequence[int], adapter: str = BASE, max_tokens: int = 12) -> GenerationRequest:
    sampling = SamplingOptions(temperature=0, max_tokens=max_tokens)
    return GenerationRequest(AdapterName(adapter), sampling=sampling, prompt_token_ids=tuple(prompt))
