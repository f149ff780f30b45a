"""The chat wire: OpenAI's request body, server-sent events, and an answer read piece by piece."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from inference.dialects import Dialect
from nocap.domain import AdapterName, ChatMessage, SamplingOptions
from nocap.errors import BackendBusy, BackendUnavailable, InferenceError, WrongModelAnswered

DEFAULT_RETRY_AFTER_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Delta:
    """What one event adds to an answer."""

    text: str
    finish_reason: str | None


def chat_body(
    dialect: Dialect, adapter: AdapterName, messages: Sequence[ChatMessage], sampling: SamplingOptions, stream: bool
) -> dict[str, Any]:
    """The JSON of a `/v1/chat/completions` request."""
    said = [asdict(message) for message in messages]
    return {"model": dialect.wire_name(adapter), "messages": said, "stream": stream, **dialect.sampling(sampling)}


async def event_data(chunks: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """The `data` of every event, as it arrives (https://html.spec.whatwg.org/multipage/server-sent-events.html).

    Lines end at LF or CRLF alone: httpx's `aiter_lines` also splits at U+2028, U+0085 and others, which stand
    unescaped inside JSON strings and would cut a chat message in two.
    """
    buffer = b""
    data: list[str] = []
    async for chunk in chunks:
        buffer += chunk
        *lines, buffer = buffer.split(b"\n")
        for raw in lines:
            line = raw.removesuffix(b"\r").decode("utf-8", errors="replace")
            if line.startswith("data:"):
                data.append(line[5:].removeprefix(" "))
            elif not line and data:
                yield "\n".join(data)
                data = []


async def read_answer(url: str, name: str | None, events: AsyncIterator[str]) -> AsyncGenerator[Delta, None]:
    """What each event adds; every event's `model` must be `name` (None: any) before its text is let through.

    Raises WrongModelAnswered, BackendUnavailable where it breaks off, InferenceError where it is given up.
    """
    finish_reason = None
    async for data in events:
        if data == "[DONE]":
            break
        delta = _delta(url, name, data)
        finish_reason = delta.finish_reason or finish_reason
        if finish_reason == "error":
            raise InferenceError(f"{url} gave up in the middle of an answer; its log says why.")
        yield delta
    if finish_reason is None:
        raise BackendUnavailable(f"{url} broke off in the middle of an answer; try again.")


def _delta(url: str, name: str | None, data: str) -> Delta:
    try:
        event = json.loads(data)
        if error := event.get("error"):
            raise _error_event(url, error)
        _check_model(url, name, event.get("model"))
        choice = event["choices"][0] if event.get("choices") else {}
        part = choice.get("delta") or choice.get("message") or {}
        return Delta(part.get("content") or "", choice.get("finish_reason"))
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise BackendUnavailable(
            f"{url} sent {len(data)} characters that are no chat answer; check that the URL is a backend's."
        ) from error


def _check_model(url: str, name: str | None, answered: object) -> None:
    if name is None or answered == name:
        return
    named = f"in the name of `{answered}`" if answered else "without naming a model"
    raise WrongModelAnswered(
        f"{url} answered {named} when `{name}` was asked for, so the answer was thrown away; "
        f"load `{name}` there, or mend `inference.model_name` and `inference.base_model_name`."
    )


def _error_event(url: str, detail: object) -> InferenceError:
    code = detail.get("code") if isinstance(detail, dict) else None
    if code == 429:
        return BackendBusy(f"{url} is overloaded; try again shortly.", DEFAULT_RETRY_AFTER_SECONDS)
    return BackendUnavailable(f"{url} failed in the middle of an answer (code {code}); its log says why.")
