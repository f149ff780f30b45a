"""One forward of the model over some slots: tokens, positions and adapters in, the next token's logits out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from inference.base_model import BaseModel
from inference.server import attention
from inference.server.adapters import AdapterBank
from inference.server.cache import SlotCache, Span, StepView
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
        self._windows = _windows(config)
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
        tokens = [token for chunk in chunks for token in chunk]
        positions = [start + place for start, length in zip(starts, lengths, strict=True) for place in range(length)]
        slots = [first_slot + row for row, length in enumerate(lengths) for _ in range(length)]
        ids_N, positions_N, slots_N = torch.tensor([tokens, positions, slots], device=self._device)
        self._last_B = torch.tensor(lengths, device=self._device).cumsum(0) - 1
        self.cache.view = StepView(self._spans(first_slot, lengths, starts), slots_N, positions_N)
        self.bank.select([slot for slot, length in zip(adapters, lengths, strict=True) for _ in range(length)])
        with attention.of_steps(self._model.config):
            output = self._model(
                input_ids=ids_N[None],
                position_ids=positions_N[None],
                past_key_values=self.cache,
                use_cache=True,
                step=self.cache.view,
            )
        logits_BV: torch.Tensor = output.logits[0].float()
        return logits_BV

    def _spans(self, first_slot: int, lengths: Sequence[int], starts: Sequence[int]) -> list[Span]:
        """Neighbours that read one token each attend together, every other row on its own."""
        spans, row = [], 0
        while row < len(lengths):
            rows = 1
            while lengths[row] == 1 and row + rows < len(lengths) and lengths[row + rows] == 1:
                rows += 1
            span_starts, width = starts[row : row + rows], lengths[row]
            positions_RT = torch.tensor(span_starts, device=self._device)[:, None]
            if width > 1:
                positions_RT = positions_RT + torch.arange(width, device=self._device)
            length = max(span_starts) + width
            masks = {window: self._additive_mask(positions_RT, length, window) for window in self._windows}
            spans.append(Span(first_slot + row, rows, width, length, masks))
            row += rows
        return spans

    def _additive_mask(self, positions_RT: torch.Tensor, length: int, window: int | None) -> torch.Tensor:
        keys_L = torch.arange(length, device=self._device)
        visible_RTL = keys_L <= positions_RT[..., None]
        if window is not None:
            visible_RTL &= keys_L > positions_RT[..., None] - window
        mask_RTL = torch.zeros(visible_RTL.shape, dtype=self._model.dtype, device=self._device)
        return mask_RTL.masked_fill_(~visible_RTL, torch.finfo(self._model.dtype).min)[:, None]

    def _keep_last(self, module: torch.nn.Module, arguments: tuple[torch.Tensor]) -> tuple[torch.Tensor] | None:
        """Spares the vocabulary's projection of all tokens but the last of each row."""
        if self._last_B is None:
            return None
        (hidden_1ND,) = arguments
        last_B, self._last_B = self._last_B, None
        return (hidden_1ND[:, last_B],)

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
        """Fails closed on an architecture whose forward does not take this cache, this attention or these positions."""
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


def _windows(config: Any) -> set[int | None]:
    """The sliding windows of the model's layers; None sees everything before."""
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ["sliding_attention"])
    return {window if kind == "sliding_attention" else None for kind in kinds}
