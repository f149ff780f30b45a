"""Moving the pointer: an adapter goes live only once every replica has it and answers as its trainer did."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeVar

import httpx
from sqlmodel import select

from inference.adapter_files import verify_adapter
from inference.client import BackendClient
from inference.dialects import dialect_of
from inference.prompt import chat_messages
from inference.responder import adapter_path_for
from inference.signing import require_signature
from nocap.domain import BASE, AdapterName, ChatMessage, SamplingOptions, VoiceName
from nocap.errors import AdapterError, BackendUnavailable, NotPermitted, RunError, WrongModelAnswered
from nocap.settings import Settings
from storage import registry
from storage.database import Database
from storage.registry import PointerMove
from storage.tables import Adapter, Deployment, Voice

GOLDEN_FILE = "golden.json"
GREEDY = SamplingOptions(temperature=0.0, top_p=1.0, max_tokens=16)
"""How golden answers are drawn, by the trainer and by the smoke test; short, so that rounding seldom tells."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Golden:
    """What the new adapter and the base answer to one of our own prompts, greedily; they differ."""

    prompt: str
    answer: str
    base_answer: str


class Backend(Protocol):
    """Every replica of the inference backend together."""

    def load_adapter(self, name: AdapterName, forget: Collection[AdapterName] = ()) -> None:
        """All replicas hold `name` afterwards; those in `forget` make room for it."""

    def unload_adapters(self, names: Collection[AdapterName]) -> None:
        """No replica holds any of `names` afterwards."""

    def answers(self, name: AdapterName, prompts: Sequence[Sequence[ChatMessage]]) -> dict[str, list[str]]:
        """By each replica's URL, its greedy answers as `name` in the order of `prompts`."""


class LiveBackend:
    """The replicas of `settings.inference.urls` over HTTP; not for use on an event loop's thread."""

    def __init__(
        self,
        settings: Settings,
        *,
        user_token: str | None,
        admin_token: str | None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._settings = settings
        self._tokens = user_token, admin_token
        self._transport = transport

    def unreachable(self) -> list[str]:
        """URLs of the replicas that do not say that they are well."""
        healthy = self._on_each(BackendClient.health)
        return [url for url, well in zip(self._settings.inference.urls, healthy, strict=True) if not well]

    def pause(self, owner: str, lease_seconds: float) -> None:
        """The replicas that are up have freed their card for `owner`, for as long as the lease is renewed."""

        async def pause(client: BackendClient) -> None:
            if await client.health():
                await client.pause(owner, lease_seconds)

        self._on_each(pause)

    def resume(self, owner: str) -> None:
        """The replicas that are up serve again."""

        async def resume(client: BackendClient) -> None:
            if await client.health():
                await client.resume(owner)

        self._on_each(resume)

    def load_adapter(self, name: AdapterName, forget: Collection[AdapterName] = ()) -> None:
        path = adapter_path_for(self._settings)(name)
        dialect = dialect_of(self._settings.inference)

        async def load(client: BackendClient) -> None:
            if dialect.loads_adapters:
                for other in await client.held(sorted(set(forget) - {name})):
                    await client.unload_adapter(other)
            await client.load_adapter(name, path)

        self._on_each(load)

    def unload_adapters(self, names: Collection[AdapterName]) -> None:
        if not dialect_of(self._settings.inference).loads_adapters:
            return

        async def unload(client: BackendClient) -> None:
            for name in await client.held(sorted(names)):
                await client.unload_adapter(name)

        self._on_each(unload)

    def answers(self, name: AdapterName, prompts: Sequence[Sequence[ChatMessage]]) -> dict[str, list[str]]:
        async def answer(client: BackendClient, messages: Sequence[ChatMessage]) -> str:
            reply = await client.chat(name, messages, GREEDY, stream=False)
            return "".join([piece async for piece in reply])

        async def answer_all(client: BackendClient) -> list[str]:
            return list(await asyncio.gather(*(answer(client, messages) for messages in prompts)))

        return dict(zip(self._settings.inference.urls, self._on_each(answer_all), strict=True))

    def _on_each(self, work: Callable[[BackendClient], Awaitable[T]]) -> list[T]:
        async def run() -> list[T]:
            async with AsyncExitStack() as stack:
                clients = [await stack.enter_async_context(self._client(url)) for url in self._settings.inference.urls]
                return list(await asyncio.gather(*map(work, clients)))

        return asyncio.run(run())

    def _client(self, url: str) -> BackendClient:
        inference = self._settings.inference
        return BackendClient(url, *self._tokens, inference.timeout_seconds, self._transport, dialect_of(inference))


def live_backend(
    settings: Settings,
    *,
    user_token: str | None,
    admin_token: str | None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> LiveBackend | None:
    """The configured backend, or None where it is the embedded server and that is not running.

    Raises BackendUnavailable where a replica of it is down: nothing may be promoted on a part of them.
    """
    backend = LiveBackend(settings, user_token=user_token, admin_token=admin_token, transport=transport)
    down = backend.unreachable()
    if settings.inference.backend == "embedded" and len(down) == len(settings.inference.urls):
        return None
    if down:
        raise BackendUnavailable(f"{', '.join(down)} cannot be reached; start it, or take it out of `inference.urls`.")
    return backend


def promote(
    database: Database,
    backend: Backend | None,
    settings: Settings,
    name: AdapterName,
    *,
    actor: str,
    reason: str,
    at: datetime,
) -> PointerMove:
    """Makes `name` live for its voice: verified, loaded on every replica, tried there, and only then pointed to.

    Without a running backend the files are verified alone; a server loads what is deployed when it starts. Whatever
    fails before the pointer's one transaction leaves everything as it was. Raises AdapterError for a corrupt or
    unknown adapter, WrongModelAnswered where a replica does not answer as the trainer did.
    """
    voice = _make_ready(database, backend, settings, name)
    with database.write() as session:
        return registry.move_pointer(session, voice, name, actor=actor, reason=reason, at=at)


def start_canary(
    database: Database,
    backend: Backend | None,
    settings: Settings,
    name: AdapterName,
    share: float,
    *,
    actor: str,
    at: datetime,
) -> None:
    """Lets `name` answer in `share` of its voice's channels, after the same checks as before a promotion.

    Raises what `promote` raises, and InputError for a share outside of 0 to 1.
    """
    voice = _make_ready(database, backend, settings, name)
    with database.write() as session:
        registry.set_canary(session, voice, name, share, actor=actor, at=at)


def _make_ready(database: Database, backend: Backend | None, settings: Settings, name: AdapterName) -> VoiceName:
    """The adapter's voice, once its files are verified, every replica holds it, and answers as its trainer did."""
    adapter, voice = _adapter_and_voice(database, name)
    verify_registered(settings, adapter)
    if backend is not None:
        backend.load_adapter(name, forget=_not_deployed(database))
        _smoke(backend, voice, name, _golden_of(settings, adapter))
    return VoiceName(voice.name)


def rollback(
    database: Database,
    backend: Backend | None,
    settings: Settings,
    voice: VoiceName,
    to: AdapterName | None,
    *,
    actor: str,
    reason: str,
    at: datetime,
) -> PointerMove:
    """Moves the pointer to `to`, or to the adapter before the present one, once it is verified and loaded.

    Raises NotPermitted where there is no earlier adapter, AdapterError where its files are not intact.
    """
    with database.read() as session:
        target = to or registry.deployment(session, voice).previous
    if target is None:
        raise NotPermitted(f"{voice} has no earlier adapter to go back to; name one, or `{BASE}` for the base model.")
    if target != BASE:
        adapter, _ = _adapter_and_voice(database, AdapterName(target))
        verify_registered(settings, adapter)
        if backend is not None:
            backend.load_adapter(AdapterName(target), forget=_not_deployed(database))
    with database.write() as session:
        return registry.move_pointer(session, voice, AdapterName(target), actor=actor, reason=reason, at=at)


def verify_registered(settings: Settings, adapter: Adapter) -> None:
    """Raises AdapterError where the folder is not the adapter that was registered."""
    folder = settings.adapters_dir / adapter.name
    manifest = verify_adapter(folder, base_digest=adapter.base_digest)
    if settings.inference.trusted_signer is not None:
        require_signature(folder, settings.inference.trusted_signer)
    if manifest.digest != adapter.digest:
        raise AdapterError(
            f"The folder of {adapter.name} holds another adapter than the one registered (digest"
            f" {manifest.digest[:12]}, not {adapter.digest[:12]}); take it from a backup or retrain it."
        )


def write_golden(folder: Path, golden: Sequence[Golden]) -> None:
    """Records a trainer's answers in the run's `folder`."""
    content = json.dumps([asdict(one) for one in golden], ensure_ascii=False, indent=1)
    (folder / GOLDEN_FILE).write_text(content, encoding="utf-8")


def read_golden(folder: Path) -> list[Golden]:
    """Raises RunError where the run recorded none."""
    try:
        return [Golden(**one) for one in json.loads((folder / GOLDEN_FILE).read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"{folder / GOLDEN_FILE} is missing or damaged; resume or repeat that run.") from error


def golden_messages(system_prompt: str, prompt: str) -> list[ChatMessage]:
    return chat_messages(system_prompt, (), [ChatMessage("user", prompt)], glossary_tokens=0)


def _adapter_and_voice(database: Database, name: AdapterName) -> tuple[Adapter, Voice]:
    with database.read() as session:
        adapter = registry.get_adapter(session, name)
        return adapter, session.get_one(Voice, adapter.voice)


def _not_deployed(database: Database) -> set[AdapterName]:
    """Our adapters that no voice serves, may roll back to, or tries out."""
    with database.read() as session:
        rows = session.exec(select(Deployment)).all()
        deployed = {name for row in rows for name in (row.current, row.previous, row.canary)}
        return {AdapterName(name) for name in session.exec(select(Adapter.name)) if name not in deployed}


def _golden_of(settings: Settings, adapter: Adapter) -> list[Golden]:
    if adapter.run_id is None:
        raise NotPermitted(f"{adapter.name} came from no run here, so nothing says how it must answer; retrain it.")
    golden = [one for one in read_golden(settings.runs_dir / adapter.run_id) if one.answer != one.base_answer]
    if not golden:
        raise NotPermitted(f"{adapter.name} answers every golden prompt as the base does: it changes nothing.")
    return golden


def _smoke(backend: Backend, voice: Voice, name: AdapterName, golden: Sequence[Golden]) -> None:
    """Most golden answers must be the trainer's, on each replica: rounding may tell in one, a wrong model in all."""
    prompts = [golden_messages(voice.system_prompt, one.prompt) for one in golden]
    for url, answers in backend.answers(name, prompts).items():
        pairs = zip(answers, golden, strict=True)
        count = sum(answer.strip() == one.answer.strip() for answer, one in pairs)
        if 2 * count <= len(golden):
            raise WrongModelAnswered(
                f"{url} gives only {count} of the {len(golden)} answers that {name} gave its trainer; nothing was"
                " promoted. Check that it serves the same base at the same quantisation, then promote again."
            )
