"""Attention of a step's tokens over the slot cache, called by transformers' own forward under the name `nocap`.

A step is one line of tokens: those of decoding rows, one each, then pieces of prompts. Linear layers see one large
product, nothing is padded, and only here the rows part again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from inference.server.cache import Span, StepView

_NAME = "nocap"


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: object,
    *,
    step: StepView,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """[1, tokens, heads, head size] of `query` [1, heads, tokens, head size] over the slots in `key` and `value`.

    `attention_mask` is not looked at: the spans of `step` have their own.
    """
    answers, start = [], 0
    for span in step.spans:
        tokens = span.rows * span.width
        query_HTD = query[0, :, start : start + tokens]
        answers.append(_of_span(query_HTD, key, value, span, sliding_window, scaling, softcap))
        start += tokens
    return (answers[0] if len(answers) == 1 else torch.cat(answers))[None], None


AttentionInterface.register(_NAME, attend)


@contextmanager
def of_steps(config: Any) -> Iterator[None]:
    """Forwards of the model with this configuration attend by `attend`; outside of it, as they did before."""
    before = config._attn_implementation
    config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def _of_span(
    query_HTD: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    span: Span,
    window: int | None,
    scaling: float | None,
    softcap: float | None,
) -> torch.Tensor:
    """[tokens, heads, head size]; query heads that share a key head are attended together, so that none is copied."""
    heads, tokens, size = query_HTD.shape
    slots = slice(span.first_slot, span.first_slot + span.rows)
    keys_RKLD, values_RKLD = keys[slots, :, : span.length], values[slots, :, : span.length]
    shared = keys_RKLD.shape[1]
    mask = span.masks[window]
    if span.width == 1:
        query_RKGD = query_HTD.transpose(0, 1).reshape(tokens, shared, -1, size)
        return _attention(query_RKGD, keys_RKLD, values_RKLD, mask, scaling, softcap).reshape(tokens, heads, -1)
    query_KGTD = query_HTD.reshape(shared, -1, tokens, size)
    group = query_KGTD.shape[1]
    keys_KGLD, values_KGLD = (store[0, :, None].expand(-1, group, -1, -1) for store in (keys_RKLD, values_RKLD))
    answer_KGTD = _attention(query_KGTD, keys_KGLD, values_KGLD, mask, scaling, softcap)
    return answer_KGTD.reshape(heads, tokens, -1).transpose(0, 1)


def _attention(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor,
    scaling: float | None,
    softcap: float | None,
) -> torch.Tensor:
    if softcap is None:
        return scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=scaling)
    # sdpa has no logit soft-capping, which Gemma 2 needs.
    scores = query @ keys.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    weights = (torch.tanh(scores / softcap) * softcap + mask).softmax(-1, dtype=torch.float32)
    return weights.to(query.dtype) @ values
