"""An adapter as llama.cpp's LoRA file: `adapter.lora.alpha`, and `lora_a`, `lora_b` under llama.cpp's tensor names.

llama.cpp's own converter is no package, so this writes what that converter writes, by the `gguf` package's name maps
(docs/decisions/0092-adapters-out-and-in.md).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.adapter_files import CONFIG, WEIGHTS
from nocap.errors import AdapterError, ConfigurationError

ARCHITECTURES: Mapping[str, str] = {
    "qwen2": "QWEN2",
    "qwen3": "QWEN3",
    "llama": "LLAMA",
    "mistral": "LLAMA",
    "gemma2": "GEMMA2",
    "gemma3_text": "GEMMA3",
}
"""By transformers' `model_type`, the `gguf.MODEL_ARCH` whose linear layers llama.cpp stores as they are."""
ROTATED = ("llama", "mistral")
"""llama.cpp orders the rows of these models' query and key projections as its own rotary embedding wants them."""
_PREFIX = "base_model.model."


def write_gguf_lora(adapter: Path, base: Path, output: Path) -> None:
    """Writes the PEFT folder `adapter` of the model folder `base` to the new file `output`, in float32.

    Raises ConfigurationError without the package `gguf`, AdapterError for an architecture or a layer that has no
    place in llama.cpp.
    """
    try:
        import gguf
    except ImportError as error:
        raise ConfigurationError(
            "Writing GGUF needs the package gguf, which the extra `model` brings; install it."
        ) from error
    from safetensors.numpy import load_file

    model, lora = (json.loads(file.read_text(encoding="utf-8")) for file in (base / "config.json", adapter / CONFIG))
    kind = str(model.get("model_type"))
    if kind not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise AdapterError(f"There is no GGUF LoRA for bases of the kind {kind} here, only for {known}; use peft.")
    architecture = getattr(gguf.MODEL_ARCH, ARCHITECTURES[kind])
    names = gguf.get_tensor_name_map(architecture, model["num_hidden_layers"])
    writer = gguf.GGUFWriter(output, gguf.MODEL_ARCH_NAMES[architecture])
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, _alpha(lora))
    for layer, half, weights in _halves(load_file(adapter / WEIGHTS)):
        name = names.get_name(layer)
        if name is None:
            raise AdapterError(f"llama.cpp knows no tensor for {layer}, which it changes; export peft instead.")
        writer.add_tensor(f"{name}.weight.lora_{half}", _placed(weights, layer, half, kind, model))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _alpha(lora: Mapping[str, Any]) -> float:
    """llama.cpp scales every layer by one alpha over the layer's rank, whatever PEFT was told."""
    if lora.get("alpha_pattern") or (lora.get("use_rslora") and lora.get("rank_pattern")):
        raise AdapterError("llama.cpp has one alpha for all layers, and this adapter has several; export peft instead.")
    alpha, rank = float(lora["lora_alpha"]), int(lora["r"])
    return alpha * rank**0.5 if lora.get("use_rslora") else alpha


def _halves(tensors: Mapping[str, NDArray[Any]]) -> Iterator[tuple[str, str, NDArray[np.float32]]]:
    """Layer, `a` or `b`, and the weights: A as [rank, in], B as [out, rank], as llama.cpp has them too."""
    for key in sorted(tensors):
        layer, separator, rest = key.removeprefix(_PREFIX).rpartition(".lora_")
        if not separator or rest not in ("A.weight", "B.weight"):
            raise AdapterError(f"{key} is no weight of a plain LoRA; export peft instead.")
        yield layer, rest[0].lower(), tensors[key].astype(np.float32)


def _placed(
    weights: NDArray[np.float32], layer: str, half: str, kind: str, model: Mapping[str, Any]
) -> NDArray[np.float32]:
    if half == "a" or kind not in ROTATED or not layer.endswith(("q_proj", "k_proj")):
        return weights
    heads = model["num_attention_heads"] if layer.endswith("q_proj") else model["num_key_value_heads"]
    rows, rank = weights.shape
    halves_apart = weights.reshape(heads, 2, rows // heads // 2, rank)
    return np.ascontiguousarray(halves_apart.swapaxes(1, 2).reshape(rows, rank))
