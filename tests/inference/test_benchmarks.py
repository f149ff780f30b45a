"""The benchmarks' own code, tiny: every system answers alike, and every figure that has a bar is there."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen3Config

from benchmarks import _gpu
from benchmarks._models import qwen2_7b, qwen3
from benchmarks.inference import BARS, Scale, measure

_SIZES = {
    "vocab_size": 2048,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 1024,
}


def test_the_benchmark_measures_every_figure_with_a_bar(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    scale = Scale(requests=6, rounds=1, arrivals=4, turns=2, longest_reply=10)
    figures = {f"30M_{name}": figure for name, figure in measure(Qwen3Config(**_SIZES), scale, tmp_path)}
    assert set(BARS) - set(figures) == {"router_cpu_ms_p95"}
    assert figures["30M_answers_unlike_generate"] == 0
    assert 0 < figures["30M_chat_prefilled_with_cache_over_without"] < 1


def test_the_code_for_a_gpu_runs_on_a_cpu(tmp_path: Path) -> None:
    figures = _gpu.measure(Qwen2Config(**_SIZES), "cpu", (1, 2), 1, tmp_path, longest_reply=6)
    for name in ("bf16_1_ours_tokens_per_second", "nf4_2_two_adapters_over_none", "nf4_2_share_of_physical_limit"):
        assert figures[name] > 0
    assert figures["nf4_weights_gib"] < figures["bf16_weights_gib"]


def test_the_shapes_are_the_sizes_they_are_named_after() -> None:
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    configs = {"6M": qwen3("6M"), "30M": qwen3("30M"), "150M": qwen3("150M"), "7B": qwen2_7b()}
    for name, millions in (("6M", 6), ("30M", 29), ("150M", 153), ("7B", 7616)):
        with init_empty_weights():
            model = AutoModelForCausalLM.from_config(configs[name])
        model.tie_weights()
        assert round(sum(weight.numel() for weight in model.parameters()) / 1e6) == millions
