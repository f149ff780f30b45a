"""A base as llama.cpp's own converter writes it, but for its vocabulary: the tests give token ids."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file

from retrain.gguf_lora import ARCHITECTURES, ROTATED


def write_gguf_base(base: Path, output: Path) -> Path:
    """`output`, now the model folder `base` in float32 with `vocab_size` tokens that have no text."""
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    kind = config["model_type"]
    architecture = getattr(gguf.MODEL_ARCH, ARCHITECTURES[kind])
    names = gguf.get_tensor_name_map(architecture, config["num_hidden_layers"])
    writer = gguf.GGUFWriter(output, gguf.MODEL_ARCH_NAMES[architecture])
    _write_shape(writer, config)
    for key, tensor in load_file(base / "model.safetensors").items():
        name = names.get_name(key, try_suffixes=(".weight", ".bias"))
        assert name is not None, f"{key} has no place in {kind}"
        weights = tensor.float().numpy()
        if kind.startswith("gemma") and name.endswith("norm.weight"):
            weights = weights + 1
        if kind in ROTATED and key.endswith(("q_proj.weight", "k_proj.weight")):
            weights = _rotated(weights, config["num_attention_heads" if "q_proj" in key else "num_key_value_heads"])
        writer.add_tensor(name, weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return output


def _write_shape(writer: gguf.GGUFWriter, config: Mapping[str, Any]) -> None:
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    head_size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    writer.add_rope_dimension_count(head_size)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    rope = config["rope_parameters"]
    writer.add_rope_freq_base(rope.get("full_attention", rope)["rope_theta"])
    if config["model_type"].startswith("gemma"):
        writer.add_sliding_window(config["sliding_window"])
    if config["model_type"] == "gemma3_text":
        writer.add_rope_freq_base_swa(rope["sliding_attention"]["rope_theta"])
        writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in config["layer_types"]])
    if config.get("attn_logit_softcapping"):
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
    if config.get("final_logit_softcapping"):
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")


def _rotated(weights: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rows as llama.cpp's rotary embedding pairs them: `LlamaModel.permute` of its convert_hf_to_gguf.py."""
    rows, columns = weights.shape
    return weights.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
