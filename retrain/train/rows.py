"""From examples to token rows with the loss on the reply alone, and how many tokens one optimiser step sees."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from inference.prompt import chat_messages, render_reply
from retrain.examples import Example

IGNORED = -100
"""A label that carries no loss."""


@dataclass(frozen=True, slots=True)
class Row:
    """One rendered example; `labels` are IGNORED over the prompt."""

    input_ids: list[int]
    labels: list[int]

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True, slots=True)
class Batching:
    """How an effective batch of about `batch_examples` is cut into packed rows."""

    row_tokens: int
    rows_per_step: int

    def halved(self, longest: int) -> Batching | None:
        """Half the tokens at once and twice the rows a step; None where the longest example needs what there is."""
        tokens = max(longest, self.row_tokens // 2)
        if tokens == self.row_tokens:
            return None
        return Batching(tokens, round(self.rows_per_step * self.row_tokens / tokens))


def build_row(tokenizer: Any, system_prompt: str, example: Example, max_tokens: int) -> Row | None:
    """The rendered example; the oldest turns go first where it is too long, and None where the rest still is."""
    for start in range(len(example.messages)):
        turns = example.messages[start:]
        if turns[0].role != "user":
            continue
        tokens = render_reply(tokenizer, chat_messages(system_prompt, (), turns, glossary_tokens=0), example.reply)
        if len(tokens.prompt) + len(tokens.reply) <= max_tokens:
            return Row(tokens.prompt + tokens.reply, [IGNORED] * len(tokens.prompt) + tokens.reply)
    return None


def build_rows(
    tokenizer: Any, system_prompt: str, examples: Sequence[Example], *, max_tokens: int, seed: int
) -> list[Row]:
    """The rows of all examples that fit into `max_tokens`, shuffled by `seed` so that no pack holds one member."""
    built = [build_row(tokenizer, system_prompt, example, max_tokens) for example in examples]
    rows = [row for row in built if row is not None]
    random.Random(seed).shuffle(rows)
    return rows


def plan_batching(rows: Sequence[Row], *, batch_examples: int, max_length: int) -> Batching:
    """Packed rows of `max_length` tokens or the longest example, as few a step as hold about `batch_examples`.

    Chat replies are short: a fixed row of 1,024 tokens would hold dozens, and a small set would see a step or two.
    """
    wanted_tokens = batch_examples * fmean(len(row) for row in rows)
    row_tokens = max(min(max_length, math.ceil(wanted_tokens)), max(len(row) for row in rows))
    return Batching(row_tokens, max(1, round(wanted_tokens / row_tokens)))
