"""llama.cpp itself loads what `export --format gguf-lora` writes, and says what transformers and PEFT say.

It is no dependency: it comes as source alone and takes a quarter of an hour to compile. `pip install llama-cpp-python`
in an environment of its own, and name that environment's Python in NOCAP_TEST_LLAMA_CPP.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from nocap.settings import EMBEDDED_BASE
from retrain.gguf_lora import write_gguf_lora
from retrain.train.sft import train_adapter
from tests.inference.server import tiny
from tests.retrain.train.tiny import build_examples, build_plan

gguf_base = pytest.importorskip("tests.retrain.gguf_base", reason="the package gguf is not installed")
PYTHON = os.environ.get("NOCAP_TEST_LLAMA_CPP") or (sys.executable if find_spec("llama_cpp") else None)
pytestmark = pytest.mark.skipif(PYTHON is None, reason="llama_cpp is not installed; NOCAP_TEST_LLAMA_CPP names none")

CLOSE = 1e-3
"""The largest difference of two logits, in standard deviations of the logits; both compute in float32."""
CLOSE_WITH_GELU = 5e-3
"""ggml takes Gemma's GELU from a table in half precision."""
Logits = list[NDArray[np.float32]]


def _llama_cpp(folder: Path, base: Path, lora: Path | None, prompts) -> Logits:
    asked, found = folder / "asked.json", folder / "logits.npz"
    asked.write_text(json.dumps({"model": str(base), "lora": lora and str(lora), "prompts": prompts}))
    script = Path(__file__).with_name("logits_of_llama_cpp.py")
    done = subprocess.run([PYTHON, script, asked, found], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with np.load(found) as logits:
        return [logits[f"arr_{number}"] for number in range(len(prompts))]


def _peft(base: Path, adapter: Path | None, prompts) -> Logits:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter)
    with torch.no_grad():
        return [model.eval()(torch.tensor([prompt])).logits[0].numpy() for prompt in prompts]


def _difference(left: Logits, right: Logits) -> float:
    spread = float(np.concatenate(right).std())
    return max(float(np.abs(one - other).max()) for one, other in zip(left, right, strict=True)) / spread


def _agree_on(base: Path, adapter: Path, folder: Path, close: float = CLOSE) -> None:
    """With and without `adapter`, which matters: it moves the logits far more than the two implementations differ."""
    prompts = [list(prompt) for prompt in tiny.random_prompts(6)]
    model = gguf_base.write_gguf_base(base, folder / "base.gguf")
    lora = folder / "lora.gguf"
    write_gguf_lora(adapter, base, lora)
    plain, adapted = _peft(base, None, prompts), _peft(base, adapter, prompts)
    found_plain, found_adapted = _llama_cpp(folder, model, None, prompts), _llama_cpp(folder, model, lora, prompts)
    differences = _difference(found_plain, plain), _difference(found_adapted, adapted), _difference(adapted, plain)
    print("base {:.1e}, with the adapter {:.1e}, of the adapter {:.1e}".format(*differences))
    assert max(differences[:2]) < close and differences[2] > 100 * close
    for found, wanted in zip(found_adapted, adapted, strict=True):
        assert found.argmax(axis=1).tolist() == wanted.argmax(axis=1).tolist()


@pytest.mark.parametrize(("targets", "rank", "alpha"), [("attention", 8, 4), ("all-linear", 4, 24)])
def test_an_adapter_trained_on_the_embedded_base_says_the_same_there(tmp_path, targets, rank, alpha):
    plan = build_plan(EMBEDDED_BASE, tmp_path, targets=targets, rank=rank, alpha=alpha, max_steps=6)
    train_adapter(plan, build_examples(40), [], progress=lambda *_: False, should_stop=lambda: False)
    _agree_on(EMBEDDED_BASE, plan.output, tmp_path)


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "llama", "mistral", "gemma2", "gemma3"])
def test_every_kind_of_base_that_is_written_is_understood(tmp_path, architecture):
    base = tiny.write_model(tmp_path / "base", architecture)
    if architecture == "gemma2":
        _tie_embeddings(base)
    adapter = tiny.write_adapter(base, tmp_path / "genz-v1", seed=1)
    _agree_on(base, adapter, tmp_path, CLOSE_WITH_GELU if architecture.startswith("gemma") else CLOSE)


def _tie_embeddings(base: Path) -> None:
    """llama.cpp knows Gemma 2 with tied embeddings alone, as Google's are."""
    config = json.loads((base / "config.json").read_text()) | {"tie_word_embeddings": True}
    (base / "config.json").write_text(json.dumps(config))
    weights = load_file(base / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
