"""A retrain borrows the card: the engine lets go of its model, says so to who asks, and comes back as it was."""

from __future__ import annotations

import asyncio
import gc
import shutil
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest

from inference.base_model import BaseModel
from inference.server import pausing
from inference.server.api import create_app
from inference.server.engine import Engine
from nocap.errors import BackendPaused, ModelError
from tests.inference.server import tiny

USER, ADMIN = {"Authorization": "Bearer user-1"}, {"Authorization": "Bearer admin-1"}
PROMPT = tiny.random_prompts(1)[0]
ASK = {"model": "base", "messages": [{"role": "user", "content": "hello you"}], "temperature": 0, "max_tokens": 8}


@pytest.fixture
def pausable(base_folder: Path, adapters_dir: Path, tmp_path: Path) -> Iterator[Engine]:
    """An engine of its own, since its model goes away; two adapters are loaded."""
    shutil.copytree(adapters_dir, tmp_path / "adapters")

    def load() -> BaseModel:
        return tiny.load(base_folder)

    with Engine(load(), max_batch=2, max_queue=4, max_adapters=2, max_rank=8, load_again=load) as engine:
        for name in ("genz-v1", "genz-v2"):
            engine.load_adapter(name, tmp_path / "adapters" / name)
        yield engine


@pytest.fixture
async def http(pausable: Engine, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(pausable, user_token="user-1", admin_token="admin-1", adapters_dir=tmp_path / "adapters")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://nocap") as client:
        yield client


def answers(engine: Engine) -> list[tuple[int, ...]]:
    requests = [tiny.greedy(PROMPT, name) for name in ("base", "genz-v1", "genz-v2")]
    return [reply.token_ids for reply in engine.generate_all(requests)]


def test_a_pause_frees_the_model_and_after_it_every_answer_is_the_same(pausable: Engine) -> None:
    before, model = answers(pausable), weakref.ref(pausable.base.model)
    running = [pausable.submit(tiny.greedy(PROMPT, "genz-v1", max_tokens=60), stream=False) for _ in range(3)]
    pausable.pause()
    assert [len(one.result(0).token_ids) for one in running] == [60, 60, 60], "what was accepted is answered"
    gc.collect()
    assert model() is None, "nothing holds the model any more"
    assert (pausable.is_alive, pausable.is_ready, pausable.is_paused) == (True, False, True)
    with pytest.raises(BackendPaused, match="made room for a retrain"):
        pausable.submit(tiny.greedy(PROMPT))
    pausable.resume()
    assert pausable.is_ready and answers(pausable) == before and len({*before}) == 3


def test_an_adapter_that_changed_during_the_pause_is_missing_and_a_held_one_can_be_asked_for_again(
    pausable: Engine, tmp_path: Path
) -> None:
    pausable.pause()
    assert pausable.load_adapter("genz-v1", tmp_path / "adapters" / "genz-v1").name == "genz-v1"
    weights = tmp_path / "adapters" / "genz-v2" / "adapter_model.safetensors"
    weights.chmod(0o600)
    weights.write_bytes(b"other")
    pausable.resume()
    assert [adapter.name for adapter in pausable.adapters()] == ["genz-v1"]


def test_a_base_that_changed_during_the_pause_is_not_served(pausable: Engine, tmp_path: Path) -> None:
    pausable.pause()
    other = tiny.write_model(tmp_path / "other", seed=9)
    pausable._load_again = lambda: tiny.load(other)
    with pytest.raises(ModelError, match="have changed"):
        pausable.resume()
    assert pausable.is_paused


async def test_over_http_only_the_admin_pauses_and_members_are_told_to_come_back(
    http: httpx.AsyncClient, pausable: Engine
) -> None:
    lease = {"owner": "run-1", "lease_seconds": 60}
    assert (await http.post("/v1/pause", headers=USER, json=lease)).status_code == 403
    assert (await http.post("/v1/pause", headers=ADMIN, json=lease)).status_code == 200
    assert (await http.post("/v1/pause", headers=ADMIN, json=lease)).status_code == 200, "renewing is no new pause"
    refused = await http.post("/v1/chat/completions", headers=USER, json=ASK)
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "15")
    assert refused.json()["error"]["code"] == "paused"
    assert [(await http.get(path)).status_code for path in ("/health", "/ready")] == [200, 503]
    other = {"owner": "run-2", "lease_seconds": 60}
    for path, body in (("/v1/pause", other), ("/v1/resume", {"owner": "run-2"})):
        answer = await http.post(path, headers=ADMIN, json=body)
        assert answer.status_code == 409 and "run-1" in answer.text
    assert (await http.post("/v1/resume", headers=ADMIN, json={"owner": "run-1"})).status_code == 200
    assert (await http.post("/v1/chat/completions", headers=USER, json=ASK)).status_code == 200
    assert (await http.post("/v1/resume", headers=ADMIN, json={"owner": "run-2"})).status_code == 200, "nothing to do"


async def test_a_lease_that_nobody_renews_runs_out_and_a_base_that_fails_to_load_is_tried_again(
    http: httpx.AsyncClient, pausable: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pausing, "RETRY_SECONDS", 0.1)
    load, failures = pausable._load_again, [RuntimeError("CUDA out of memory"), ModelError("The weights are gone.")]

    def fails_twice() -> BaseModel:
        if failures:
            raise failures.pop()
        assert load is not None
        return load()

    pausable._load_again = fails_twice
    body = {"owner": "run-1", "lease_seconds": 0.2}
    assert (await http.post("/v1/pause", headers=ADMIN, json=body)).status_code == 200
    await _until(lambda: pausable.is_ready)
    assert not failures
    assert (await http.post("/v1/chat/completions", headers=USER, json=ASK)).status_code == 200


async def _until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        await asyncio.sleep(0.05)
