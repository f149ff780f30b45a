"""The client of one inference replica that speaks OpenAI's chat protocol and vLLM's LoRA endpoints.

An answer whose `model` is not exactly the adapter asked for is refused: backends serve the bare base model
for a name that is empty or unknown to them, and nobody would notice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from types import TracebackType
from typing import Any

import httpx

from inference.dialects import Dialect
from inference.refusals import has_no_such_route, is_loaded_already, load_refusal, pause_refusal, refusal, unreachable
from inference.transport import AiohttpTransport
from inference.wire import Delta, chat_body, event_data, read_answer
from nocap.domain import BASE, AdapterName, ChatMessage, SamplingOptions
from nocap.errors import AdapterError, ConfigurationError, InferenceError, UnknownAdapter, WrongModelAnswered

CONNECT_TIMEOUT_SECONDS = 5.0
ADAPTER_LOAD_TIMEOUT_SECONDS = 120.0
PAUSE_TIMEOUT_SECONDS = 600.0
"""Replies in flight are finished first, and a base of 15 GB may come from a slow disk."""
LAST_BYTES_SECONDS = 0.5
"""For the end of an answer's body after its last event; a server that keeps it open loses the connection."""


PROOF_PROMPTS = ("hey what's up", "what are you doing today", "any plans for the weekend", "tell me something funny")
"""Asked of a backend that does not say who answers: most answers must differ from its base model's."""
PROOF = SamplingOptions(temperature=0.0, top_p=1.0, max_tokens=16)


class BackendReply:
    """One answer as it arrives: iterate the pieces of text once; `finish_reason` is set at the end."""

    def __init__(self, adapter: AdapterName, deltas: AsyncGenerator[Delta, None]) -> None:
        self.adapter = adapter
        self.finish_reason: str | None = None
        self._deltas = deltas
        self._first = ""

    async def wait_for_text(self) -> None:
        """Returns when the first piece is here: whatever can still be tried elsewhere fails before that."""
        while not self._first and (delta := await anext(self._deltas, None)):
            self._first, self.finish_reason = delta.text, delta.finish_reason

    async def __aiter__(self) -> AsyncIterator[str]:
        if self._first:
            yield self._first
        async for delta in self._deltas:
            self.finish_reason = delta.finish_reason or self.finish_reason
            if delta.text:
                yield delta.text

    async def aclose(self) -> None:
        """Ends the answer early: the backend sees the disconnect and stops."""
        await self._deltas.aclose()


class BackendClient:
    """Talks to the replica at `url` (without `/v1`)."""

    def __init__(
        self,
        url: str,
        user_token: str | None = None,
        admin_token: str | None = None,
        timeout_seconds: float = 60.0,
        transport: httpx.AsyncBaseTransport | None = None,
        dialect: Dialect | None = None,
    ) -> None:
        self._dialect = dialect or Dialect()
        self._proven: set[AdapterName] = set()
        self._proving = asyncio.Lock()
        self.url = url.rstrip("/").removesuffix("/v1")
        self._user_token = user_token
        self._admin_token = admin_token
        self._timeout_seconds = timeout_seconds
        try:
            self._http = httpx.AsyncClient(
                base_url=self.url,
                transport=transport or AiohttpTransport(),
                timeout=httpx.Timeout(timeout_seconds, connect=min(timeout_seconds, CONNECT_TIMEOUT_SECONDS)),
                trust_env=False,
            )
        except httpx.InvalidURL as error:
            raise ConfigurationError(f"`inference.urls` holds {url!r}, which is no URL ({error}); mend it.") from error

    async def __aenter__(self) -> BackendClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    async def chat(
        self,
        adapter: AdapterName,
        messages: Sequence[ChatMessage],
        sampling: SamplingOptions,
        stream: bool = True,
    ) -> BackendReply:
        """An answer of `adapter`, with its first piece here and its `model` checked.

        Raises UnknownAdapter (404), BackendBusy (429), BackendUnavailable (5xx, no connection, a silence
        longer than `timeout_seconds`, an answer that breaks off), WrongModelAnswered, PromptTooLong and
        InferenceError; iterating the answer raises the same.
        """
        if adapter != BASE and not self._dialect.names_the_adapter:
            await self._prove(adapter)
        return await self._chat(adapter, messages, sampling, stream)

    async def _chat(
        self, adapter: AdapterName, messages: Sequence[ChatMessage], sampling: SamplingOptions, stream: bool
    ) -> BackendReply:
        body = chat_body(self._dialect, adapter, messages, sampling, stream)
        reply = BackendReply(adapter, self._deltas(adapter, messages, body))
        try:
            await reply.wait_for_text()
        except BaseException:
            await reply.aclose()
            raise
        return reply

    async def _prove(self, adapter: AdapterName) -> None:
        """Raises UnknownAdapter where most answers in the adapter's name are the base model's: it is not held.

        Proven once per adapter, and again after the backend was away, for it may have come back without.
        """
        async with self._proving:
            if adapter in self._proven:
                return
            asked = [self._greedy(name, prompt) for prompt in PROOF_PROMPTS for name in (adapter, BASE)]
            answers = await asyncio.gather(*asked)
            differing = sum(own != plain for own, plain in zip(answers[::2], answers[1::2], strict=True))
            if 2 * differing <= len(PROOF_PROMPTS):
                raise UnknownAdapter(
                    f"{self.url} answers as its base model when `{adapter}` is asked for, so it does not hold it;"
                    f" restart it with that adapter (TGI: LORA_ADAPTERS)."
                )
            self._proven.add(adapter)

    async def _greedy(self, adapter: AdapterName, prompt: str) -> str:
        reply = await self._chat(adapter, [ChatMessage("user", prompt)], PROOF, False)
        return "".join([piece async for piece in reply])

    async def models(self) -> list[str]:
        """The names that this replica answers to."""
        response = await self._request("GET", "/v1/models", self._user_token)
        if not response.is_success:
            raise refusal(self.url, response, AdapterName("/v1/models"))
        try:
            return [str(entry["id"]) for entry in response.json()["data"]]
        except (ValueError, LookupError, TypeError) as error:
            raise InferenceError(
                f"{self.url}/v1/models does not answer in OpenAI's form; check that the URL is a backend's."
            ) from error

    async def load_adapter(self, name: AdapterName, path: str) -> None:
        """The replica holds `name` afterwards; one that it held already is left alone: names are immutable.

        A backend that loads no adapters while it runs, or finds them itself (vLLM's filesystem resolver), is only asked
        whether it answers as `name`. Raises AdapterError with the backend's reason, or what `chat` raises for an
        unreachable replica.
        """
        if not self._dialect.loads_adapters:
            await self._require_held(name)
            return
        body = {"lora_name": self._dialect.wire_name(name), "lora_path": path}
        response = await self._admin("/v1/load_lora_adapter", body)
        if has_no_such_route(response) and self._dialect.kind == "vllm":
            await self._require_held(name)
        elif not response.is_success and not (is_loaded_already(response) and await self.held([name])):
            raise load_refusal(self.url, response, name)

    async def held(self, names: Collection[AdapterName]) -> list[AdapterName]:
        """Those of `names` that the replica lists."""
        listed = set(await self.models())
        return [name for name in names if self._dialect.wire_name(name) in listed]

    async def _require_held(self, name: AdapterName) -> None:
        try:
            reply = await self.chat(name, [ChatMessage("user", PROOF_PROMPTS[0])], replace(PROOF, max_tokens=1), False)
            await reply.aclose()
        except (UnknownAdapter, WrongModelAnswered) as error:
            raise AdapterError(
                f"{self.url} does not hold `{name}` and takes no adapter while it runs; restart it with `{name}`"
                " (TGI: LORA_ADAPTERS; vLLM: VLLM_ALLOW_RUNTIME_LORA_UPDATING=1), then promote again."
            ) from error

    async def unload_adapter(self, name: AdapterName) -> None:
        """The replica has forgotten `name`; raises UnknownAdapter where it did not hold it."""
        response = await self._admin("/v1/unload_lora_adapter", {"lora_name": self._dialect.wire_name(name)})
        if not response.is_success:
            raise refusal(self.url, response, name)

    async def pause(self, owner: str, lease_seconds: float) -> None:
        """The replica has freed its card for `owner`, at most for `lease_seconds` if that is not asked again.

        Raises NotPermitted where it is paused for another owner, InferenceError where it cannot pause.
        """
        response = await self._request(
            "POST", "/v1/pause", self._admin_token, {"owner": owner, "lease_seconds": lease_seconds},
            PAUSE_TIMEOUT_SECONDS,
        )  # fmt: skip
        if not response.is_success:
            raise pause_refusal(self.url, response)

    async def resume(self, owner: str) -> None:
        """The replica serves again. Raises as `pause` does."""
        response = await self._request("POST", "/v1/resume", self._admin_token, {"owner": owner}, PAUSE_TIMEOUT_SECONDS)
        if not response.is_success:
            raise pause_refusal(self.url, response)

    async def health(self) -> bool:
        """Whether the replica can be reached and says that it is well."""
        try:
            return (await self._request("GET", "/health", self._user_token)).is_success
        except InferenceError:
            return False

    async def _deltas(
        self, adapter: AdapterName, messages: Sequence[ChatMessage], body: dict[str, Any]
    ) -> AsyncGenerator[Delta, None]:
        path, headers = "/v1/chat/completions", _bearer(self._user_token)
        try:
            async with self._http.stream("POST", path, json=body, headers=headers) as response:
                if not response.is_success:
                    await response.aread()
                    raise refusal(self.url, response, adapter, messages)
                events = event_data(response.aiter_bytes()) if body["stream"] else _whole(response)
                name = body["model"] if self._dialect.names_the_adapter else None
                async with aclosing(read_answer(self.url, name, events)) as deltas:
                    async for delta in deltas:
                        yield delta
                await _read_to_the_end(events)
        except httpx.HTTPError as error:
            self._proven.clear()
            raise unreachable(self.url, error, self._timeout_seconds) from error

    async def _admin(self, path: str, body: dict[str, str]) -> httpx.Response:
        return await self._request("POST", path, self._admin_token, body, ADAPTER_LOAD_TIMEOUT_SECONDS)

    async def _request(
        self,
        method: str,
        path: str,
        token: str | None,
        body: dict[str, Any] | None = None,
        timeout_seconds: float | None = None,
    ) -> httpx.Response:
        seconds = timeout_seconds or self._timeout_seconds
        timeout = httpx.Timeout(seconds, connect=min(seconds, CONNECT_TIMEOUT_SECONDS))
        try:
            return await self._http.request(method, path, json=body, headers=_bearer(token), timeout=timeout)
        except httpx.HTTPError as error:
            raise unreachable(self.url, error, seconds) from error


async def _read_to_the_end(events: AsyncIterator[str]) -> None:
    """Nothing comes after the last event but the body's end; only a body that was read whole frees its connection."""
    with suppress(TimeoutError, httpx.HTTPError):
        async with asyncio.timeout(LAST_BYTES_SECONDS):
            async for _ in events:
                pass


def _bearer(token: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


async def _whole(response: httpx.Response) -> AsyncIterator[str]:
    yield (await response.aread()).decode("utf-8", errors="replace")
