"""Prompts that begin alike are read once, and every answer stays what it would have been."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference.server.cache import SlotCache, StepView
from inference.server.engine import Engine
from inference.server.generation import Completion, GenerationRequest
from inference.server.prefixes import BLOCK_TOKENS, PrefixCache
from nocap.domain import BASE, AdapterName
from nocap.errors import InferenceError
from tests.inference.server import tiny

NAMES = [BASE, "genz-v1", "genz-v2"]
SYSTEM = tiny.random_prompts(1, seed=31)[0] * 4
MIB = 2**20


@pytest.fixture
def cached(base_folder: Path, adapters_dir: Path) -> Iterator[Engine]:
    """Room for about 300 tokens, so that blocks are also evicted; a base of its own, for one engine serves a base."""
    per_token = 3 * 2 * 2 * 16 * 4
    with Engine(
        tiny.load(base_folder), max_batch=3, max_queue=8, max_adapters=2, max_rank=8, prefix_cache_bytes=300 * per_token
    ) as engine:
        for name in NAMES[1:]:
            engine.load_adapter(name, adapters_dir / name)
        yield engine


def tokens(answers: list[Completion]) -> list[list[int]]:
    return [list(answer.token_ids) for answer in answers]


def test_a_conversation_is_read_once_and_answered_the_same(cached: Engine, engine: Engine) -> None:
    history: list[int] = list(SYSTEM[:60])
    read = whole = 0
    for turn in range(5):
        history += tiny.random_prompts(1, seed=turn, longest=20)[0]
        reply = cached.submit(tiny.greedy(history, max_tokens=12), stream=False).result(30)
        plain = engine.submit(tiny.greedy(history, max_tokens=12), stream=False).result(30)
        assert reply.token_ids == plain.token_ids
        assert plain.reused_tokens == 0
        read += reply.prompt_tokens - reply.reused_tokens
        whole += reply.prompt_tokens
        history += reply.token_ids
    assert read < whole / 2


def test_the_same_prompt_again_reads_at_least_its_last_token(cached: Engine) -> None:
    prompt = SYSTEM[: 4 * BLOCK_TOKENS]
    answers = [cached.submit(tiny.greedy(prompt), stream=False).result(30) for _ in range(2)]
    assert answers[1].reused_tokens == 3 * BLOCK_TOKENS
    assert answers[0].token_ids == answers[1].token_ids


def test_adapters_share_nothing(cached: Engine) -> None:
    prompt = SYSTEM[:80]
    for name in NAMES:
        assert cached.submit(tiny.greedy(prompt, name), stream=False).result(30).reused_tokens == 0
        assert cached.submit(tiny.greedy(prompt, name), stream=False).result(30).reused_tokens == 72


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    asked=st.lists(
        st.tuples(st.sampled_from(NAMES), st.integers(0, 90), st.integers(0, 3), st.integers(1, 12)),
        min_size=1,
        max_size=10,
    )
)
def test_greedy_answers_equal_generate_with_the_prefix_cache_in_mixed_batches(
    asked: list[tuple[str, int, int, int]], cached: Engine, base_folder: Path, adapters_dir: Path
) -> None:
    requests = [
        tiny.greedy([*SYSTEM[:shared], *tiny.random_prompts(4, seed=5, longest=9)[tail]], name, length)
        for name, shared, tail, length in asked
    ]
    answers = cached.generate_all(requests)
    assert tokens(answers) == [_reference(request, base_folder, adapters_dir) for request in requests]


_known: dict[GenerationRequest, list[int]] = {}


def _reference(request: GenerationRequest, base_folder: Path, adapters_dir: Path) -> list[int]:
    if request not in _known:
        assert request.prompt_token_ids is not None
        folder = None if request.adapter == BASE else adapters_dir / request.adapter
        (_known[request],) = tiny.reference(
            base_folder, [request.prompt_token_ids], request.sampling.max_tokens, folder
        )
    return _known[request]


def test_an_adapter_that_goes_and_comes_leaves_nothing_behind(
    cached: Engine, base_folder: Path, adapters_dir: Path
) -> None:
    prompt = SYSTEM[:80]
    first = cached.submit(tiny.greedy(prompt, "genz-v1"), stream=False).result(30)
    cached.unload_adapter("genz-v1")
    cached.load_adapter("genz-v3", adapters_dir / "genz-v3")
    other = cached.submit(tiny.greedy(prompt, "genz-v3"), stream=False).result(30)
    assert other.reused_tokens == 0
    assert tokens([other]) == tiny.reference(base_folder, [prompt], 12, adapters_dir / "genz-v3")
    cached.unload_adapter("genz-v3")
    cached.load_adapter("genz-v1", adapters_dir / "genz-v1")
    again = cached.submit(tiny.greedy(prompt, "genz-v1"), stream=False).result(30)
    assert (again.reused_tokens, again.token_ids) == (0, first.token_ids)


def test_what_a_failed_request_computed_is_not_kept(cached: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = SYSTEM[:40]
    real = cached._runner.logits

    def logits(first_slot, chunks, starts, adapters):  # type: ignore[no-untyped-def]
        return real(first_slot, chunks, starts, adapters) * float("nan")

    monkeypatch.setattr(cached._runner, "logits", logits)
    with pytest.raises(InferenceError, match="not finite"):
        cached.submit(tiny.greedy(prompt), stream=False).result(30)
    monkeypatch.undo()
    assert cached.submit(tiny.greedy(prompt), stream=False).result(30).reused_tokens == 0


# The store by itself: one layer of two heads of one number, whose keys are the tokens.


def slot_cache() -> SlotCache:
    cache = SlotCache(layers=1, slots=2, max_length=128)
    cache.view = StepView((), torch.tensor([0]), torch.tensor([0]))
    cache.layers[0].update(torch.zeros(1, 2, 1, 1), torch.zeros(1, 2, 1, 1))
    return cache


def write(cache: SlotCache, slot: int, sequence: list[int]) -> None:
    for store in cache.stores():
        store[slot] = -1
        store[slot, :, : len(sequence), 0] = torch.tensor(sequence, dtype=torch.float32)


sequences = st.lists(st.integers(0, 1), max_size=60).map(lambda bits: [bit for bit in bits for _ in range(2)])


@given(
    steps=st.lists(st.tuples(st.sampled_from(["a", "b"]), sequences, st.booleans()), max_size=30),
    blocks=st.integers(0, 9),
)
def test_what_is_restored_is_what_was_kept_within_the_bound(
    steps: list[tuple[str, list[int], bool]], blocks: int
) -> None:
    cache = slot_cache()
    block_bytes = 2 * 2 * BLOCK_TOKENS * 4
    prefixes = PrefixCache(cache, blocks * block_bytes + block_bytes - 1)
    assert prefixes.blocks == blocks
    kept: dict[str, list[list[int]]] = {"a": [], "b": []}
    for name, sequence, drops in steps:
        adapter = AdapterName(name)
        write(cache, 1, [])
        length = prefixes.restore(adapter, sequence, 1)
        assert length < max(len(sequence), 1)
        assert any(length == 0 or sequence[:length] == old[:length] for old in [*kept[name], []])
        for store in cache.stores():
            assert store[1, :, :length, 0].tolist() == [sequence[:length]] * 2
            assert (store[1, :, length:] == -1).all()
        if drops:
            prefixes.drop(adapter)
            kept[name].clear()
            assert prefixes.restore(adapter, sequence, 1) == 0
        write(cache, 0, sequence)
        prefixes.keep(adapter, sequence, 0)
        kept[name].append(sequence)
        assert prefixes.used_blocks <= blocks


def test_the_longest_unused_goes_first() -> None:
    cache = slot_cache()
    prefixes = PrefixCache(cache, 3 * 2 * 2 * BLOCK_TOKENS * 4)
    one, two, three = ([number] * (BLOCK_TOKENS + 1) for number in (1, 2, 3))
    for sequence in (one, two):
        prefixes.keep(BASE, sequence, 0)
    prefixes.restore(BASE, one, 0)
    prefixes.keep(BASE, three * 2, 0)
    assert [prefixes.restore(BASE, sequence, 0) for sequence in (one, two, three)] == [BLOCK_TOKENS, 0, BLOCK_TOKENS]
