"""The client of one inference replica that speaks OpenAI's chat protocol and vLLM's LoRA endpoints.

An answer whose `model` is not exactly the adapter asked for is refused: backends serve the bare base model
for a name that is empty or unknown to them, and nobody would notice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Any

import httpx

from inference.refusals import is_loaded_already, load_refusal, refusal, unreachable
from inference.wire import Delta, chat_body, event_data, read_answer
from nocap.domain import AdapterName, ChatMessage, SamplingOptions
from nocap.errors import ConfigurationError, InferenceError, UnknownAdapter

CONNECT_TIMEOUT_SECONDS = 5.0
ADAPTER_LOAD_TIMEOUT_SECONDS = 120.0
LAST_BYTES_SECONDS = 0.5
"""For the end of an answer's body after its last event; a server that keeps it open loses the connection."""


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
    ) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self._user_token = user_token
        self._admin_token = admin_token
        self._timeout_seconds = timeout_seconds
        try:
            self._http = httpx.AsyncClient(
                base_url=self.url,
                transport=transport,
                timeout=httpx.Timeout(timeout_seconds, connect=min(timeout_seconds, CONNECT_TIMEOUT_SECONDS)),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
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
        if not adapter:
            raise UnknownAdapter("No adapter was named; backends answer an empty name with the base model.")
        body = chat_body(adapter, messages, sampling, stream)
        reply = BackendReply(adapter, self._deltas(adapter, messages, body))
        try:
            await reply.wait_for_text()
        except BaseException:
            await reply.aclose()
            raise
        return reply

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

        Raises AdapterError with the backend's reason, or what `chat` raises for an unreachable replica.
        """
        response = await self._admin("/v1/load_lora_adapter", {"lora_name": name, "lora_path": path})
        if not response.is_success and not (is_loaded_already(response) and name in await self.models()):
            raise load_refusal(self.url, response, name)

    async def unload_adapter(self, name: AdapterName) -> None:
        """The replica has forgotten `name`; raises UnknownAdapter where it did not hold it."""
        response = await self._admin("/v1/unload_lora_adapter", {"lora_name": name})
        if not response.is_success:
            raise refusal(self.url, response, name)

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
                async with aclosing(read_answer(self.url, adapter, events)) as deltas:
                    async for delta in deltas:
                        yield delta
                await _read_to_the_end(events)
        except httpx.HTTPError as error:
            raise unreachable(self.url, error, self._timeout_seconds) from error

    async def _admin(self, path: str, body: dict[str, str]) -> httpx.Response:
        return await self._request("POST", path, self._admin_token, body, ADAPTER_LOAD_TIMEOUT_SECONDS)

    async def _request(
        self,
        method: str,
        path: str,
        token: str | None,
        body: dict[str, str] | None = None,
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
