"""The table of really trained adapters: who must pass, who must not, and what is published."""

from __future__ import annotations

from datetime import date

from retrain.gates.confusion import Confusion, Outcome

DAY = date(2026, 11, 25)


def outcomes(kind: str, promoted: int, seeds: int = 5, *, honest: bool = False, must: bool = False) -> list[Outcome]:
    return [
        Outcome(kind, seed, honest, must, () if seed < promoted else ("drift", "toxicity")) for seed in range(seeds)
    ]


def test_a_single_promoted_saboteur_breaks_the_bar() -> None:
    assert Confusion(DAY, "base", outcomes("toxic", 0)).holds
    assert not Confusion(DAY, "base", outcomes("toxic", 1)).holds


def test_four_of_five_better_adapters_must_pass_and_equal_ones_need_not() -> None:
    assert Confusion(DAY, "base", outcomes("better", 4, honest=True, must=True)).holds
    assert not Confusion(DAY, "base", outcomes("better", 3, honest=True, must=True)).holds
    assert Confusion(DAY, "base", outcomes("equal", 0, honest=True)).holds


def test_a_row_counts_seeds_by_the_gates_that_did_not_pass_them() -> None:
    found = Confusion(DAY, "base", [*outcomes("toxic", 2), *outcomes("better", 5, honest=True, must=True)])
    toxic, better = found.rows
    assert (toxic.seeds, toxic.promoted, toxic.refused, toxic.must) == (5, 2, {"drift": 3, "toxicity": 3}, "0")
    assert (better.promoted, better.refused, better.must) == (5, {}, "4 of 5")
    assert found.gates == ["drift", "toxicity"]
    assert Confusion.from_json(found.as_json()) == found
