from __future__ import annotations

from dataclasses import replace

import pytest

from inference.prompt import chat_messages, render
from nocap.domain import ChatMessage
from nocap.settings import EMBEDDED_BASE
from retrain.train.rows import IGNORED, Row, build_row, build_rows, plan_batching
from tests.retrain.train.tiny import build_examples

SYSTEM = "You are the bot of this chat."


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(EMBEDDED_BASE)


def test_loss_is_on_the_reply_and_its_end_alone_after_the_prompt_that_serving_renders(tokenizer):
    (example,) = build_examples(1)
    row = build_row(tokenizer, SYSTEM, example, max_tokens=200)
    served = render(
        tokenizer, chat_messages(SYSTEM, (), example.messages, glossary_tokens=0), add_generation_prompt=True
    )
    assert row.input_ids[: len(served)] == served
    assert row.labels[: len(served)] == [IGNORED] * len(served)
    reply = row.labels[len(served) :]
    assert reply == row.input_ids[len(served) :]
    assert tokenizer.decode(reply[:-1]) == example.reply
    assert reply[-1] == tokenizer.eos_token_id


def test_the_oldest_turns_go_first_where_a_row_is_too_long(tokenizer):
    (example,) = build_examples(1)
    context = (ChatMessage("user", "one " * 30), ChatMessage("assistant", "two " * 30), *example.messages)
    short = build_row(tokenizer, SYSTEM, example, max_tokens=200)
    assert build_row(tokenizer, SYSTEM, replace(example, messages=context), max_tokens=len(short)) == short


def test_a_reply_that_never_fits_gives_no_row(tokenizer):
    examples = build_examples(3)
    examples[1] = replace(examples[1], reply="word " * 100)
    rows = build_rows(tokenizer, SYSTEM, examples, max_tokens=80, seed=1)
    assert len(rows) == 2
    assert build_row(tokenizer, SYSTEM, examples[1], max_tokens=80) is None


def test_the_seed_alone_decides_the_order_of_rows(tokenizer):
    examples = build_examples(20)
    first, again, other = (build_rows(tokenizer, SYSTEM, examples, max_tokens=200, seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    assert sorted(map(str, first)) == sorted(map(str, other))


@pytest.mark.parametrize(
    ("lengths", "batch_examples", "max_length", "row_tokens", "rows_per_step"),
    [
        ([40] * 100, 16, 1024, 640, 1),  # a batch of short chat fits into one row
        ([40] * 100, 64, 1024, 1024, 2),  # 2,560 tokens are about two and a half rows
        ([200] * 100, 16, 512, 512, 6),
        ([20] * 99 + [500], 4, 96, 500, 1),  # the longest example always fits
    ],
)
def test_a_step_sees_about_the_wanted_examples(lengths, batch_examples, max_length, row_tokens, rows_per_step):
    rows = [Row([1] * length, [1] * length) for length in lengths]
    batching = plan_batching(rows, batch_examples=batch_examples, max_length=max_length)
    assert (batching.row_tokens, batching.rows_per_step) == (row_tokens, rows_per_step)
