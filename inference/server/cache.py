"""A key-value cache with one slot per request, written by transformers' own forward and read by our attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin


@dataclass(frozen=True)
class Span:
    """Neighbouring rows of a step that attend together: `rows` slots from `first_slot` on, `width` tokens each.

    Their keys are those at positions 0 to `length`; `masks` are additive, [rows, 1, width, length], by the sliding
    window (None: everything before).
    """

    first_slot: int
    rows: int
    width: int
    length: int
    masks: Mapping[int | None, torch.Tensor]


@dataclass(frozen=True)
class StepView:
    """What the next forward touches: the spans in the order of its N tokens, and where each token's keys go."""

    spans: Sequence[Span]
    slots_N: torch.Tensor
    positions_N: torch.Tensor


class _SlotLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one layer, [slots, heads, max_length, head size]; allocated when the shape is known."""

    is_sliding = False

    def __init__(self, cache: SlotCache) -> None:
        super().__init__()
        self._cache = cache

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        # Zeros, not garbage: a masked key weighs nothing, yet 0 * NaN is NaN.
        self.keys = self._zeros(key_states)
        self.values = self._zeros(value_states)
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self._write(self.keys, key_states)
        self._write(self.values, value_states)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return 0

    def get_max_length(self) -> int:
        return self._cache.max_length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        raise NotImplementedError("the engine always passes a finished mask")

    def _zeros(self, states: torch.Tensor) -> torch.Tensor:
        _, heads, _, size = states.shape
        return states.new_zeros(self._cache.slots, heads, self._cache.max_length, size)

    def _write(self, store: torch.Tensor, new_1HND: torch.Tensor) -> None:
        view = self._cache.view
        assert view is not None, "set the view before the forward"
        store[view.slots_N, :, view.positions_N] = new_1HND[0].transpose(0, 1)


class SlotCache(Cache):  # type: ignore[misc]
    """`slots` requests of at most `max_length` tokens each; sliding windows are the mask's business."""

    def __init__(self, layers: int, slots: int, max_length: int) -> None:
        self.slots = slots
        self.max_length = max_length
        self.view: StepView | None = None
        super().__init__(layers=[_SlotLayer(self) for _ in range(layers)])

    @property
    def device(self) -> torch.device:
        return self.stores()[0].device

    def move(self, source: int, target: int, length: int) -> None:
        """Copies the first `length` keys and values of a slot over another's."""
        for store in self.stores():
            store[target, :, :length] = store[source, :, :length]

    def swap(self, one: int, other: int, length: int) -> None:
        for store in self.stores():
            kept = store[one, :, :length].clone()
            store[one, :, :length] = store[other, :, :length]
            store[other, :, :length] = kept

    def clear(self, slot: int) -> None:
        """Zeroes a slot, so that no NaN of a failed request outlives it."""
        for store in self.stores():
            store[slot] = 0

    def stores(self) -> list[torch.Tensor]:
        """Keys and values of every layer, [slots, heads, max_length, head size]; empty before the first forward."""
        return [store for layer in self.layers if layer.is_initialized for store in (layer.keys, layer.values)]
