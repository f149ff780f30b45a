"""Replies in OpenAI's JSON: whole, and as server-sent events."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from inference.server.generation import Completion, Event
from nocap.domain import AdapterName, utc_now
from nocap.errors import BackendBusy, InferenceError

Kind = Literal["chat.completion", "text_completion"]

END_OF_STREAM = "data: [DONE]\n\n"


@dataclass(frozen=True)
class AnswerFormat:
    """The parts that stay the same over one answer."""

    kind: Kind
    adapter: AdapterName
    id: str = field(default_factory=lambda: f"cmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(utc_now().timestamp()))

    def whole(self, completion: Completion) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": 0, "finish_reason": completion.finish_reason, "logprobs": None}
        if self.kind == "chat.completion":
            choice["message"] = {"role": "assistant", "content": completion.text}
        else:
            choice["text"] = completion.text
        return self._body(self.kind, [choice]) | {"usage": _usage(completion)}

    async def events(self, arriving: AsyncIterator[Event], *, include_usage: bool) -> AsyncIterator[str]:
        """The whole stream; a failure in the middle is an `error` event, after which nothing comes."""
        if self.kind == "chat.completion":
            yield self._chunk({"role": "assistant", "content": ""}, None)
        async for event in arriving:
            if isinstance(event, str):
                yield self._chunk({"content": event}, None)
            elif isinstance(event, InferenceError):
                busy = isinstance(event, BackendBusy)
                yield _event(error_body(str(event), "server_error", 429 if busy else 500))
                return
            else:
                yield self._chunk({}, event.finish_reason)
                if include_usage:
                    yield _event(self._body(self._chunk_kind, []) | {"usage": _usage(event)})
        yield END_OF_STREAM

    @property
    def _chunk_kind(self) -> str:
        return "chat.completion.chunk" if self.kind == "chat.completion" else self.kind

    def _chunk(self, delta: Mapping[str, str], finish_reason: str | None) -> str:
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish_reason, "logprobs": None}
        if self.kind == "chat.completion":
            choice["delta"] = delta
        else:
            choice["text"] = delta.get("content", "")
        return _event(self._body(self._chunk_kind, [choice]))

    def _body(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.adapter, "choices": choices}


def error_body(message: str, kind: str, code: str | int | None) -> dict[str, Any]:
    """OpenAI's shape of an error."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _usage(completion: Completion) -> dict[str, Any]:
    prompt, generated = completion.prompt_tokens, len(completion.token_ids)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
        "prompt_tokens_details": {"cached_tokens": completion.reused_tokens},
    }


def _event(body: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"
