"""One forward of the model over some slots: masks, positions and adapters in, the next token's logits out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from inference.base_model import BaseModel
from inference.server.adapters import AdapterBank
from inference.server.cache import SlotCache, StepView
from nocap.errors import ModelError

SELF_TEST_TOKENS = 12
SELF_TEST_TOLERANCE = {"cpu": 1e-3, "cuda": 0.25}
"""Of the largest logit difference, in units of the logits' spread; bf16 attention kernels differ that much."""


class ModelRunner:
    """Owns the cache and the adapter slots of `base`. All methods belong to one thread, but for `bank.read`."""

    def __init__(self, base: BaseModel, *, slots: int, max_length: int, adapters: int, max_rank: int) -> None:
        self._model = base.model
        self._device: torch.device = base.model.device
        config = base.model.config
        self._windows = _mask_windows(config)
        self._layer_types: list[str] | None = getattr(config, "layer_types", None)
        reference_V = self._reference_logits()
        self.cache = SlotCache(config.num_hidden_layers, slots, max_length)
        self.bank = AdapterBank(self._model, slots=adapters, max_rank=max_rank)
        self._last_B: torch.Tensor | None = None
        self._head_hook = self._model.get_output_embeddings().register_forward_pre_hook(self._keep_last)
        self._compare(reference_V, base)

    def close(self) -> None:
        """Gives the model back as it was."""
        self._head_hook.remove()
        self.bank.detach()

    def logits(
        self, first_slot: int, chunks: Sequence[Sequence[int]], starts: Sequence[int], adapters: Sequence[int | None]
    ) -> torch.Tensor:
        """float32 [rows, vocabulary] after the last token of each chunk.

        Row i reads `chunks[i]` at positions from `starts[i]` on, in slot `first_slot + i`, by adapter slot
        `adapters[i]`; what that slot holds before `starts[i]` is its past.
        """
        lengths = [len(chunk) for chunk in chunks]
        width = max(lengths)
        ids_BT = torch.tensor([[*chunk, *([0] * (width - len(chunk)))] for chunk in chunks], device=self._device)
        starts_B = torch.tensor(starts, device=self._device)
        lengths_B = torch.tensor(lengths, device=self._device)
        steps_T = torch.arange(width, device=self._device)
        positions_BT = starts_B[:, None] + steps_T
        real_BT = steps_T < lengths_B[:, None] if min(lengths) < width else None
        view = self._view(first_slot, positions_BT, real_BT, max(map(sum, zip(starts, lengths, strict=True))))
        self.cache.view, self._last_B = view, lengths_B - 1
        self.bank.select(adapters)
        output = self._model(
            input_ids=ids_BT,
            attention_mask=self._mask(positions_BT, view.length),
            position_ids=positions_BT,
            past_key_values=self.cache,
            use_cache=True,
        )
        logits_BV: torch.Tensor = output.logits[:, -1].float()
        return logits_BV

    def _view(self, first_slot: int, positions_BT: torch.Tensor, real_BT: torch.Tensor | None, length: int) -> StepView:
        rows, width = positions_BT.shape
        slots_BT = torch.arange(first_slot, first_slot + rows, device=self._device)[:, None].expand(rows, width)
        if real_BT is None:
            slots_M, positions_M = slots_BT.flatten(), positions_BT.flatten()
        else:
            slots_M, positions_M = slots_BT[real_BT], positions_BT[real_BT]
        return StepView(first_slot, rows, length, slots_M, positions_M, real_BT)

    def _mask(self, positions_BT: torch.Tensor, length: int) -> Any:
        masks = {kind: self._additive_mask(positions_BT, length, window) for kind, window in self._windows.items()}
        return masks if len(masks) > 1 or ("sliding_attention" in masks and self._layer_types) else masks.popitem()[1]

    def _additive_mask(self, positions_BT: torch.Tensor, length: int, window: int | None) -> torch.Tensor:
        keys_L = torch.arange(length, device=self._device)
        visible_BTL = keys_L <= positions_BT[..., None]
        if window is not None:
            visible_BTL &= keys_L > positions_BT[..., None] - window
        mask_BTL = torch.zeros(visible_BTL.shape, dtype=self._model.dtype, device=self._device)
        return mask_BTL.masked_fill_(~visible_BTL, torch.finfo(self._model.dtype).min)[:, None]

    def _keep_last(self, module: torch.nn.Module, arguments: tuple[torch.Tensor]) -> tuple[torch.Tensor] | None:
        """Spares the vocabulary's projection of all tokens but the last of each row."""
        if self._last_B is None:
            return None
        (hidden_BTD,) = arguments
        last_B, self._last_B = self._last_B, None
        rows_B = torch.arange(hidden_BTD.shape[0], device=hidden_BTD.device)
        return (hidden_BTD[rows_B, last_B][:, None],)

    def _self_test_ids(self) -> list[int]:
        vocabulary = self._model.get_input_embeddings().weight.shape[0]
        return [(7 + 31 * step) % vocabulary for step in range(SELF_TEST_TOKENS)]

    @torch.inference_mode()
    def _reference_logits(self) -> torch.Tensor:
        ids_BT = torch.tensor([self._self_test_ids()], device=self._device)
        logits_V: torch.Tensor = self._model(input_ids=ids_BT, use_cache=False).logits[0, -1].float()
        return logits_V

    @torch.inference_mode()
    def _compare(self, reference_V: torch.Tensor, base: BaseModel) -> None:
        """Fails closed on an architecture whose forward does not take this cache, these masks or these positions."""
        ids = self._self_test_ids()
        half = len(ids) // 2
        try:
            self.logits(0, [ids[:half]], [0], [None])
            self.logits(0, [ids[half:-1]], [half], [None])
            found_V = self.logits(0, [ids[-1:]], [len(ids) - 1], [None])[0]
            error = float((found_V - reference_V).abs().max() / reference_V.std().clamp(min=1e-6))
        except (
            TypeError,
            ValueError,
            KeyError,
            IndexError,
            AttributeError,
            RuntimeError,
            NotImplementedError,
        ) as failure:
            self.close()
            raise ModelError(f"The embedded server cannot run {base.name}: {failure}. Serve it with vLLM.") from failure
        if not error <= SELF_TEST_TOLERANCE[base.device]:
            self.close()
            raise ModelError(
                f"The embedded server would not answer as {base.name} does (its logits differ by {error:.2g} standard "
                "deviations in the start-up test); serve it with vLLM."
            )


def _mask_windows(config: Any) -> dict[str, int | None]:
    """The sliding window of each kind of layer that the model has; None sees everything before."""
    kinds = set(getattr(config, "layer_types", None) or ())
    window = getattr(config, "sliding_window", None)
    if not kinds:
        return {"full_attention": None} if window is None else {"sliding_attention": window}
    return {kind: window if kind == "sliding_attention" else None for kind in sorted(kinds)}
