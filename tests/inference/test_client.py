from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.client import BackendClient
from inference.wire import event_data
from nocap.domain import BASE, AdapterName, ChatMessage, SamplingOptions
from nocap.errors import (
    AdapterError,
    BackendBusy,
    BackendUnavailable,
    ConfigurationError,
    InferenceError,
    PromptTooLong,
    UnknownAdapter,
    WrongModelAnswered,
)
from tests.fakes.backend import Cut, FailInside, FakeBackend, Hang, Refuse, says, serve

ADAPTER = AdapterName("genz-v1")
PROMPT = (ChatMessage("system", "You are a bot."), ChatMessage("user", "SENTINEL what's up"))


def client_of(backend: FakeBackend, **options: object) -> BackendClient:
    return BackendClient("http://fake", transport=backend.transport(), **options)  # type: ignore[arg-type]


async def ask(client: BackendClient, adapter: AdapterName = ADAPTER, stream: bool = True) -> str:
    reply = await client.chat(adapter, PROMPT, SamplingOptions(seed=3, stop=("\n",)), stream)
    return "".join([piece async for piece in reply])


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_comes_whole_and_in_the_adapters_name(stream: bool) -> None:
    backend = FakeBackend(genz_v1=says("no ", "cap ", "🧢\u2028fr"))
    async with client_of(backend) as client:
        reply = await client.chat(ADAPTER, PROMPT, SamplingOptions(seed=3, stop=("\n",)), stream)
        assert "".join([piece async for piece in reply]) == "no cap 🧢\u2028fr"
        assert (reply.adapter, reply.finish_reason) == (ADAPTER, "stop")
    sent = backend.chats[0]
    assert (sent["model"], sent["seed"], sent["stop"], sent["stream"]) == (ADAPTER, 3, ["\n"], stream)
    assert sent["messages"][1] == {"role": "user", "content": PROMPT[1].content}


async def test_pieces_arrive_before_the_answer_is_over() -> None:
    backend = FakeBackend(genz_v1=says("first ", "second"))
    backend.faults.append(Hang(after=1))
    async with client_of(backend) as client:
        reply = await client.chat(ADAPTER, PROMPT, SamplingOptions())
        pieces = aiter(reply)
        assert await anext(pieces) == "first "
        await reply.aclose()
    assert backend.answers_cancelled == 1


async def test_an_unknown_name_answered_by_the_base_model_is_thrown_away() -> None:
    backend = FakeBackend()
    backend.silent_base = True
    async with client_of(backend) as client:
        with pytest.raises(WrongModelAnswered, match="in the name of `base` when `genz-v1`"):
            await ask(client)
        with pytest.raises(WrongModelAnswered):
            await ask(client, stream=False)


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_without_a_model_is_thrown_away(stream: bool) -> None:
    backend = FakeBackend(genz_v1=says("who am I"))
    backend.omits_model = True
    async with client_of(backend) as client:
        with pytest.raises(WrongModelAnswered, match="without naming a model"):
            await ask(client, stream=stream)


async def test_an_empty_name_is_never_sent() -> None:
    backend = FakeBackend()
    async with client_of(backend) as client:
        with pytest.raises(UnknownAdapter):
            await ask(client, AdapterName(""))
    assert backend.chats == []


async def test_the_base_model_is_asked_for_by_name() -> None:
    async with client_of(FakeBackend()) as client:
        assert await ask(client, BASE) == "base speaking"


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Refuse(404), UnknownAdapter),
        (Refuse(503), BackendUnavailable),
        (Refuse(500), BackendUnavailable),
        (Refuse(401), InferenceError),
        (Refuse(400, message="This model's maximum context length is 512 tokens"), PromptTooLong),
        (Refuse(400, message="temperature must be at most 2"), InferenceError),
        (Cut(after=0), BackendUnavailable),
        (Cut(after=0, cleanly=True), BackendUnavailable),
        (FailInside(after=0), BackendUnavailable),
        (FailInside(after=0, code=429), BackendBusy),
    ],
)
async def test_each_refusal_has_its_own_error(fault: Refuse | Cut | FailInside, error: type[Exception]) -> None:
    backend = FakeBackend(genz_v1=says("fine"))
    backend.faults.append(fault)
    async with client_of(backend) as client:
        with pytest.raises(error) as caught:
            await ask(client)
        assert type(caught.value) is error
        assert await ask(client) == "fine"


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [
        ({"Retry-After": "7"}, 7, 7),
        ({}, 1, 1),
        ({"Retry-After": "soon"}, 1, 1),
        ({"Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT"}, 0, 0),
    ],
)
async def test_a_full_queue_says_when_to_come_back(header: dict[str, str], low: float, high: float) -> None:
    backend = FakeBackend(genz_v1=says("fine"))
    backend.faults.append(Refuse(429, header))
    async with client_of(backend) as client:
        with pytest.raises(BackendBusy) as caught:
            await ask(client)
    assert low <= caught.value.retry_after_seconds <= high


@pytest.mark.parametrize("cleanly", [True, False])
async def test_an_answer_cut_in_the_middle_keeps_its_pieces_and_then_raises(cleanly: bool) -> None:
    backend = FakeBackend(genz_v1=says("one ", "two ", "three"))
    backend.faults.append(Cut(after=2, cleanly=cleanly))
    async with client_of(backend) as client:
        reply = await client.chat(ADAPTER, PROMPT, SamplingOptions())
        got: list[str] = []
        with pytest.raises(BackendUnavailable):
            async for piece in reply:
                got.append(piece)
    assert got == ["one ", "two "]


async def test_errors_never_repeat_the_prompt() -> None:
    backend = FakeBackend(genz_v1=says("fine"))
    for message in (
        "bad input: SENTINEL what's up",
        "1 error: {'input': 'SENTINEL what's up'}",
        "too long: SENTINEL what's up",
    ):
        backend.faults.append(Refuse(400, message=message))
        async with client_of(backend) as client:
            with pytest.raises(InferenceError) as caught:
                await ask(client)
        assert "SENTINEL" not in str(caught.value)


async def test_what_is_no_chat_answer_is_refused() -> None:
    def page(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text="data: <html>hello</html>\n\n")

    async with BackendClient("http://fake", transport=httpx.MockTransport(page)) as client:
        with pytest.raises(BackendUnavailable, match="no chat answer"):
            await ask(client)
        with pytest.raises(InferenceError, match="OpenAI's form"):
            await client.models()


async def test_nothing_listening_says_how_to_start_a_backend() -> None:
    async with BackendClient("http://127.0.0.1:1") as client:
        with pytest.raises(BackendUnavailable, match="nocap serve"):
            await ask(client)
        assert not await client.health()


def test_a_malformed_url_names_the_setting() -> None:
    with pytest.raises(ConfigurationError, match=r"inference\.urls"):
        BackendClient("http://[::1")


async def test_the_time_out_counts_each_silence_and_not_the_whole_answer() -> None:
    backend = FakeBackend(genz_v1=says("one ", "two"))
    async with serve(backend) as url, BackendClient(url, timeout_seconds=0.2) as client:
        backend.faults.append(Hang(after=1))
        reply = await client.chat(ADAPTER, PROMPT, SamplingOptions())
        with pytest.raises(BackendUnavailable, match=r"silent for 0\.2 s"):
            [piece async for piece in reply]
        assert await ask(client) == "one two"


async def test_a_real_connection_cut_in_two_is_noticed() -> None:
    backend = FakeBackend(genz_v1=says("one ", "two"))
    async with serve(backend) as url, BackendClient(url) as client:
        backend.faults.append(Cut(after=1))
        reply = await client.chat(ADAPTER, PROMPT, SamplingOptions())
        with pytest.raises(BackendUnavailable):
            [piece async for piece in reply]


async def test_cancelling_the_wait_for_the_first_piece_closes_the_answer() -> None:
    backend = FakeBackend(genz_v1=says("late"))
    backend.gate = asyncio.Event()
    async with client_of(backend) as client:
        waiting = asyncio.create_task(ask(client))
        await backend.was_asked.wait()
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert backend.answers_cancelled == 1


async def test_adapters_are_loaded_listed_and_unloaded() -> None:
    backend = FakeBackend()
    backend.loadable["genz-v1"] = says("loaded")
    async with client_of(backend) as client:
        await client.load_adapter(ADAPTER, "genz-v1")
        await client.load_adapter(ADAPTER, "genz-v1")
        assert await client.models() == ["base", "genz-v1"]
        assert await ask(client) == "loaded"
        await client.unload_adapter(ADAPTER)
        with pytest.raises(UnknownAdapter):
            await client.unload_adapter(ADAPTER)


async def test_a_refused_adapter_gives_the_backends_reason() -> None:
    async with client_of(FakeBackend()) as client:
        with pytest.raises(AdapterError, match="No adapter found for somewhere"):
            await client.load_adapter(ADAPTER, "somewhere")


async def test_a_refusal_is_a_refusal_even_where_the_name_is_held() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": "genz-v1"}]})
        return httpx.Response(409, json={"error": {"message": "genz-v1 names another adapter here"}})

    async with BackendClient("http://fake", transport=httpx.MockTransport(refuse)) as client:
        with pytest.raises(AdapterError, match="names another adapter"):
            await client.load_adapter(ADAPTER, "genz-v1")


async def test_each_route_gets_its_own_token_and_neither_is_ever_shown() -> None:
    backend = FakeBackend(genz_v1=says("hi"))
    backend.user_token, backend.admin_token = "user-secret", "admin-secret"
    async with client_of(backend, user_token="user-secret", admin_token="admin-secret") as client:
        assert await ask(client) == "hi"
        await client.load_adapter(ADAPTER, "x")
        assert "secret" not in repr(client)
    async with client_of(backend, user_token="wrong", admin_token="user-secret") as client:
        with pytest.raises(InferenceError, match=r"inference\.user_token"):
            await ask(client)
        with pytest.raises(InferenceError, match=r"inference\.admin_token"):
            await client.load_adapter(AdapterName("genz-v2"), "x")


@given(st.lists(st.text(alphabet="ab\r\u2028\x85🧢é:", min_size=1, max_size=8), max_size=5), st.data())
def test_events_are_the_same_however_the_bytes_are_cut(texts: list[str], data: st.DataObject) -> None:
    texts = [text.replace("\r", "") or "x" for text in texts]
    wire = "".join(f"data: {text}\r\n\r\n" for text in texts).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=6)))
    chunks = [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]

    async def stream() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    async def collect() -> list[str]:
        return [event async for event in event_data(stream())]

    assert asyncio.run(collect()) == texts


async def test_one_connection_carries_many_answers() -> None:
    from aiohttp import web

    seen: set[object] = set()

    async def chat(request: web.Request) -> web.StreamResponse:
        seen.add(request.transport)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for delta, reason in (({"content": "hi"}, None), ({}, "stop")):
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            await response.write(f"data: {json.dumps({'model': 'base', 'choices': [choice]})}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    client = BackendClient(f"http://127.0.0.1:{port}")
    try:
        for _ in range(5):
            reply = await client.chat(BASE, [ChatMessage("user", "hi")], SamplingOptions())
            assert "".join([piece async for piece in reply]) == "hi"
    finally:
        await client.aclose()
        await runner.cleanup()
    assert len(seen) == 1
