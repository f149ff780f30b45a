"""Keys and values of prompts read before, so that a conversation that grows turn by turn is not read again.

Kept in blocks of `BLOCK_TOKENS`, in a tree per adapter name: a block is found by all the tokens before it and its own,
compared themselves and not by a hash. A name stands for one adapter as long as the process lives, so a block never
outlives what it was computed with; unloading drops the name's tree. Belongs to the thread that runs the model.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from inference.server.cache import SlotCache
from nocap.domain import AdapterName

BLOCK_TOKENS = 8


@dataclass(eq=False, slots=True)
class _Block:
    """One node: the tokens that lead here from `parent`; a tree's root has place -1 and holds nothing."""

    tokens: tuple[int, ...]
    place: int
    parent: _Block | None = field(default=None, repr=False)
    children: dict[tuple[int, ...], _Block] = field(default_factory=dict)


class PrefixCache:
    """Shares prefixes between the slots of `cache` within `max_bytes` of memory; 0 keeps nothing."""

    def __init__(self, cache: SlotCache, max_bytes: int) -> None:
        self._cache = cache
        stores = cache.stores()
        block_bytes = sum(store[0, :, :BLOCK_TOKENS].numel() * store.element_size() for store in stores)
        self.blocks = max_bytes // block_bytes if block_bytes else 0
        self._pools = [_pool(store, self.blocks) for store in stores] if self.blocks else []
        self._free = list(range(self.blocks))
        self._roots: dict[AdapterName, _Block] = {}
        self._by_age: OrderedDict[int, _Block] = OrderedDict()
        """By place, longest unused first; a parent is always younger than its children."""

    @property
    def used_blocks(self) -> int:
        return len(self._by_age)

    def restore(self, adapter: AdapterName, prompt: Sequence[int], slot: int) -> int:
        """How many leading tokens of `prompt` are in `slot` now; never all, since the last one gives the logits."""
        found = self._known(adapter, prompt[: len(prompt) - 1])
        if not found:
            return 0
        self._touch(found)
        places, length = [block.place for block in found], len(found) * BLOCK_TOKENS
        for store, pool in zip(self._cache.stores(), self._pools, strict=True):
            # [blocks, heads, tokens, size] to [heads, blocks * tokens, size]
            store[slot, :, :length] = pool[places].transpose(0, 1).flatten(1, 2)
        return length

    def keep(self, adapter: AdapterName, tokens: Sequence[int], slot: int) -> None:
        """Takes over the keys and values of `tokens`, the first ones in `slot`, as far as there is room."""
        if not self.blocks:
            return
        found = self._known(adapter, tokens)
        self._touch(found)
        pieces = _pieces(tokens)[len(found) :]
        places = self._reserve(len(pieces), found)
        try:
            self._copy_in(slot, len(found), places)
        except BaseException:
            self._free.extend(places)
            raise
        path = list(found)
        for piece, place in zip(pieces, places, strict=False):
            parent = path[-1] if path else self._roots.setdefault(adapter, _Block((), -1))
            block = parent.children[piece] = _Block(piece, place, parent)
            self._by_age[place] = block
            path.append(block)
        self._touch(path)

    def drop(self, adapter: AdapterName) -> None:
        """Forgets everything that was computed with `adapter`."""
        root = self._roots.pop(adapter, None)
        blocks = [root] if root else []
        while blocks:
            block = blocks.pop()
            blocks.extend(block.children.values())
            if block.place >= 0:
                del self._by_age[block.place]
                self._free.append(block.place)

    def _known(self, adapter: AdapterName, tokens: Sequence[int]) -> list[_Block]:
        block, found = self._roots.get(adapter), list[_Block]()
        for piece in _pieces(tokens):
            block = block.children.get(piece) if block else None
            if block is None:
                break
            found.append(block)
        return found

    def _touch(self, path: Sequence[_Block]) -> None:
        for block in reversed(path):
            self._by_age.move_to_end(block.place)

    def _reserve(self, wanted: int, in_use: Sequence[_Block]) -> list[int]:
        """As many places as there are, up to `wanted`: free ones, then those of the longest unused blocks."""
        places: list[int] = []
        while len(places) < wanted:
            if self._free:
                places.append(self._free.pop())
                continue
            if len(self._by_age) == len(in_use):
                break
            place, oldest = next(iter(self._by_age.items()))
            assert oldest.parent is not None and not oldest.children, "children are older than their parent"
            del self._by_age[place], oldest.parent.children[oldest.tokens]
            places.append(place)
        return places

    def _copy_in(self, slot: int, first_block: int, places: list[int]) -> None:
        if not places:
            return
        start, end = first_block * BLOCK_TOKENS, (first_block + len(places)) * BLOCK_TOKENS
        for store, pool in zip(self._cache.stores(), self._pools, strict=True):
            heads, size = pool.shape[1], pool.shape[3]
            kept = store[slot, :, start:end].reshape(heads, len(places), BLOCK_TOKENS, size)
            pool[places] = kept.transpose(0, 1)


def _pieces(tokens: Sequence[int]) -> list[tuple[int, ...]]:
    """The whole blocks of `tokens`."""
    starts = range(0, len(tokens) - BLOCK_TOKENS + 1, BLOCK_TOKENS)
    return [tuple(tokens[start : start + BLOCK_TOKENS]) for start in starts]


def _pool(store: torch.Tensor, blocks: int) -> torch.Tensor:
    _, heads, _, size = store.shape
    return store.new_zeros(blocks, heads, BLOCK_TOKENS, size)
