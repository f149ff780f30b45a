from __future__ import annotations

import json
import math
import random
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from nocap.demo.build_base import Recipe, build_base, evaluate_on_topic, train_tokenizer
from nocap.demo.grammar import exchange
from nocap.settings import EMBEDDED_BASE

SYSTEM = "You are a friendly chat bot. Keep answers short."
SHORT = Recipe(batch_examples=16, warm_up_steps=20, tokenizer_exchanges=2000)


def test_the_shipped_folder_is_small_and_holds_what_a_loader_needs() -> None:
    files = {file.name: file.stat().st_size for file in EMBEDDED_BASE.iterdir()}
    assert sum(files.values()) <= 8 * 1024 * 1024
    assert set(files) == {
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_the_shipped_model_is_a_half_precision_qwen3_of_one_to_four_million_parameters() -> None:
    model = AutoModelForCausalLM.from_pretrained(EMBEDDED_BASE)
    assert type(model).__name__ == "Qwen3ForCausalLM"
    assert 1_000_000 <= sum(parameter.numel() for parameter in model.parameters()) <= 4_000_000
    assert {tensor.dtype for tensor in load_file(EMBEDDED_BASE / "model.safetensors").values()} == {torch.float16}


def test_every_linear_layer_of_the_shipped_model_fits_nf4_blocks() -> None:
    model = AutoModelForCausalLM.from_pretrained(EMBEDDED_BASE)
    layers = [layer for layer in model.model.modules() if isinstance(layer, torch.nn.Linear)]
    assert layers
    assert all(layer.in_features % 64 == 0 and layer.out_features % 64 == 0 for layer in layers)


def test_the_shipped_tokenizer_renders_chatml_and_encodes_any_text() -> None:
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED_BASE)
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "no cap 💀 ça va"},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
        "<|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\nno cap 💀 ça va<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<|endoftext|>", "<|im_end|>")
    assert ids.count(tokenizer.eos_token_id) == 4


def test_the_shipped_tokenizer_is_the_one_that_the_recipe_trains() -> None:
    fresh = json.loads(train_tokenizer(Recipe(), seed=1).backend_tokenizer.to_str())
    shipped = json.loads((EMBEDDED_BASE / "tokenizer.json").read_text(encoding="utf-8"))
    assert shipped["model"]["merges"] == fresh["model"]["merges"]


@pytest.mark.slow
@pytest.mark.parametrize(("system", "lower_case"), [(None, False), (SYSTEM, False), (SYSTEM, True)])
def test_the_shipped_model_answers_held_out_prompts_on_topic(system: str | None, lower_case: bool) -> None:
    found = evaluate_on_topic(EMBEDDED_BASE, prompts=100, seed=11, system=system, lower_case=lower_case)
    assert found.prompts == 100
    assert found.on_topic >= 80, [answer for answer in found.answers if not answer[2]]


def test_an_evaluation_is_repeatable_and_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    first = evaluate_on_topic(EMBEDDED_BASE, prompts=8, seed=2)
    assert first == evaluate_on_topic(EMBEDDED_BASE, prompts=8, seed=2)
    assert torch.equal(before, torch.get_rng_state())


def unigram_entropy(tokenizer: object, replies: int) -> float:
    """Nats per token that a model needs that knows only how frequent each token is."""
    rng = random.Random(5)
    texts = [exchange(rng).reply + "<|im_end|>" for _ in range(replies)]
    counts = Counter(token for ids in tokenizer(texts)["input_ids"] for token in ids)  # type: ignore[operator]
    total = sum(counts.values())
    return -sum(count / total * math.log(count / total) for count in counts.values())


@pytest.mark.slow
def test_a_short_build_learns_far_below_the_unigram_entropy(tmp_path: Path) -> None:
    seen: list[tuple[int, int, float]] = []
    out = tmp_path / "base"
    report = build_base(
        out,
        steps=150,
        seed=3,
        recipe=SHORT,
        evaluated_prompts=10,
        progress=lambda step, steps, loss: seen.append((step, steps, loss)),
    )
    entropy = unigram_entropy(AutoTokenizer.from_pretrained(out), 2000)
    assert report.first_loss > entropy
    assert report.last_loss < entropy - 0.8
    assert [step for step, _, _ in seen] == list(range(1, 151))
    assert report.bytes <= 8 * 1024 * 1024
    assert not (tmp_path / "base.partial").exists()


def test_the_same_seed_builds_the_same_weights_and_replaces_the_folder(tmp_path: Path) -> None:
    recipe = Recipe(batch_examples=4, tokenizer_exchanges=200, vocabulary=512)
    out = tmp_path / "base"
    weights = []
    for seed in (3, 3, 4):
        build_base(out, steps=2, seed=seed, recipe=recipe, evaluated_prompts=1)
        weights.append(load_file(out / "model.safetensors")["model.embed_tokens.weight"])
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
