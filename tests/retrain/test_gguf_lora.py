"""llama.cpp's LoRA file: what its loader asks of it, and that the numbers are those of the PEFT folder."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from nocap.errors import AdapterError
from retrain.gguf_lora import write_gguf_lora
from tests.inference.server import tiny

gguf = pytest.importorskip("gguf")


def _read(file):
    reader = gguf.GGUFReader(file)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    return fields, {tensor.name: np.array(tensor.data) for tensor in reader.tensors}


def _peft(folder):
    from safetensors.numpy import load_file

    return load_file(folder / "adapter_model.safetensors")


def test_a_qwen_adapter_has_alpha_and_every_layer_under_llama_cpps_names(tmp_path):
    base = tiny.write_model(tmp_path / "base", "qwen3")
    adapter = tiny.write_adapter(base, tmp_path / "genz-v1", seed=1)
    write_gguf_lora(adapter, base, tmp_path / "genz-v1.gguf")
    fields, tensors = _read(tmp_path / "genz-v1.gguf")
    assert fields["general.architecture"] == "qwen3"
    assert (fields["general.type"], fields["adapter.type"], fields["adapter.lora.alpha"]) == ("adapter", "lora", 8.0)
    layers = {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"}
    wanted = {f"blk.{block}.{layer}.weight.lora_{half}" for block in range(3) for layer in layers for half in "ab"}
    assert set(tensors) == wanted
    weights = _peft(adapter)
    name = "base_model.model.model.layers.1.mlp.down_proj"
    assert np.array_equal(tensors["blk.1.ffn_down.weight.lora_a"], weights[f"{name}.lora_A.weight"])
    assert np.array_equal(tensors["blk.1.ffn_down.weight.lora_b"], weights[f"{name}.lora_B.weight"])


def test_llamas_query_and_key_rows_are_ordered_as_llama_cpp_orders_those_of_the_base(tmp_path):
    """Its converter permutes W, so B·A must be permuted alike: compared with the permuted product."""
    base = tiny.write_model(tmp_path / "base", "llama")
    adapter = tiny.write_adapter(base, tmp_path / "genz-v1", seed=1)
    write_gguf_lora(adapter, base, tmp_path / "genz-v1.gguf")
    fields, tensors = _read(tmp_path / "genz-v1.gguf")
    config, weights = json.loads((base / "config.json").read_text()), _peft(adapter)
    assert fields["general.architecture"] == "llama"
    for layer, place, heads in (
        ("q_proj", "attn_q", "num_attention_heads"),
        ("k_proj", "attn_k", "num_key_value_heads"),
    ):
        name = f"base_model.model.model.layers.0.self_attn.{layer}"
        update = torch.from_numpy(weights[f"{name}.lora_B.weight"] @ weights[f"{name}.lora_A.weight"])
        rows, columns = update.shape
        count = config[heads]
        wanted = update.view(count, 2, rows // count // 2, columns).transpose(1, 2).reshape(rows, columns)
        found = tensors[f"blk.0.{place}.weight.lora_b"] @ tensors[f"blk.0.{place}.weight.lora_a"]
        assert np.allclose(found, wanted.numpy(), atol=1e-5)
        assert not np.allclose(found, update.numpy(), atol=1e-3)


def test_a_kind_of_base_that_is_not_known_is_refused_with_those_that_are(tmp_path):
    base = tiny.write_model(tmp_path / "base", "qwen3")
    adapter = tiny.write_adapter(base, tmp_path / "genz-v1", seed=1)
    config = json.loads((base / "config.json").read_text()) | {"model_type": "phi3"}
    (base / "config.json").write_text(json.dumps(config))
    with pytest.raises(AdapterError, match="kind phi3 here, only for qwen2, qwen3"):
        write_gguf_lora(adapter, base, tmp_path / "genz-v1.gguf")


def test_scales_that_differ_from_layer_to_layer_are_refused(tmp_path):
    base = tiny.write_model(tmp_path / "base", "qwen3")
    adapter = tiny.write_adapter(base, tmp_path / "genz-v1", seed=1)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").chmod(0o600)
    for pattern in ({"alpha_pattern": {"q_proj": 4}}, {"use_rslora": True, "rank_pattern": {"q_proj": 2}}):
        (adapter / "adapter_config.json").write_text(json.dumps(config | pattern))
        with pytest.raises(AdapterError, match="one alpha for all layers"):
            write_gguf_lora(adapter, base, tmp_path / "genz-v1.gguf")
    assert not (tmp_path / "genz-v1.gguf").exists()
