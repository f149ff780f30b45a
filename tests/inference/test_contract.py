"""One contract for every backend: the embedded server itself, and fakes that behave as vLLM 0.33 and TGI 3.3.7 do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from inference.client import BackendClient
from inference.dialects import Dialect, dialect_of
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
from nocap.settings import InferenceSettings, load_settings
from tests.fakes.backend import FakeBackend, Refuse, says
from tests.fakes.tgi import FakeTgi

V1, V2, NOBODY = AdapterName("genz-v1"), AdapterName("genz-v2"), AdapterName("genz-v9")
HELLO = (ChatMessage("system", "You are a bot."), ChatMessage("user", "hello you"))
GREEDY = SamplingOptions(temperature=0.0, top_p=1.0, max_tokens=8)
CHAT = SamplingOptions(temperature=0.8, top_p=0.95, max_tokens=8, seed=3)


@dataclass
class Subject:
    """A backend with genz-v1 there from the start, and genz-v2 where it can be loaded."""

    transport: httpx.AsyncBaseTransport
    dialect: Dialect
    path: Callable[[str], str] = str
    fake: FakeBackend | None = None

    @asynccontextmanager
    async def client(self, user_token: str = "user-1") -> AsyncIterator[BackendClient]:
        async with BackendClient(
            "http://backend", user_token, "admin-1", transport=self.transport, dialect=self.dialect
        ) as client:
            yield client


def _embedded(base_folder: Path, adapters_dir: Path) -> Iterator[Subject]:
    from inference.server.api import create_app
    from inference.server.engine import Engine
    from tests.inference.server import tiny

    with Engine(tiny.load(base_folder), max_batch=2, max_queue=8, max_adapters=2, max_rank=8) as engine:
        engine.load_adapter("genz-v1", adapters_dir / "genz-v1")
        app = create_app(engine, user_token="user-1", admin_token="admin-1", adapters_dir=adapters_dir)
        yield Subject(httpx.ASGITransport(app), Dialect())


def _vllm(resolver: bool = False) -> Subject:
    fake = FakeBackend(genz_v1=says("one ", "says"))
    fake.loadable["genz-v2"] = says("two")
    if resolver:
        fake.has_adapter_routes, fake.resolves_from = False, {"genz-v2": says("two")}
    fake.user_token, fake.admin_token = "user-1", "admin-1"
    return Subject(fake.transport(), Dialect("vllm"), fake=fake)


def _tgi() -> Subject:
    fake = FakeTgi(genz_v1=says("one ", "says"))
    fake.user_token = "user-1"
    return Subject(fake.transport(), dialect_of(InferenceSettings(backend="tgi")), fake=fake)


def _openai() -> Subject:
    fake = FakeBackend(acme_genz_v1=says("one ", "says"), acme_base=says("base ", "speaking"))
    fake.has_adapter_routes, fake.user_token = False, "user-1"
    settings = InferenceSettings(backend="openai", model_name="acme-{adapter}", base_model_name="acme-base")
    return Subject(fake.transport(), dialect_of(settings), fake=fake)


@pytest.fixture(params=["embedded", "vllm", "vllm with its resolver", "tgi", "openai"])
def subject(request: pytest.FixtureRequest, base_folder: Path, adapters_dir: Path) -> Iterator[Subject]:
    if request.param == "embedded":
        yield from _embedded(base_folder, adapters_dir)
    else:
        makers: dict[str, Callable[[], Subject]] = {
            "vllm": _vllm,
            "vllm with its resolver": lambda: _vllm(resolver=True),
            "tgi": _tgi,
            "openai": _openai,
        }
        yield makers[request.param]()


async def ask(client: BackendClient, adapter: AdapterName, sampling: SamplingOptions = GREEDY, **options: Any) -> str:
    reply = await client.chat(adapter, HELLO, sampling, **options)
    assert reply.adapter == adapter
    return "".join([piece async for piece in reply])


async def test_an_adapter_and_the_base_answer_each_as_themselves(subject: Subject) -> None:
    async with subject.client() as client:
        assert await ask(client, V1) == await ask(client, V1, stream=False) != ""
        assert await ask(client, V1) != await ask(client, BASE)
        if subject.fake is not None:
            assert await ask(client, V1) == "one says"
            assert await ask(client, BASE) == "base speaking"


async def test_chat_options_are_accepted_and_a_seed_repeats_the_answer(subject: Subject) -> None:
    async with subject.client() as client:
        assert await ask(client, V1, CHAT) == await ask(client, V1, CHAT) != ""


@pytest.mark.parametrize("name", ["genz-v9", "", "../genz-v1", "Base"])
async def test_an_unknown_name_is_an_error_and_never_the_base(subject: Subject, name: str) -> None:
    async with subject.client() as client:
        for stream in (True, False):
            with pytest.raises((UnknownAdapter, WrongModelAnswered)):
                await client.chat(AdapterName(name), HELLO, GREEDY, stream)


async def test_a_new_adapter_is_loaded_or_the_restart_it_needs_is_named(subject: Subject) -> None:
    async with subject.client() as client:
        if subject.dialect.kind in ("embedded", "vllm"):
            await client.load_adapter(V2, "genz-v2")
            await client.load_adapter(V2, "genz-v2")
            assert await ask(client, V2) not in (await ask(client, V1), await ask(client, BASE))
        else:
            with pytest.raises(AdapterError, match="restart it with `genz-v2`"):
                await client.load_adapter(V2, "genz-v2")
        await client.load_adapter(V1, "genz-v1")


async def test_an_adapter_that_is_nowhere_is_refused_with_a_reason(subject: Subject) -> None:
    async with subject.client() as client:
        with pytest.raises(AdapterError, match="genz-v9"):
            await client.load_adapter(NOBODY, "genz-v9")
        with pytest.raises((UnknownAdapter, WrongModelAnswered)):
            await ask(client, NOBODY)


async def test_too_long_a_prompt_is_told_apart(subject: Subject) -> None:
    if subject.fake is not None and subject.dialect.kind != "tgi":
        subject.fake.faults.append(Refuse(400, message="This model's maximum context length is 512 tokens."))
    async with subject.client() as client:
        with pytest.raises(PromptTooLong):
            await client.chat(BASE, [ChatMessage("user", "school " * 300)], GREEDY)


async def test_a_wrong_token_names_the_setting(subject: Subject) -> None:
    async with subject.client(user_token="wrong") as client:
        with pytest.raises(InferenceError, match=r"inference\.user_token"):
            await ask(client, BASE)


@pytest.mark.parametrize("make", [_vllm, _tgi, _openai])  # the embedded server's own are in server/test_api.py
async def test_full_and_failing_backends_are_told_apart(make: Callable[[], Subject]) -> None:
    subject = make()
    assert subject.fake is not None
    async with subject.client() as client:
        for status, error in ((429, BackendBusy), (503, BackendUnavailable), (424, InferenceError)):
            subject.fake.faults.append(Refuse(status, message="Model is overloaded"))
            with pytest.raises(error):
                await ask(client, BASE)


async def test_health_is_seen(subject: Subject) -> None:
    async with subject.client() as client:
        assert await client.health()


# The traps themselves.


async def test_tgi_is_asked_for_proof_once_and_again_after_it_was_away() -> None:
    subject = _tgi()
    assert subject.fake is not None
    async with subject.client() as client:
        await ask(client, V1)
        proofs = len(subject.fake.chats)
        await ask(client, V1)
        assert len(subject.fake.chats) == proofs + 1 == 10
        subject.fake.is_down = True
        with pytest.raises(BackendUnavailable):
            await ask(client, V1)
        subject.fake.is_down = False
        del subject.fake.models["genz-v1"]  # restarted without it
        with pytest.raises(UnknownAdapter, match="answers as its base model"):
            await ask(client, V1)


async def test_tgi_is_never_sent_what_makes_a_greedy_request_sample() -> None:
    subject = _tgi()
    async with subject.client() as client:
        assert await ask(client, V1, SamplingOptions(temperature=0.0, top_p=0.95, max_tokens=8)) == "one says"
        assert await ask(client, V1, SamplingOptions(temperature=0.7, top_p=1.0, max_tokens=8)) == "one says"


async def test_vllms_adapters_are_never_replaced_in_place() -> None:
    """Loaded again from elsewhere, the name would go on answering from its cache; it is refused by its name instead."""
    subject = _vllm()
    assert subject.fake is not None
    subject.fake.loadable["other"] = says("replaced")
    async with subject.client() as client:
        before = await ask(client, V1)
        await client.load_adapter(V1, "other")
        assert await ask(client, V1) == before
    assert subject.fake.loads == [("genz-v1", "other")]


@pytest.mark.parametrize("template", ["genz", "{adapter}{adapter}", "{adapter}-{x}"])
def test_a_template_without_the_adapters_name_is_refused_at_start(template: str, tmp_path: Path) -> None:
    file = tmp_path / "nocap.toml"
    file.write_text(f'[inference]\nmodel_name = "{template}"\n')
    with pytest.raises(ConfigurationError, match="must hold"):
        load_settings(file)
