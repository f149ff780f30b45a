"""Draws the next token of every row at once, each row by its own options.

A row spends one uniform number per token, from a generator of its own, and is drawn by the inverse of its own
distribution function: a seeded reply is the same whatever else is in the batch, on every device.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from nocap.domain import SamplingOptions
from nocap.errors import InputError

NUCLEUS_CANDIDATES = 64
"""Tokens looked at first; only a row whose nucleus is larger pays for a full sort."""

MAX_TEMPERATURE = 5.0


@dataclass(slots=True)
class Draw:
    """How one row is drawn, with its own stream of uniform numbers."""

    temperature: float
    top_p: float
    random: random.Random = field(repr=False)

    @classmethod
    def of(cls, options: SamplingOptions) -> Draw:
        return cls(options.temperature, options.top_p, random.Random(options.seed))


def check_sampling(options: SamplingOptions) -> None:
    """Raises InputError with the option that is out of its range."""
    if not 0 <= options.temperature <= MAX_TEMPERATURE:
        raise InputError(f"temperature is {options.temperature}; it must lie between 0 and {MAX_TEMPERATURE:g}.")
    if not 0 < options.top_p <= 1:
        raise InputError(f"top_p is {options.top_p}; it must be above 0 and at most 1.")
    if options.max_tokens < 1:
        raise InputError(f"max_tokens is {options.max_tokens}; it must be at least 1.")
    if any(not stop for stop in options.stop):
        raise InputError("A stop string is empty; leave it out.")


def choose_tokens(logits_BV: torch.Tensor, draws: Sequence[Draw]) -> list[int | None]:
    """The next token of every row; None where its logits are not finite, which no other row notices."""
    best_B, tokens_B = logits_BV.max(dim=-1)
    drawn = [row for row, draw in enumerate(draws) if draw.temperature > 0]
    for is_whole in (False, True):
        rows = [row for row in drawn if (draws[row].top_p >= 1) == is_whole]
        if rows:
            # Their maximum becomes 0, so that a small temperature cannot overflow.
            shifted_BV = logits_BV[rows] - best_B[rows, None]
            tokens_B[rows] = _draw(shifted_BV, [draws[row] for row in rows], is_whole)
    finite = best_B.isfinite().tolist()
    return [token if is_finite else None for token, is_finite in zip(tokens_B.tolist(), finite, strict=True)]


def _draw(shifted_BV: torch.Tensor, draws: Sequence[Draw], is_whole: bool) -> torch.Tensor:
    """`is_whole`: every token counts (`top_p` 1), so nothing need be sorted."""
    options_BO = torch.tensor(
        [(draw.temperature, draw.top_p, draw.random.random()) for draw in draws], dtype=torch.float64
    ).to(shifted_BV.device)
    temperature_B, top_p_B, uniform_B = options_BO.unbind(1)
    probabilities_BV = torch.softmax(shifted_BV / temperature_B[:, None].float().clamp(min=1e-6), dim=-1)
    if is_whole:
        ids_BV = torch.arange(probabilities_BV.shape[1], device=probabilities_BV.device).expand_as(probabilities_BV)
        return _inverse(probabilities_BV, ids_BV, top_p_B, uniform_B)
    likeliest_BK, ids_BK = probabilities_BV.topk(min(NUCLEUS_CANDIDATES, probabilities_BV.shape[1]))
    tokens_B = _inverse(likeliest_BK, ids_BK, top_p_B, uniform_B)
    wide = likeliest_BK.double().sum(-1) < top_p_B
    if bool(wide.any()):
        sorted_BV, ids_BV = probabilities_BV[wide].sort(dim=-1, descending=True, stable=True)
        tokens_B[wide] = _inverse(sorted_BV, ids_BV, top_p_B[wide], uniform_B[wide])
    return tokens_B


def _inverse(
    sorted_BK: torch.Tensor, ids_BK: torch.Tensor, top_p_B: torch.Tensor, uniform_B: torch.Tensor
) -> torch.Tensor:
    """The id at which the cumulated mass passes `uniform` of the nucleus: the fewest ids that hold `top_p`."""
    mass_BK = sorted_BK.double().cumsum(-1)
    nucleus_B = (mass_BK < top_p_B[:, None]).sum(-1).clamp(max=sorted_BK.shape[1] - 1)
    target_B = uniform_B * mass_BK.gather(1, nucleus_B[:, None])[:, 0]
    index_B = torch.minimum((mass_BK <= target_B[:, None]).sum(-1), nucleus_B)
    return ids_BK.gather(1, index_B[:, None])[:, 0]
