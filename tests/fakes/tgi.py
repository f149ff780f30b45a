"""A wire-level fake of TGI 3.3.7 (router/src/server.rs, infer and validation), with its traps.

Adapters are those of its start. Answers name the base model's id, whoever was asked. A `model` that is neither `tgi`
nor an adapter of the start is answered by the base model. `top_p` must lie strictly between 0 and 1, and with it a
greedy request samples. Errors are `{"error": sentence, "error_type": kind}`.
"""

from __future__ import annotations

import json
from typing import Any

from tests.fakes.backend import Answer, FakeBackend, FakeResponse, Refuse, _bytes, _json

MODEL_ID = "Qwen/Qwen2.5-7B-Instruct"


class FakeTgi(FakeBackend):
    """`adapters` are what LORA_ADAPTERS named when it started."""

    def __init__(self, max_total_words: int = 200, **adapters: Answer) -> None:
        super().__init__(**adapters)
        self.max_total_words = max_total_words

    async def handle(self, method: str, path: str, headers: dict[str, str], body: bytes) -> FakeResponse:
        if self.user_token and headers.get("authorization") != f"Bearer {self.user_token}":
            return FakeResponse(401, _bytes(b""))
        if (method, path) == ("GET", "/v1/models"):
            return _json(200, {"object": "list", "data": [{"id": MODEL_ID, "object": "model"}]})
        if (method, path) == ("GET", "/health"):
            return FakeResponse(200, _bytes(b""))
        if (method, path) == ("POST", "/v1/chat/completions"):
            return self._tgi_chat(json.loads(body))
        return FakeResponse(404, _bytes(b""))

    def _tgi_chat(self, body: dict[str, Any]) -> FakeResponse:
        self.chats.append(body)
        self.was_asked.set()
        fault = self.faults.popleft() if self.faults else None
        if isinstance(fault, Refuse):
            return _tgi_error(fault.status, fault.message, "overloaded" if fault.status == 429 else "generation")
        top_p = body.get("top_p")
        if top_p is not None and not 0 < top_p < 1:
            return _tgi_error(422, "`top_p` must be > 0.0 and < 1.0", "validation")
        words = sum(len(message["content"].split()) for message in body["messages"])
        if words + body["max_tokens"] > self.max_total_words:
            return _tgi_error(
                422,
                f"`inputs` tokens + `max_new_tokens` must be <= {self.max_total_words}. Given: {words} `inputs` tokens"
                f" and {body['max_tokens']} `max_new_tokens`",
                "validation",
            )
        answer = self.models.get(body["model"], self.models["base"])
        pieces = answer(body["messages"])
        if body["temperature"] == 0 and top_p is not None:
            pieces = ["sampled ", "after ", "all"]
        if not body.get("stream"):
            message = {"role": "assistant", "content": "".join(pieces)}
            choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
            return _json(200, {"object": "chat.completion", "id": "", "model": MODEL_ID, "choices": [choice]})
        return FakeResponse(200, self._stream(MODEL_ID, pieces, fault), {"content-type": "text/event-stream"})


def _tgi_error(status: int, message: str, kind: str) -> FakeResponse:
    return _json(status, {"error": message, "error_type": kind})
