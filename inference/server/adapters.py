"""LoRA adapters in pre-built slots: every linear layer holds the weights of all slots, stacked.

A step reads the slots that its rows use in one product: `x A` over those slots' columns, the columns of other rows'
adapters set to zero, then `+ (x A) B`. That is two more operations a layer whatever the mix; PEFT's own mixed batch
splits the batch per adapter and layer (docs/decisions/0002-embedded-engine.md has the figures).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import nn

from inference.adapter_files import CONFIG, WEIGHTS, AdapterManifest
from nocap.errors import AdapterError

PREPARE_BELOW_BYTES = 2**30
"""On a CPU the layers' weights are laid out once more for fast products if they fit into this as fp32."""

_KEY = re.compile(r"base_model\.model\.(?P<layer>.+)\.lora_(?P<half>[AB])\.weight")
_PLAIN: dict[str, tuple[object, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian", "orthogonal"),
    **dict.fromkeys(("use_dora", "lora_bias", "fan_in_fan_out", "use_qalora"), (False, None)),
    **dict.fromkeys(("rank_pattern", "alpha_pattern", "modules_to_save"), ({}, None)),
    **dict.fromkeys(("layer_replication", "target_parameters", "trainable_token_indices"), (None,)),
    **dict.fromkeys(("use_bdlora", "arrow_config", "kasa_config", "alora_invocation_tokens"), (None,)),
}
"""What a served adapter's config may hold; anything else would change the answer in a way the slots cannot."""

LayerWeights = Mapping[str, tuple[torch.Tensor, torch.Tensor]]
"""Per layer path: A [rank, in] and scaled B, transposed [rank, out]."""


@dataclass(frozen=True)
class _Columns:
    """The stacked columns that a step reads; `foreign_NK` marks those that a token must not see."""

    first: int
    last: int
    foreign_NK: torch.Tensor | None


class _SlottedLinear(nn.Module):
    def __init__(self, base: nn.Linear, bank: AdapterBank, dtype: torch.dtype, prepare: bool) -> None:
        super().__init__()
        self.base = base
        self.bank = bank
        weight = base.weight
        columns = bank.slots * bank.max_rank
        self.prepared = _prepared(base) if prepare else None
        self.down_KI = torch.zeros(columns, base.in_features, dtype=dtype, device=weight.device)
        self.up_KO = torch.zeros(columns, base.out_features, dtype=dtype, device=weight.device)

    def forward(self, x_1NI: torch.Tensor) -> torch.Tensor:
        y_1NO = self._of_the_base(x_1NI)
        columns = self.bank.columns
        if columns is None:
            return y_1NO
        picked = slice(columns.first, columns.last)
        h_1NK = nn.functional.linear(x_1NI.to(self.down_KI.dtype), self.down_KI[picked])
        if columns.foreign_NK is not None:
            h_1NK = h_1NK.masked_fill(columns.foreign_NK, 0.0)
        return y_1NO + (h_1NK @ self.up_KO[picked]).to(y_1NO.dtype)

    def _of_the_base(self, x_1NI: torch.Tensor) -> torch.Tensor:
        weight = self.prepared
        if weight is None:
            y_1NO: torch.Tensor = self.base(x_1NI)
        elif weight.is_mkldnn:
            y_1NO = torch.ops.mkldnn._linear_pointwise(x_1NI, weight, self.base.bias, "none", [], "")
        else:
            y_1NO = nn.functional.linear(x_1NI, weight, self.base.bias)
        return y_1NO


class AdapterBank:
    """Wraps the linear layers of `model` with `slots` adapter slots; `detach` puts the plain layers back.

    `read` may run on any thread; everything else belongs to the thread that runs the model.
    """

    def __init__(self, model: Any, *, slots: int, max_rank: int) -> None:
        self.slots = slots
        self.max_rank = max_rank
        self.columns: _Columns | None = None
        self._model = model
        head = model.get_output_embeddings()
        plain = {
            name: module
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and module is not head
        }
        assert not any(isinstance(module, _SlottedLinear) for module in model.modules()), "one engine serves a base"
        sizes = sum(module.in_features * module.out_features for module in plain.values())
        is_fp32_on_cpu = model.device.type == "cpu" and model.dtype == torch.float32
        prepare = is_fp32_on_cpu and sizes * 4 <= PREPARE_BELOW_BYTES
        self.device: torch.device = model.device
        self._layers = {name: _SlottedLinear(module, self, model.dtype, prepare) for name, module in plain.items()}
        for name, layer in self._layers.items():
            self._model.set_submodule(name, layer)

    def detach(self) -> None:
        for name, layer in self._layers.items():
            self._model.set_submodule(name, layer.base)

    def select(self, slots: Sequence[int | None]) -> None:
        """Says which slot each token of the next forward uses; None is the bare base."""
        used = {slot for slot in slots if slot is not None}
        if not used:
            self.columns = None
            return
        first, last = min(used) * self.max_rank, (max(used) + 1) * self.max_rank
        if len(used) == 1 and None not in slots:
            self.columns = _Columns(first, last, None)
            return
        own_N = torch.tensor([-1 if slot is None else slot for slot in slots], device=self.device)
        slot_of_column_K = torch.arange(first, last, device=self.device) // self.max_rank
        self.columns = _Columns(first, last, own_N[:, None] != slot_of_column_K)

    def fill(self, slot: int, weights: LayerWeights) -> None:
        """Writes an adapter into a slot; layers that it does not have become zero."""
        self.clear(slot)
        start = slot * self.max_rank
        for path, (down_RI, up_RO) in weights.items():
            layer, end = self._layers[path], start + down_RI.shape[0]
            layer.down_KI[start:end] = down_RI
            layer.up_KO[start:end] = up_RO

    def clear(self, slot: int) -> None:
        rows = slice(slot * self.max_rank, (slot + 1) * self.max_rank)
        for layer in self._layers.values():
            layer.down_KI[rows] = 0
            layer.up_KO[rows] = 0

    def read(self, folder: Path, manifest: AdapterManifest) -> LayerWeights:
        """The weights of a PEFT LoRA folder, on the model's device, checked against its manifest and this model.

        Raises AdapterError where anything differs from what the slots can serve exactly.
        """
        config = json.loads(_listed_bytes(folder, CONFIG, manifest))
        scaling = self._scaling(config, manifest)
        try:
            tensors = load_safetensors(_listed_bytes(folder, WEIGHTS, manifest))
        except SafetensorError as error:
            raise AdapterError(f"Adapter {manifest.name} is not readable safetensors: {error}.") from error
        halves = self._halves(tensors, manifest)
        self._require_targets(config, halves, manifest)
        return {path: self._layer_weights(path, pair, config["r"], scaling, manifest) for path, pair in halves.items()}

    def _scaling(self, config: dict[str, Any], manifest: AdapterManifest) -> float:
        for key, allowed in _PLAIN.items():
            if key in config and config[key] not in allowed:
                raise AdapterError(
                    f"Adapter {manifest.name} has {key} = {config[key]!r}, which the embedded server cannot "
                    "serve exactly; train it as plain LoRA."
                )
        rank = config.get("r")
        if not isinstance(rank, int) or not 1 <= rank <= self.max_rank:
            raise AdapterError(
                f"Adapter {manifest.name} has rank {rank}, this server holds ranks 1 to {self.max_rank}; "
                "raise `inference.max_rank` or train a smaller one."
            )
        alpha = float(config["lora_alpha"])
        return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank

    def _halves(
        self, tensors: Mapping[str, torch.Tensor], manifest: AdapterManifest
    ) -> dict[str, dict[str, torch.Tensor]]:
        halves: dict[str, dict[str, torch.Tensor]] = {}
        for key, tensor in tensors.items():
            found = _KEY.fullmatch(key)
            if found is None or found["layer"] not in self._layers:
                raise AdapterError(
                    f"Adapter {manifest.name} has weights for {key[:120]}, which this base has no adapter slot for."
                )
            halves.setdefault(found["layer"], {})[found["half"]] = tensor
        if not halves:
            raise AdapterError(f"Adapter {manifest.name} holds no LoRA weights.")
        return halves

    def _require_targets(self, config: dict[str, Any], halves: Mapping[str, object], manifest: AdapterManifest) -> None:
        targets = config.get("target_modules")
        if not isinstance(targets, list) or config.get("layers_to_transform") or config.get("exclude_modules"):
            return
        for path in self._layers:
            is_target = any(path == target or path.endswith(f".{target}") for target in targets)
            if is_target and path not in halves:
                raise AdapterError(f"Adapter {manifest.name} lacks the weights of {path}, which it says it changes.")

    def _layer_weights(
        self, path: str, pair: Mapping[str, torch.Tensor], rank: int, scaling: float, manifest: AdapterManifest
    ) -> tuple[torch.Tensor, torch.Tensor]:
        layer = self._layers[path].base
        shapes = {half: tuple(tensor.shape) for half, tensor in pair.items()}
        expected = {"A": (rank, layer.in_features), "B": (layer.out_features, rank)}
        if shapes != expected:
            raise AdapterError(
                f"Adapter {manifest.name} does not fit this base: {path} has {shapes}, it needs {expected}."
            )
        down, up = pair["A"].float(), pair["B"].float().T * scaling
        if not (down.isfinite().all() and up.isfinite().all()):
            raise AdapterError(f"Adapter {manifest.name} has weights in {path} that are not finite; retrain it.")
        dtype = self._layers[path].down_KI.dtype
        return down.to(self.device, dtype), up.contiguous().to(self.device, dtype)


def _listed_bytes(folder: Path, name: str, manifest: AdapterManifest) -> bytes:
    """A file's bytes, if they are those that the manifest lists: what was verified is what is loaded."""
    content = (folder / name).read_bytes()
    if hashlib.sha256(content).hexdigest() != manifest.files[name]:
        raise AdapterError(f"Adapter {manifest.name} changed while it was read: {name}; load it again.")
    return content


def _prepared(base: nn.Linear) -> torch.Tensor:
    """The fp32 weight on a CPU: out of 4 bit where it is, and in oneDNN's own blocks where torch has that library.

    The blocks are what `torch.compile` uses too: the same sums in another order, without packing at every product.
    """
    weight = base.weight.data
    state = getattr(base.weight, "quant_state", None)
    if state is not None:
        from bitsandbytes.functional import dequantize_4bit

        weight = dequantize_4bit(weight, state).float().reshape(base.out_features, base.in_features)
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return weight.contiguous()
    blocks: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
    return blocks
