"""A base is loaded whole and frozen, or refused with one sentence."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

from inference.base_model import base_digest, load_base
from nocap.errors import ModelError
from tests.inference.server import tiny


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("models") / "tiny-qwen3")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "tiny-qwen3"))


def edit_config(folder: Path, **values: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def test_a_loaded_base_is_frozen_in_fp32_and_knows_itself(original: Path) -> None:
    base = load_base(str(original), quantization="none", device="auto" if not torch.cuda.is_available() else "cpu")
    assert (base.name, base.device, base.quantization, base.max_length) == ("tiny-qwen3", "cpu", "none", 256)
    assert base.digest == base_digest(str(original))
    assert not base.model.training
    assert all(not weight.requires_grad and weight.dtype == torch.float32 for weight in base.model.parameters())
    assert base.tokenizer.convert_tokens_to_ids("<|im_end|>") in base.stop_token_ids


def test_nf4_packs_the_layers_and_computes_in_fp32_whatever_the_cpu(original: Path) -> None:
    plain = load_base(str(original), quantization="none", device="cpu")
    packed = load_base(str(original), quantization="nf4", device="cpu")
    layer = packed.model.model.layers[0].mlp.up_proj
    assert layer.weight.dtype == torch.uint8
    ids_BT = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        first, second = packed.model(ids_BT).logits, packed.model(ids_BT).logits
        exact = plain.model(ids_BT).logits
    assert torch.equal(first, second)
    assert not torch.equal(first, exact)
    assert not getattr(layer.weight.quant_state, "packing_format_for_cpu", False)
    assert layer.weight.quant_state.nested


def test_gradients_still_reach_the_inputs_of_nf4_layers_after_an_evaluation(original: Path) -> None:
    model = load_base(str(original), quantization="nf4", device="cpu").model
    embedded_BTD = torch.zeros(1, 2, 64)
    with torch.no_grad():
        model(inputs_embeds=embedded_BTD)
    model.train()
    embedded_BTD.requires_grad_()
    model(inputs_embeds=embedded_BTD).logits.sum().backward()
    assert embedded_BTD.grad is not None
    assert embedded_BTD.grad.abs().sum() > 0


def test_the_digest_follows_config_weights_and_tokenizer_and_nothing_else(folder: Path) -> None:
    digest = base_digest(str(folder))
    (folder / "README.md").write_text("hello")
    (folder / "generation_config.json").write_text("{}")
    assert base_digest(str(folder)) == digest
    digests = {digest}
    for name in ("config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"):
        with (folder / name).open("ab") as file:
            file.write(b" ")
        digests.add(base_digest(str(folder)))
    assert len(digests) == 5


def truncate(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def spoil_the_header(folder: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[0:8] = b"\xff" * 8
    (folder / "model.safetensors").write_bytes(content)


def lose_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def pickle_the_weights(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def lose_the_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def lose_the_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def break_the_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def lose_the_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def break_the_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"model": 1}')


def be_an_encoder(folder: Path) -> None:
    edit_config(folder, model_type="bert", architectures=["BertForMaskedLM"])


def be_a_translator(folder: Path) -> None:
    edit_config(folder, model_type="t5", architectures=["T5ForConditionalGeneration"])


def be_unheard_of(folder: Path) -> None:
    edit_config(folder, model_type="mystery", architectures=["MysteryForCausalLM"])


def be_smaller(folder: Path) -> None:
    edit_config(folder, vocab_size=100)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncate, "weights in .* cannot be loaded"),
        (spoil_the_header, "weights in .* cannot be loaded"),
        (lose_a_weight, "incomplete: model.layers.1.mlp.up_proj.weight"),
        (pickle_the_weights, "cannot be loaded"),
        (lose_the_weights, "cannot be loaded"),
        (lose_the_config, "no config.json"),
        (break_the_config, "config.json is not a model"),
        (lose_the_tokenizer, "no tokenizer"),
        (break_the_tokenizer, "tokenizer in .* cannot be read"),
        (be_an_encoder, "BertForMaskedLM, which is not a causal language model"),
        (be_a_translator, "not a causal language model"),
        (be_unheard_of, "not a model that transformers knows"),
        (be_smaller, "cannot be loaded|do not fit|more tokens"),
    ],
)
def test_a_base_that_cannot_be_used_is_refused_in_one_sentence(
    damage: Callable[[Path], None], reason: str, folder: Path
) -> None:
    damage(folder)
    with pytest.raises(ModelError, match=reason) as refused:
        load_base(str(folder), quantization="none", device="cpu")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("path", ["/nowhere/at/all", "./missing", "missing", "a/b/c", "not a name"])
def test_a_missing_folder_is_refused_without_asking_the_hub(path: str) -> None:
    with pytest.raises(ModelError, match="no model folder"):
        load_base(path, quantization="none", device="cpu")


def test_a_hub_name_that_is_not_cached_and_cannot_be_fetched_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(name: str, **options: object) -> str:
        raise LocalEntryNotFoundError("the hub cannot be reached")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(ModelError, match=r"Qwen/Nothing is neither a folder nor .* \(the hub cannot be reached\)"):
        load_base("Qwen/Nothing", quantization="none", device="cpu")


def test_a_hub_name_is_served_from_its_cached_snapshot(original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **options: str(original))
    base = load_base("someone/tiny-qwen3", quantization="none", device="cpu")
    assert base.name == "someone/tiny-qwen3"
    assert base.digest == base_digest(str(original))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_asking_for_a_gpu_where_there_is_none_is_refused(original: Path) -> None:
    with pytest.raises(ModelError, match="sees no GPU"):
        load_base(str(original), quantization="none", device="cuda")


def test_the_digest_needs_no_torch(original: Path) -> None:
    use = "import sys; from inference.base_model import base_digest; base_digest(sys.argv[1])"
    program = f"{use}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program, str(original)], check=False).returncode == 0
