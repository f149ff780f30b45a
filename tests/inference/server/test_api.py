"""The HTTP surface: OpenAI's shapes, two tokens, confined paths, and a grammar of failure."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from inference.base_model import BaseModel
from inference.client import BackendClient
from inference.server.api import confined, create_app
from inference.server.engine import Engine
from inference.server.generation import GenerationRequest
from nocap.domain import BASE, AdapterName, ChatMessage, SamplingOptions
from nocap.errors import AdapterError, PromptTooLong, UnknownAdapter
from tests.inference.server import tiny

USER, ADMIN = {"Authorization": "Bearer user-1"}, {"Authorization": "Bearer admin-1"}
HELLO = {"model": "base", "messages": [{"role": "user", "content": "hello you"}], "temperature": 0, "max_tokens": 8}


@pytest.fixture
def app_engine(base: BaseModel) -> Iterator[Engine]:
    with Engine(base, max_batch=2, max_queue=1, max_adapters=2, max_rank=8) as engine:
        yield engine


@pytest.fixture
async def http(app_engine: Engine, adapters_dir: Path) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(app_engine, user_token="user-1", admin_token="admin-1", adapters_dir=adapters_dir)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://nocap") as client:
        yield client


def events(response: httpx.Response) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


async def load(http: httpx.AsyncClient, name: str, path: str | None = None) -> httpx.Response:
    body = {"lora_name": name, "lora_path": path or name}
    return await http.post("/v1/load_lora_adapter", headers=ADMIN, json=body)


async def test_a_whole_answer_has_openais_shape(http: httpx.AsyncClient) -> None:
    answer = (await http.post("/v1/chat/completions", headers=USER, json=HELLO)).json()
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "base"
    (choice,) = answer["choices"]
    assert choice["message"]["role"] == "assistant"
    assert choice["finish_reason"] == "length"
    usage = answer["usage"]
    assert usage["completion_tokens"] == 8
    assert usage["total_tokens"] == usage["prompt_tokens"] + 8


async def test_the_stream_joined_is_the_whole_answer(http: httpx.AsyncClient) -> None:
    whole = (await http.post("/v1/chat/completions", headers=USER, json=HELLO)).json()
    options = {"stream": True, "stream_options": {"include_usage": True}}
    streamed = await http.post("/v1/chat/completions", headers=USER, json=HELLO | options)
    assert streamed.headers["content-type"].startswith("text/event-stream")
    *chunks, last, usage = events(streamed)
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert {chunk["model"] for chunk in [*chunks, last, usage]} == {"base"}
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert text == whole["choices"][0]["message"]["content"]
    assert last["choices"][0]["finish_reason"] == "length"
    assert usage["choices"] == []
    assert usage["usage"] == whole["usage"]


async def test_options_that_clients_send_are_honoured(http: httpx.AsyncClient) -> None:
    async def answer(**options: Any) -> str:
        response = await http.post("/v1/chat/completions", headers=USER, json=HELLO | options)
        assert response.status_code == 200, response.text
        text: str = response.json()["choices"][0]["message"]["content"]
        return text

    seeded = await answer(temperature=1.0, seed=4, max_tokens=20)
    assert seeded == await answer(temperature=1.0, seed=4, max_tokens=20)
    assert seeded != await answer(temperature=1.0, seed=5, max_tokens=20)
    stop = seeded[4:6]
    assert await answer(temperature=1.0, seed=4, max_tokens=20, stop=stop) == seeded[: seeded.index(stop)]
    assert await answer(max_tokens=None, max_completion_tokens=8, user="x", presence_penalty=0) == await answer()
    parts = [{"role": "user", "content": [{"type": "text", "text": "hello "}, {"type": "text", "text": "you"}]}]
    assert await answer(messages=parts) == await answer()


async def test_plain_completions_take_text_or_tokens(http: httpx.AsyncClient, app_engine: Engine) -> None:
    ids = app_engine.base.tokenizer.encode("hello you")
    bodies = [{"model": "base", "prompt": prompt, "temperature": 0, "max_tokens": 6} for prompt in ("hello you", ids)]
    answers = [(await http.post("/v1/completions", headers=USER, json=body)).json() for body in bodies]
    assert answers[0]["choices"] == answers[1]["choices"]
    streamed = events(await http.post("/v1/completions", headers=USER, json=bodies[0] | {"stream": True}))
    assert "".join(event["choices"][0]["text"] for event in streamed) == answers[0]["choices"][0]["text"]


async def test_adapters_are_loaded_listed_answered_and_unloaded(http: httpx.AsyncClient, adapters_dir: Path) -> None:
    plain = (await http.post("/v1/chat/completions", headers=USER, json=HELLO)).json()
    assert (await load(http, "genz-v1")).status_code == 200
    assert (await load(http, "genz-v2", str(adapters_dir / "genz-v2"))).status_code == 200
    models = (await http.get("/v1/models", headers=USER)).json()["data"]
    assert [model["id"] for model in models] == ["base", "genz-v1", "genz-v2"]
    assert models[1]["parent"] == "base"
    answer = (await http.post("/v1/chat/completions", headers=USER, json=HELLO | {"model": "genz-v1"})).json()
    assert answer["model"] == "genz-v1"
    assert answer["choices"] != plain["choices"]
    gone = await http.post("/v1/unload_lora_adapter", headers=ADMIN, json={"lora_name": "genz-v1"})
    assert gone.status_code == 200
    missing = await http.post("/v1/chat/completions", headers=USER, json=HELLO | {"model": "genz-v1"})
    assert missing.status_code == 404
    again = await http.post("/v1/unload_lora_adapter", headers=ADMIN, json={"lora_name": "genz-v1"})
    assert again.status_code == 404


@pytest.mark.parametrize("model", ["genz-v99", "", "Base", "qwen3"])
async def test_an_unknown_model_is_404_and_never_the_base(http: httpx.AsyncClient, model: str) -> None:
    for stream in (False, True):
        response = await http.post(
            "/v1/chat/completions", headers=USER, json=HELLO | {"model": model, "stream": stream}
        )
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "model_not_found"


async def test_tokens_decide_who_may_do_what(http: httpx.AsyncClient) -> None:
    body = {"lora_name": "genz-v1", "lora_path": "genz-v1"}
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "user-1"}, {"Authorization": "Bearer "}):
        refused = await http.post("/v1/chat/completions", headers=headers, json=HELLO)
        assert refused.status_code == 401
        assert refused.json()["error"]["type"] == "authentication_error"
        assert (await http.post("/v1/load_lora_adapter", headers=headers, json=body)).status_code == 401
        assert (await http.get("/v1/models", headers=headers)).status_code == 401
    assert (await http.post("/v1/load_lora_adapter", headers=USER, json=body)).status_code == 403
    assert (await http.post("/v1/unload_lora_adapter", headers=USER, json=body)).status_code == 403
    assert (await http.post("/v1/chat/completions", headers=ADMIN, json=HELLO)).status_code == 200


async def test_paths_outside_the_adapter_folder_are_refused(
    http: httpx.AsyncClient, adapters_dir: Path, app_engine: Engine, tmp_path: Path
) -> None:
    tiny_copy = tmp_path / "genz-v1"
    tiny_copy.symlink_to(adapters_dir / "genz-v1")
    for path in ("../genz-v1", "genz-v1/../genz-v1", "/etc", str(tiny_copy), ".", "", str(adapters_dir), "a\0b"):
        refused = await http.post(
            "/v1/load_lora_adapter", headers=ADMIN, json={"lora_name": "genz-v1", "lora_path": path}
        )
        assert refused.status_code == 400, path
    assert app_engine.adapters() == []


def test_a_symbolic_link_inside_the_adapter_folder_is_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "genz-v1").mkdir(parents=True)
    root = tmp_path / "adapters"
    root.mkdir()
    (root / "link").symlink_to(outside)
    with pytest.raises(AdapterError, match="symbolic link"):
        confined(root, "link/genz-v1")
    assert confined(root, "genz-v1") == root / "genz-v1"


async def test_refused_adapters_say_why(http: httpx.AsyncClient) -> None:
    for name, path, status, reason in (
        ("genz-v1", "nowhere", 400, "no adapter folder"),
        ("base", "genz-v1", 400, "cannot name an adapter"),
        ("../x", "genz-v1", 400, "cannot name an adapter"),
        ("genz-v9", "genz-v1", 400, "holds the adapter `genz-v1`"),
    ):
        refused = await load(http, name, path)
        assert refused.status_code == status
        assert reason in refused.json()["error"]["message"]
    assert (await load(http, "genz-v1")).status_code == 200
    assert (await load(http, "genz-v2")).status_code == 200
    assert (await load(http, "genz-v3")).status_code == 409


async def test_what_cannot_be_answered_is_400_with_the_reason(http: httpx.AsyncClient) -> None:
    async def refusal(**options: Any) -> dict[str, Any]:
        response = await http.post("/v1/chat/completions", headers=USER, json=HELLO | options)
        assert response.status_code == 400
        error: dict[str, Any] = response.json()["error"]
        assert error["message"]
        return error

    assert (await refusal(max_tokens=1000))["code"] == "context_length_exceeded"
    assert "256" in (await refusal(max_tokens=1000))["message"]
    assert "temperature" in (await refusal(temperature=99))["message"]
    assert "n" in (await refusal(n=2))["message"]
    assert "messages" in (await refusal(messages=[]))["message"]
    assert "role" in (await refusal(messages=[{"role": "tool", "content": "x"}]))["message"]
    too_long = [{"role": "user", "content": "school " * 300}]
    assert (await refusal(messages=too_long, max_tokens=None))["code"] == "context_length_exceeded"
    broken = await http.post("/v1/chat/completions", headers=USER, content=b"{")
    assert broken.status_code == 400
    assert (await http.get("/v1/nothing", headers=USER)).status_code == 404


def wait_for_place(engine: Engine) -> None:
    while engine._loop._waiting:
        time.sleep(0.001)


async def test_a_full_queue_is_429_and_draining_is_503(http: httpx.AsyncClient, app_engine: Engine) -> None:
    held = []
    for _ in range(3):
        wait_for_place(app_engine)
        held.append(app_engine.submit(tiny.greedy([5, 6], max_tokens=250)))
    busy = await http.post("/v1/chat/completions", headers=USER, json=HELLO)
    assert busy.status_code == 429
    assert int(busy.headers["retry-after"]) >= 1
    for generation in held:
        generation.cancel()
        generation.result(30)
    assert (await http.get("/ready")).status_code == 200
    app_engine.drain()
    assert (await http.get("/ready")).status_code == 503
    assert (await http.get("/health")).status_code == 200
    assert (await http.post("/v1/chat/completions", headers=USER, json=HELLO)).status_code == 503


async def test_out_of_memory_is_429_whole_or_streamed(
    http: httpx.AsyncClient, app_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def logits(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(app_engine._runner, "logits", logits)
    shed = await http.post("/v1/chat/completions", headers=USER, json=HELLO)
    assert (shed.status_code, shed.headers["retry-after"]) == (429, "1")
    streamed = await http.post("/v1/chat/completions", headers=USER, json=HELLO | {"stream": True})
    assert json.loads(streamed.text.split("data: ")[-1])["error"]["code"] == 429
    monkeypatch.undo()
    assert (await http.post("/v1/chat/completions", headers=USER, json=HELLO)).status_code == 200


async def test_numbers_that_are_not_finite_are_500_for_that_request_alone(
    http: httpx.AsyncClient, app_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = app_engine._runner.logits

    def logits(first_slot: int, chunks: Any, starts: Any, adapters: Any) -> torch.Tensor:
        found_BV = real(first_slot, chunks, starts, adapters)
        for row, chunk in enumerate(chunks):
            found_BV[row] += float("nan") if list(chunk) == [7, 7, 7] else 0.0
        return found_BV

    expected = (await http.post("/v1/chat/completions", headers=USER, json=HELLO)).json()["choices"]
    monkeypatch.setattr(app_engine._runner, "logits", logits)
    bad = {"model": "base", "prompt": [7, 7, 7], "max_tokens": 8, "temperature": 0}
    failed, well = await asyncio.gather(
        http.post("/v1/completions", headers=USER, json=bad),
        http.post("/v1/chat/completions", headers=USER, json=HELLO),
    )
    assert (failed.status_code, "not finite" in failed.json()["error"]["message"]) == (500, True)
    assert (well.status_code, well.json()["choices"]) == (200, expected)


async def test_a_bad_token_id_is_400_and_the_loop_goes_on(http: httpx.AsyncClient) -> None:
    for prompt in ([5, 10**6], [-1], []):
        body = {"model": "base", "prompt": prompt, "max_tokens": 4}
        assert (await http.post("/v1/completions", headers=USER, json=body)).status_code == 400
    assert (await http.post("/v1/chat/completions", headers=USER, json=HELLO)).status_code == 200


async def test_health_fails_when_the_engine_has_stopped(base: BaseModel, adapters_dir: Path) -> None:
    engine = Engine(base, max_batch=1, max_queue=1, max_adapters=1, max_rank=2)
    engine.start()
    app = create_app(engine, user_token="u", admin_token="a", adapters_dir=adapters_dir)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://nocap") as client:
        engine.stop()
        assert (await client.get("/health")).status_code == 503


async def test_metrics_are_exposed(http: httpx.AsyncClient) -> None:
    await http.post("/v1/chat/completions", headers=USER, json=HELLO)
    await load(http, "genz-v1")
    text = (await http.get("/metrics")).text
    assert 'vllm:generation_tokens_total{model_name="base"} 8.0' in text
    assert 'vllm:lora_requests_info{model_name="genz-v1"} 1.0' in text


async def test_our_own_client_speaks_with_it(app_engine: Engine, adapters_dir: Path) -> None:
    app = create_app(app_engine, user_token="user-1", admin_token="admin-1", adapters_dir=adapters_dir)
    messages, greedy = [ChatMessage("user", "hello you")], SamplingOptions(temperature=0, max_tokens=8)
    async with BackendClient("http://nocap", "user-1", "admin-1", transport=httpx.ASGITransport(app)) as client:
        await client.load_adapter(AdapterName("genz-v1"), "genz-v1")
        reply = await client.chat(AdapterName("genz-v1"), messages, greedy)
        text = "".join([piece async for piece in reply])
        whole = app_engine.submit(GenerationRequest(AdapterName("genz-v1"), tuple(messages), greedy)).result()
        assert text == whole.text
        with pytest.raises(UnknownAdapter):
            await client.chat(AdapterName("genz-v5"), messages, greedy)
        with pytest.raises(PromptTooLong):
            await client.chat(BASE, [ChatMessage("user", "school " * 300)], greedy)
