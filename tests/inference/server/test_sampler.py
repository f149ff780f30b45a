"""The vectorised sampler draws each row from its own distribution."""

from __future__ import annotations

import random

import pytest
import torch

from inference.server.sampler import NUCLEUS_CANDIDATES, Draw, choose_tokens
from nocap.domain import SamplingOptions

VOCABULARY = 500


def draw(temperature: float = 1.0, top_p: float = 1.0, seed: int = 0) -> Draw:
    return Draw.of(SamplingOptions(temperature=temperature, top_p=top_p, seed=seed))


def logits(rows: int, spread: float = 2.0, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * spread


def slow(row_V: torch.Tensor, temperature: float, top_p: float, uniform: float) -> int:
    """The definition, one row at a time, in double precision."""
    probabilities = torch.softmax(row_V.double() / temperature, -1)
    order = range(len(row_V)) if top_p >= 1 else probabilities.argsort(descending=True).tolist()
    kept, mass = [], 0.0
    for token in order:
        kept.append(token)
        mass += float(probabilities[token])
        if mass >= top_p:
            break
    target, seen = uniform * mass, 0.0
    for token in kept:
        seen += float(probabilities[token])
        if seen > target:
            return token
    return kept[-1]


@pytest.mark.parametrize("spread", [0.3, 2.0])
@pytest.mark.parametrize("top_p", [0.1, 0.9, 1.0])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_every_row_follows_the_definition(temperature: float, top_p: float, spread: float) -> None:
    rows_BV = logits(40, spread)
    uniforms = [random.Random(seed).random() for seed in range(40)]
    chosen = choose_tokens(rows_BV, [draw(temperature, top_p, seed) for seed in range(40)])
    expected = [slow(row, temperature, top_p, uniform) for row, uniform in zip(rows_BV, uniforms, strict=True)]
    assert chosen == expected


def test_wide_and_narrow_nuclei_are_both_reached_by_the_cases_above() -> None:
    wide, narrow = torch.softmax(logits(40, 0.3), -1), torch.softmax(logits(40, 2.0) / 0.3, -1)
    assert (wide.topk(NUCLEUS_CANDIDATES).values.sum(-1) < 0.9).all()
    assert (narrow.topk(NUCLEUS_CANDIDATES).values.sum(-1) > 0.9).all()


def test_a_row_does_not_notice_the_others() -> None:
    rows_BV = logits(6)
    kinds = [(0.0, 1.0), (1.0, 0.9), (0.7, 1.0), (2.0, 0.95), (0.2, 0.5), (1.5, 0.99)]
    together = choose_tokens(rows_BV, [draw(*kind, seed=3) for kind in kinds])
    alone = [choose_tokens(rows_BV[[row]], [draw(*kind, seed=3)])[0] for row, kind in enumerate(kinds)]
    assert together == alone


def test_temperature_zero_is_the_likeliest_and_a_tiny_one_nearly_so() -> None:
    rows_BV = logits(5)
    likeliest = rows_BV.argmax(-1).tolist()
    assert choose_tokens(rows_BV, [draw(0.0)] * 5) == likeliest
    assert choose_tokens(rows_BV * 1e4, [draw(1e-300, 0.9) for _ in range(5)]) == likeliest


def test_rows_without_finite_logits_are_none_and_spend_nothing_of_others() -> None:
    rows_BV = logits(4)
    clean = choose_tokens(rows_BV.clone(), [draw(1.0, 0.9, seed) for seed in range(4)])
    rows_BV[1] = float("nan")
    rows_BV[2, 7] = float("inf")
    chosen = choose_tokens(rows_BV, [draw(1.0, 0.9, seed) for seed in range(4)])
    assert chosen == [clean[0], None, None, clean[3]]


def test_frequencies_match_the_distribution() -> None:
    row_V = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    draws = [draw(1.0, 0.9, seed) for seed in range(4000)]
    chosen = torch.tensor(choose_tokens(row_V.expand(4000, 4), draws))
    shares = torch.bincount(chosen, minlength=4) / 4000
    expected = torch.tensor([0.5, 0.3, 0.15, 0.0]) / 0.95
    assert torch.allclose(shares, expected, atol=0.03)
    assert shares[3] == 0
