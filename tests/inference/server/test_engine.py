"""The engine answers exactly as the model alone would, whatever else it is doing."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference.base_model import BaseModel
from inference.server import adapters, loop
from inference.server.cache import SlotCache
from inference.server.engine import Engine
from inference.server.generation import Completion, GenerationRequest
from inference.server.text import TextStream
from nocap.domain import BASE, AdapterName, ChatMessage, SamplingOptions
from nocap.errors import BackendBusy, BackendUnavailable, InferenceError, InputError, PromptTooLong, UnknownAdapter
from tests.inference.server import tiny

PROMPTS = tiny.random_prompts(12)


def sampled(prompt: tuple[int, ...], seed: int | None, **options: object) -> GenerationRequest:
    sampling = SamplingOptions(**({"temperature": 1.0, "top_p": 0.9, "max_tokens": 12, "seed": seed} | options))  # type: ignore[arg-type]
    return GenerationRequest(BASE, sampling=sampling, prompt_token_ids=prompt)


def tokens(completions: list[Completion]) -> list[list[int]]:
    return [list(completion.token_ids) for completion in completions]


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_greedy_answers_equal_generate_in_mixed_batches(
    base_folder: Path, adapters_dir: Path, quantization: str
) -> None:
    prompts, names = PROMPTS[:6], [BASE, "genz-v1", "genz-v2"]
    expected = {
        name: tiny.reference(base_folder, prompts, 10, None if name == BASE else adapters_dir / name, quantization)
        for name in names
    }
    assert expected[BASE] != expected["genz-v1"] != expected["genz-v2"]
    wanted = [(prompt, names[(place + turn) % 3]) for turn in range(3) for place, prompt in enumerate(prompts)]
    with Engine(tiny.load(base_folder, quantization), max_batch=5, max_queue=8, max_adapters=2, max_rank=8) as engine:
        for name in names[1:]:
            engine.load_adapter(name, adapters_dir / name)
        answers = engine.generate_all([tiny.greedy(prompt, name, 10) for prompt, name in wanted])
        alone = engine.submit(tiny.greedy(prompts[0], "genz-v2", 10), stream=False).result()
    for answer, (prompt, name) in zip(answers, wanted, strict=True):
        assert answer.adapter == name
        assert list(answer.token_ids) == expected[name][prompts.index(prompt)]
    assert list(alone.token_ids) == expected["genz-v2"][0]


@pytest.mark.parametrize(
    ("owner", "name", "value"),
    [(adapters, "PREPARE_BELOW_BYTES", 0), (torch.backends.mkldnn, "is_available", lambda: False)],
    ids=["too large a base, or one on a GPU", "a torch without oneDNN"],
)
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_layers_that_are_not_prepared_answer_the_same(
    owner: object,
    name: str,
    value: object,
    quantization: str,
    base_folder: Path,
    adapters_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prompts, folder = PROMPTS[:4], adapters_dir / "genz-v1"
    base = tiny.load(base_folder, quantization)
    monkeypatch.setattr(owner, name, value)
    with Engine(base, max_batch=5, max_queue=8, max_adapters=2, max_rank=8) as engine:
        assert not any(layer.prepared is not None and layer.prepared.is_mkldnn for layer in layers(engine))
        engine.load_adapter("genz-v1", folder)
        asked = [tiny.greedy(prompt, name, 10) for prompt in prompts for name in (BASE, "genz-v1")]
        answers = tokens(engine.generate_all(asked))
    assert answers[::2] == tiny.reference(base_folder, prompts, 10, None, quantization)
    assert answers[1::2] == tiny.reference(base_folder, prompts, 10, folder, quantization)


def layers(engine: Engine) -> list[adapters._SlottedLinear]:
    return [one for one in engine.base.model.modules() if isinstance(one, adapters._SlottedLinear)]


def test_an_engine_in_bf16_as_a_gpu_has_it_answers_nearly_as_generate(base_folder: Path, adapters_dir: Path) -> None:
    """On the CPU, since there is no GPU here: types and tolerances are those of CUDA, the kernels are not."""
    base = tiny.load(base_folder)
    base = replace(base, model=base.model.to(torch.bfloat16), device="cuda")
    ids = [torch.tensor([list(prompt)]) for prompt in PROMPTS]
    expected = [
        base.model.generate(one, max_new_tokens=1, do_sample=False, pad_token_id=1)[0, -1].item() for one in ids
    ]
    with Engine(base, max_batch=5, max_queue=8, max_adapters=2, max_rank=8) as engine:
        assert all(layer.prepared is None and layer.down_KI.dtype == torch.bfloat16 for layer in layers(engine))
        engine.load_adapter("genz-v1", adapters_dir / "genz-v1")
        asked = [tiny.greedy(prompt, name, 6) for prompt in PROMPTS for name in (BASE, "genz-v1")]
        answers = tokens(engine.generate_all(asked))
    assert sum(own[0] == first for own, first in zip(answers[::2], expected, strict=True)) >= len(PROMPTS) - 2
    assert answers[::2] != answers[1::2]


def test_an_adapter_on_some_layers_only_equals_peft(base_folder: Path, adapters_dir: Path, engine: Engine) -> None:
    engine.load_adapter("genz-v2", adapters_dir / "genz-v2")
    engine.unload_adapter("genz-v2")
    engine.load_adapter("genz-v3", adapters_dir / "genz-v3")
    answers = engine.generate_all([tiny.greedy(prompt, "genz-v3") for prompt in PROMPTS[:6]])
    assert tokens(answers) == tiny.reference(base_folder, PROMPTS[:6], 12, adapters_dir / "genz-v3")


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 20)), min_size=1, max_size=9), seed=st.integers(0, 9)
)
def test_no_mix_of_lengths_changes_an_answer(lengths: list[tuple[int, int]], seed: int, engine: Engine) -> None:
    generator = torch.Generator().manual_seed(seed)
    requests = [
        tiny.greedy(torch.randint(2, 400, (prompt,), generator=generator).tolist(), max_tokens=reply)
        for prompt, reply in lengths
    ]
    together = tokens(engine.generate_all(requests))
    assert together == [list(engine.submit(request, stream=False).result().token_ids) for request in requests]


def test_a_prompt_longer_than_a_step_is_read_in_pieces_beside_running_streams(
    base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    longer = tuple(range(2, 200))
    with Engine(base, max_batch=3, max_queue=8, max_adapters=1, max_rank=2) as engine:
        expected = tokens(engine.generate_all([tiny.greedy(PROMPTS[0], max_tokens=40), tiny.greedy(longer)]))
    monkeypatch.setattr(loop, "PREFILL_TOKENS_PER_STEP", 16)
    with Engine(base, max_batch=3, max_queue=8, max_adapters=1, max_rank=2) as engine:
        running = engine.submit(tiny.greedy(PROMPTS[0], max_tokens=40), stream=False)
        answers = engine.generate_all([tiny.greedy(longer), tiny.greedy(longer), tiny.greedy(PROMPTS[1])])
        assert tokens([running.result(), answers[0]]) == expected
        assert answers[0].token_ids == answers[1].token_ids


def test_a_seeded_answer_does_not_depend_on_its_batch(engine: Engine) -> None:
    alone = [engine.submit(sampled(prompt, 5), stream=False).result() for prompt in PROMPTS]
    crowded = engine.generate_all([sampled(prompt, 5) for prompt in PROMPTS])
    mixed = engine.generate_all(
        [request for prompt in PROMPTS for request in (sampled(prompt, 5), sampled(prompt, None, temperature=2.0))]
    )
    assert tokens(alone) == tokens(crowded) == tokens(mixed[::2])


def test_seeds_and_temperatures_make_a_difference(engine: Engine) -> None:
    answers = engine.generate_all([sampled(PROMPTS[0], seed) for seed in range(8)])
    assert len({answer.token_ids for answer in answers}) > 4
    unseeded = engine.generate_all([sampled(PROMPTS[0], None) for _ in range(8)])
    assert len({answer.token_ids for answer in unseeded}) > 4


def test_the_stream_joined_is_the_whole_text(engine: Engine) -> None:
    for prompt in PROMPTS[:5]:
        generation = engine.submit(tiny.greedy(prompt, max_tokens=30))
        assert "".join(generation) == generation.result().text
        assert generation.result().text == engine.submit(tiny.greedy(prompt, max_tokens=30), stream=False).result().text


def test_a_stop_string_ends_the_answer_before_itself(engine: Engine) -> None:
    whole = engine.submit(sampled(PROMPTS[1], 1, max_tokens=40)).result()
    stop = whole.text[len(whole.text) // 2 :][:3]
    stopped = engine.submit(sampled(PROMPTS[1], 1, max_tokens=40, stop=(stop,)))
    assert "".join(stopped) == whole.text[: whole.text.index(stop)]
    assert stopped.result().finish_reason == "stop"
    assert len(stopped.result().token_ids) < len(whole.token_ids)
    quiet = engine.submit(sampled(PROMPTS[1], 1, max_tokens=40, stop=(stop,)), stream=False)
    assert quiet.result() == stopped.result()


def test_messages_are_rendered_by_the_one_rendering(engine: Engine) -> None:
    request = GenerationRequest(BASE, (ChatMessage("system", "be kind"), ChatMessage("user", "hello")))
    text = engine.base.tokenizer.decode(engine.prompt_token_ids(request))
    assert text == "<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"


def test_an_end_token_ends_the_answer(base: BaseModel) -> None:
    with Engine(base, max_batch=2, max_queue=2, max_adapters=1, max_rank=2) as engine:
        whole = engine.submit(tiny.greedy(PROMPTS[0])).result()
    ended = replace(base, stop_token_ids=frozenset({whole.token_ids[4]}))
    with Engine(ended, max_batch=2, max_queue=2, max_adapters=1, max_rank=2) as engine:
        answer = engine.submit(tiny.greedy(PROMPTS[0])).result()
    assert answer.finish_reason == "stop"
    assert answer.token_ids == whole.token_ids[: whole.token_ids.index(whole.token_ids[4]) + 1]


def test_cancelling_ends_a_running_and_a_waiting_request(engine: Engine) -> None:
    running = [engine.submit(tiny.greedy(PROMPTS[0], max_tokens=200)) for _ in range(3)]
    waiting = engine.submit(tiny.greedy(PROMPTS[0], max_tokens=200))
    next(iter(running[0]))
    waiting.cancel()
    running[0].cancel()
    assert waiting.result(30).token_ids == ()
    cancelled = running[0].result(30)
    assert cancelled.finish_reason == waiting.result().finish_reason == "cancelled"
    assert 0 < len(cancelled.token_ids) < 200
    assert len(running[1].result(60).token_ids) == 200 or running[1].result().finish_reason == "stop"


def test_a_full_queue_is_busy_and_says_when_to_come_back(base: BaseModel) -> None:
    with Engine(base, max_batch=1, max_queue=2, max_adapters=1, max_rank=2) as engine:
        accepted = []
        with pytest.raises(BackendBusy) as refused:
            for _ in range(5):
                accepted.append(engine.submit(tiny.greedy(PROMPTS[0], max_tokens=200)))
        assert len(accepted) in (2, 3)
        assert refused.value.retry_after_seconds >= 1
        for generation in accepted:
            generation.cancel()
        assert all(generation.result(30).finish_reason == "cancelled" for generation in accepted)


def test_what_cannot_be_answered_is_refused_with_a_reason(engine: Engine) -> None:
    with pytest.raises(PromptTooLong, match="maximum context length of 256"):
        engine.submit(tiny.greedy(range(2, 252), max_tokens=10))
    with pytest.raises(InputError, match="outside the vocabulary"):
        engine.submit(tiny.greedy([5, 600]))
    with pytest.raises(InputError, match="empty"):
        engine.submit(tiny.greedy([]))
    with pytest.raises(UnknownAdapter, match="nope"):
        engine.submit(tiny.greedy([5], "nope"))
    for options in ({"temperature": -1.0}, {"top_p": 0.0}, {"max_tokens": 0}, {"stop": ("",)}):
        with pytest.raises(InputError):
            engine.submit(sampled((5,), 1, **options))


def test_draining_refuses_new_requests_and_finishes_the_accepted(engine: Engine) -> None:
    accepted = engine.submit(tiny.greedy(PROMPTS[0], max_tokens=50))
    engine.drain()
    assert not engine.is_ready
    with pytest.raises(BackendUnavailable):
        engine.submit(tiny.greedy(PROMPTS[0]))
    assert accepted.result(60).finish_reason in ("length", "stop")


def test_stopping_fails_what_is_left_and_gives_the_model_back(base: BaseModel) -> None:
    before = {name: type(module) for name, module in base.model.named_modules()}
    engine = Engine(base, max_batch=1, max_queue=4, max_adapters=1, max_rank=2)
    engine.start()
    left = [engine.submit(tiny.greedy(PROMPTS[0], max_tokens=200)) for _ in range(3)]
    engine.stop()
    for generation in left[1:]:
        with pytest.raises(BackendUnavailable):
            generation.result(30)
    assert {name: type(module) for name, module in base.model.named_modules()} == before


def test_logits_that_are_not_finite_fail_their_row_alone(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = engine.generate_all([tiny.greedy(prompt) for prompt in PROMPTS[:2]])
    poisoned = tiny.greedy([7, 7, 7])
    runner = engine._runner
    real = runner.logits

    def logits(first_slot, chunks, starts, adapters):  # type: ignore[no-untyped-def]
        result = real(first_slot, chunks, starts, adapters)
        for row, chunk in enumerate(chunks):
            if list(chunk) == [7, 7, 7]:
                result[row] = float("nan")
                runner.cache.layers[0].values[first_slot + row] = float("nan")
        return result

    monkeypatch.setattr(runner, "logits", logits)
    for _ in range(3):
        requests = [
            engine.submit(request, stream=False)
            for request in (tiny.greedy(PROMPTS[0]), poisoned, tiny.greedy(PROMPTS[1]))
        ]
        with pytest.raises(InferenceError, match="not finite"):
            requests[1].result(30)
        assert tokens([requests[0].result(30), requests[2].result(30)]) == tokens(expected)


def test_a_step_that_raises_fails_only_the_row_that_makes_it(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = engine.generate_all([tiny.greedy(prompt) for prompt in PROMPTS[:2]])
    assert all(len(prompt) > 5 for prompt in PROMPTS[:2])
    real = engine._runner.logits

    def logits(first_slot, chunks, starts, adapters):  # type: ignore[no-untyped-def]
        if 5 in starts:  # only the prompt of three tokens decodes at this position
            raise RuntimeError("a kernel gave up")
        return real(first_slot, chunks, starts, adapters)

    good = [engine.submit(tiny.greedy(prompt), stream=False) for prompt in PROMPTS[:2]]
    monkeypatch.setattr(engine._runner, "logits", logits)
    bad = engine.submit(tiny.greedy([9, 9, 9]), stream=False)
    with pytest.raises(InferenceError, match="RuntimeError"):
        bad.result(30)
    assert tokens([generation.result(30) for generation in good]) == tokens(expected)


def test_a_reply_that_cannot_be_put_together_fails_alone(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = engine.generate_all([tiny.greedy(PROMPTS[0])])
    good = engine.submit(tiny.greedy(PROMPTS[0]), stream=False)
    monkeypatch.setattr(TextStream, "push", lambda self, token: 1 / 0)
    bad = engine.submit(tiny.greedy(PROMPTS[1]))
    with pytest.raises(InferenceError, match="ZeroDivisionError"):
        bad.result(30)
    assert tokens([good.result(30)]) == tokens(expected)
    assert engine.is_alive


def test_generate_all_takes_more_than_the_queue_holds_and_reports_progress(engine: Engine) -> None:
    seen: list[int] = []
    answers = engine.generate_all([tiny.greedy(prompt, max_tokens=3) for prompt in PROMPTS * 3], seen.append)
    assert len(answers) == 36
    assert seen == list(range(1, 37))


def test_generate_all_raises_the_first_failure(engine: Engine) -> None:
    with pytest.raises(UnknownAdapter):
        engine.generate_all([tiny.greedy(PROMPTS[0]), tiny.greedy(PROMPTS[0], "nope")])
    assert engine.submit(tiny.greedy(PROMPTS[0])).result(30)


def test_memory_that_runs_out_sheds_load_and_comes_back(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    with Engine(base, max_batch=8, max_queue=8, max_adapters=1, max_rank=2) as engine:
        requests = [tiny.greedy(prompt) for prompt in PROMPTS]
        expected = tokens(engine.generate_all(requests))
        real, widths, room = engine._runner.logits, [], [2]

        def logits(first_slot, chunks, starts, adapters):  # type: ignore[no-untyped-def]
            widths.append(len(chunks))
            if len(chunks) > room[0]:
                raise torch.OutOfMemoryError("no memory")
            return real(first_slot, chunks, starts, adapters)

        monkeypatch.setattr(engine._runner, "logits", logits)
        assert tokens(engine.generate_all(requests)) == expected
        room[0] = 0
        with pytest.raises(BackendBusy, match="out of memory"):
            engine.submit(requests[0], stream=False).result(30)
        room[0] = 99
        widths.clear()
        assert tokens(engine.generate_all(requests * 3)) == expected * 3
        assert max(widths) > 2


def test_on_a_gpu_memory_that_ran_out_is_handed_back_to_it(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    handed_back: list[bool] = []
    real, tries = engine._runner.logits, [1]

    def logits(first_slot, chunks, starts, adapters):  # type: ignore[no-untyped-def]
        if tries.pop() if tries else 0:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(first_slot, chunks, starts, adapters)

    monkeypatch.setattr(SlotCache, "device", torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: handed_back.append(True))
    monkeypatch.setattr(engine._runner, "logits", logits)
    with pytest.raises(BackendBusy):
        engine.submit(tiny.greedy(PROMPTS[0]), stream=False).result(30)
    assert handed_back == [True]
    assert engine.submit(tiny.greedy(PROMPTS[0]), stream=False).result(30)


def test_a_reply_that_takes_too_long_is_given_up(base: BaseModel) -> None:
    with Engine(base, max_batch=1, max_queue=8, max_adapters=1, max_rank=2, deadline_seconds=0.0) as engine:
        for late in [engine.submit(tiny.greedy(PROMPTS[0], max_tokens=200)) for _ in range(3)]:
            with pytest.raises(BackendUnavailable, match="deadline_seconds"):
                late.result(30)
        assert engine.is_ready


def test_callers_on_many_threads_each_get_their_own_answer(engine: Engine) -> None:
    expected = tokens(engine.generate_all([tiny.greedy(prompt) for prompt in PROMPTS]))
    wrong: list[int] = []

    def ask(place: int) -> None:
        for turn in range(3):
            which = (place + 5 * turn) % len(PROMPTS)
            while True:
                try:
                    answer = engine.submit(tiny.greedy(PROMPTS[which])).result(60)
                    break
                except BackendBusy:
                    time.sleep(0.02)
            if list(answer.token_ids) != expected[which]:
                wrong.append(which)

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_metrics_count_what_was_done(engine: Engine) -> None:
    engine.generate_all([tiny.greedy(PROMPTS[0], max_tokens=4), tiny.greedy(PROMPTS[1], max_tokens=4)])
    exposition = engine.metrics.exposition().decode()
    assert 'vllm:generation_tokens_total{model_name="base"} 8.0' in exposition
    assert f'vllm:prompt_tokens_total{{model_name="base"}} {len(PROMPTS[0]) + len(PROMPTS[1])}.0' in exposition
    assert 'vllm:request_success_total{finished_reason="length",model_name="base"} 2.0' in exposition
    assert 'vllm:time_to_first_token_seconds_count{model_name="base"} 2.0' in exposition


def test_adapter_names_are_part_of_the_request(engine: Engine, adapters_dir: Path) -> None:
    engine.load_adapter("genz-v1", adapters_dir / "genz-v1")
    answer = engine.submit(tiny.greedy(PROMPTS[0], "genz-v1")).result(30)
    assert answer.adapter == AdapterName("genz-v1")
