"""Every documented architecture loads, is quantised, takes a LoRA, and answers through the engine as by `generate`."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference.server.engine import Engine
from tests.inference.server import tiny

PROMPTS = tiny.random_prompts(3, seed=11, longest=24)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_greedy_answers_equal_generate_with_and_without_an_adapter(architecture: str, tmp_path: Path) -> None:
    folder = tiny.write_model(tmp_path / architecture, architecture)
    adapter = tiny.write_adapter(folder, tmp_path / "genz-v1", seed=4)
    plain, adapted = tiny.reference(folder, PROMPTS, 12), tiny.reference(folder, PROMPTS, 12, adapter)
    assert plain != adapted
    assert len({token for answer in plain for token in answer}) > 8
    with Engine(tiny.load(folder), max_batch=4, max_queue=8, max_adapters=2, max_rank=8) as engine:
        engine.load_adapter("genz-v1", adapter)
        requests = [tiny.greedy(prompt, name, 12) for prompt in PROMPTS for name in ("base", "genz-v1")]
        answers = [list(answer.token_ids) for answer in engine.generate_all(requests)]
    assert answers[::2] == plain
    assert answers[1::2] == adapted
