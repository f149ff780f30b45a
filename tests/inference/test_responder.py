from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx
import pytest
from prometheus_client import REGISTRY

from inference.client import BackendClient
from inference.responder import ReplyRequest, RoutedResponder, adapter_path_for, connect
from inference.router import Replica, Router
from nocap.domain import BASE, AdapterName, ChannelKey, ChatMessage, SamplingOptions, VoiceName
from nocap.errors import (
    BackendBusy,
    BackendUnavailable,
    InferenceError,
    PromptTooLong,
    UnknownAdapter,
    WrongModelAnswered,
)
from nocap.settings import InferenceSettings, Settings
from tests.fakes.backend import Cut, FakeBackend, Refuse, says
from tests.inference.test_router import Row


def request(adapter: str | None = None, channel: str = "c") -> ReplyRequest:
    return ReplyRequest(
        VoiceName("genz"),
        ChannelKey(channel),
        (ChatMessage("user", "hi"),),
        SamplingOptions(),
        AdapterName(adapter) if adapter else None,
    )


def responder(row: Row, *backends: FakeBackend) -> RoutedResponder:
    replicas = [
        Replica(BackendClient(f"http://replica-{index}", transport=backend.transport()))
        for index, backend in enumerate(backends)
    ]
    return RoutedResponder(Router(lambda voice: row), replicas, lambda name: f"root/{name}")


async def answer(to: RoutedResponder, asked: ReplyRequest | None = None) -> str:
    stream = await to.open(asked or request())
    return "".join([piece async for piece in stream])


def figure(name: str, **labels: str) -> float:
    """As it stands in the process's registry, which `/metrics` serves."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_the_voice_answers_by_its_current_adapter_and_by_the_new_one_after_a_move() -> None:
    row = Row()
    async with responder(row, FakeBackend(genz_v1=says("one"), genz_v2=says("two"))) as to:
        assert await answer(to) == "one"
        row.current = "genz-v2"
        assert await answer(to) == "two"
        row.current = BASE
        assert await answer(to) == "base speaking"


async def test_a_move_in_the_middle_of_an_answer_changes_only_the_next() -> None:
    row = Row()
    async with responder(row, FakeBackend(genz_v1=says("o", "n", "e"), genz_v2=says("two"))) as to:
        stream = await to.open(request())
        row.current = "genz-v2"
        assert stream.adapter == "genz-v1"
        assert "".join([piece async for piece in stream]) == "one"
        assert await answer(to) == "two"


async def test_an_adapter_named_in_the_request_overrules_the_router() -> None:
    async with responder(Row(), FakeBackend(genz_v1=says("one"), genz_v2=says("two"))) as to:
        assert await answer(to, request("genz-v2")) == "two"


@pytest.mark.parametrize("silent_base", [True, False])
async def test_a_replica_that_lacks_the_adapter_is_told_to_load_it_and_asked_again(silent_base: bool) -> None:
    backend = FakeBackend()
    backend.silent_base = silent_base
    backend.loadable["root/genz-v1"] = says("one")
    async with responder(Row(), backend) as to:
        assert await answer(to) == "one"
        assert await answer(to) == "one"
    assert backend.loads == [("genz-v1", "root/genz-v1")]


@pytest.mark.parametrize("silent_base", [True, False])
async def test_where_it_cannot_be_loaded_another_replica_answers(silent_base: bool) -> None:
    lacking, holding = FakeBackend(), FakeBackend(genz_v1=says("one"))
    lacking.silent_base = silent_base
    async with responder(Row(), lacking, holding) as to:
        assert await answer(to) == "one"


@pytest.mark.parametrize("silent_base", [True, False])
async def test_where_no_replica_has_the_adapter_the_answer_is_an_error_and_never_the_base(silent_base: bool) -> None:
    backends = FakeBackend(), FakeBackend()
    for backend in backends:
        backend.silent_base = silent_base
    async with responder(Row(), *backends) as to:
        with pytest.raises(UnknownAdapter, match="No adapter found for root/genz-v1"):
            await answer(to)
    assert all(len(backend.loads) == 1 for backend in backends)


async def test_a_backend_that_answers_in_the_wrong_name_even_after_loading_is_refused() -> None:
    backend = FakeBackend()
    backend.silent_base = True
    backend.loadable["root/genz-v1"] = says("one")
    async with responder(Row(), backend) as to:
        backend.omits_model = True
        with pytest.raises(WrongModelAnswered):
            await answer(to)


async def test_a_base_that_goes_by_another_name_is_never_loaded_as_an_adapter() -> None:
    backend = FakeBackend()
    del backend.models["base"]
    async with responder(Row(current=BASE), backend) as to:
        with pytest.raises(UnknownAdapter):
            await answer(to)
    assert backend.loads == []


async def test_a_dead_replica_costs_one_request_one_retry_and_is_then_left_alone() -> None:
    dead, well = FakeBackend(genz_v1=says("dead")), FakeBackend(genz_v1=says("well"))
    dead.is_down = True
    async with responder(Row(), dead, well) as to:
        assert [await answer(to) for _ in range(5)] == ["well"] * 5
        well.is_down = True
        with pytest.raises(BackendUnavailable):
            await answer(to)


@pytest.mark.parametrize("fault", [Refuse(503), Refuse(429, {"Retry-After": "9"}), Cut(after=0)])
async def test_what_fails_before_the_first_piece_is_tried_elsewhere(fault: Refuse | Cut) -> None:
    first, second = FakeBackend(genz_v1=says("first")), FakeBackend(genz_v1=says("second"))
    first.faults.append(fault)
    async with responder(Row(), first, second) as to:
        assert await answer(to) == "second"


@pytest.mark.parametrize("after", [1, 2, 3])
@pytest.mark.parametrize("pieces", [("no ", "cap ", "fr"), ("no cap fr",), ("n", "o cap f", "r")])
async def test_an_answer_that_breaks_off_goes_on_elsewhere_where_it_is_repeated(
    after: int, pieces: tuple[str, ...]
) -> None:
    first, second = FakeBackend(genz_v1=says("no ", "cap ", "fr")), FakeBackend(genz_v1=says(*pieces))
    first.faults.append(Cut(after=after))
    moved = figure("nocap_router_moved_total", adapter="genz-v1")
    async with responder(Row(), first, second) as to:
        assert await answer(to) == "no cap fr"
    assert first.chats == second.chats
    assert isinstance(first.chats[0]["seed"], int)
    assert figure("nocap_router_moved_total", adapter="genz-v1") == moved + 1


@pytest.mark.parametrize("other", ["a", "second", "a c", ""])
async def test_an_answer_that_breaks_off_and_begins_differently_elsewhere_is_an_error(other: str) -> None:
    first, second = FakeBackend(genz_v1=says("a b", "c")), FakeBackend(genz_v1=says(other))
    first.faults.append(Cut(after=1))
    async with responder(Row(), first, second) as to:
        got: list[str] = []
        with pytest.raises(BackendUnavailable):
            async for piece in await to.open(request()):
                got.append(piece)
        assert got == ["a b"]
        assert await answer(to) == other


async def test_an_answer_that_breaks_off_everywhere_is_an_error_after_each_replica_was_asked_once() -> None:
    backends = FakeBackend(genz_v1=says("a ", "b")), FakeBackend(genz_v1=says("a ", "b"))
    for backend in backends:
        backend.faults.append(Cut(after=1))
    labels = {"adapter": "genz-v1", "error": "BackendUnavailable"}
    failed = figure("nocap_router_failures_total", **labels)
    async with responder(Row(), *backends) as to:
        with pytest.raises(BackendUnavailable):
            await answer(to)
        assert [len(backend.chats) for backend in backends] == [1, 1]
    assert figure("nocap_router_failures_total", **labels) == failed + 1


async def test_seconds_are_counted_per_adapter() -> None:
    names = ("genz-v1", "base")
    counts = ("nocap_router_first_piece_seconds_count", "nocap_router_answer_seconds_count")
    before = [figure(count, adapter=name) for name in names for count in counts]
    async with responder(Row(), FakeBackend(genz_v1=says("one"))) as to:
        await answer(to)
        await answer(to, request("base"))
    assert [figure(count, adapter=name) for name in names for count in counts] == [one + 1 for one in before]


async def test_a_full_backend_is_left_alone_until_its_time() -> None:
    backend = FakeBackend(genz_v1=says("one"))
    backend.faults.append(Refuse(429, {"Retry-After": "60"}))
    async with responder(Row(), backend) as to:
        for _ in range(3):
            with pytest.raises(BackendBusy) as caught:
                await answer(to)
            assert 50 < caught.value.retry_after_seconds <= 60
    assert len(backend.chats) == 1


async def test_a_bad_prompt_is_nobody_elses_business() -> None:
    first, second = FakeBackend(genz_v1=says("first")), FakeBackend(genz_v1=says("second"))
    first.faults.append(Refuse(400, message="maximum context length is 512 tokens"))
    async with responder(Row(), first, second) as to:
        with pytest.raises(PromptTooLong):
            await answer(to)
        assert second.chats == []
        assert await answer(to) == "first"


async def test_open_answers_count_as_load_until_they_end_or_are_closed() -> None:
    first, second = FakeBackend(genz_v1=says("first")), FakeBackend(genz_v1=says("second"))
    async with responder(Row(), first, second) as to:
        one = await to.open(request())
        two = await to.open(request())
        assert (len(first.chats), len(second.chats)) == (1, 1)
        await one.aclose()
        assert await answer(to) == "first"
        await two.aclose()
        assert await answer(to) == "first"


async def test_many_requests_at_once_cause_one_load_and_no_wrong_answer() -> None:
    backend = FakeBackend()
    backend.loadable["root/genz-v1"] = says("one")
    async with responder(Row(), backend) as to:
        assert await asyncio.gather(*(answer(to) for _ in range(20))) == ["one"] * 20
    assert len(set(backend.loads)) == 1


async def test_a_connected_responder_uses_every_url_and_the_tokens() -> None:
    seen: list[tuple[str, str | None]] = []
    backend = FakeBackend(genz_v1=says("one"))

    class Spy(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            seen.append((request.url.host, request.headers.get("authorization")))
            if request.url.host == "a":
                raise httpx.ConnectError("down")
            return await backend.transport().handle_async_request(request)

    settings = Settings(inference=InferenceSettings(urls=("http://a", "http://b/v1")))
    async with connect(settings, lambda voice: Row(), user_token="user", admin_token="admin", transport=Spy()) as to:
        assert await answer(to) == "one"
    assert seen == [("a", "Bearer user"), ("b", "Bearer user")]


@pytest.mark.parametrize(
    ("backend", "check"),
    [("embedded", lambda path: path == "genz-v1"), ("vllm", lambda path: path.endswith("/adapters/genz-v1"))],
)
def test_adapters_are_found_by_name_or_by_full_path(backend: str, check: Callable[[str], bool]) -> None:
    settings = Settings(inference=InferenceSettings(backend=backend))  # type: ignore[arg-type]
    assert check(adapter_path_for(settings)(AdapterName("genz-v1")))


async def test_every_failure_is_an_inference_error() -> None:
    backend = FakeBackend(genz_v1=says("one"))
    backend.faults.append(Refuse(418))
    async with responder(Row(), backend) as to:
        with pytest.raises(InferenceError, match="418"):
            await answer(to)
