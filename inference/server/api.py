"""The engine over HTTP: OpenAI's completions and vLLM's adapter endpoints."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from inference.server.answers import AnswerFormat, Kind, error_body
from inference.server.engine import Engine
from inference.server.generation import Completion, Event, Generation, GenerationRequest
from inference.server.pausing import Pauses
from inference.server.registry import AdapterConflict
from inference.server.schema import (
    ChatBody,
    CompletionBody,
    LoadBody,
    Options,
    PauseBody,
    ResumeBody,
    UnloadBody,
)
from nocap.domain import BASE, AdapterName
from nocap.errors import (
    AdapterError,
    BackendBusy,
    BackendPaused,
    BackendUnavailable,
    InputError,
    ModelError,
    NocapError,
    NotPermitted,
    PromptTooLong,
    UnknownAdapter,
)

_REFUSALS: tuple[tuple[type[NocapError], int, str, str], ...] = (
    (UnknownAdapter, 404, "invalid_request_error", "model_not_found"),
    (PromptTooLong, 400, "invalid_request_error", "context_length_exceeded"),
    (BackendPaused, 503, "server_error", "paused"),
    (BackendBusy, 429, "rate_limit_error", "queue_full"),
    (BackendUnavailable, 503, "server_error", "unavailable"),
    (NotPermitted, 409, "invalid_request_error", "paused_for_another"),
    (AdapterConflict, 409, "invalid_request_error", "adapter_conflict"),
    (AdapterError, 400, "invalid_request_error", "adapter_refused"),
    (ModelError, 400, "invalid_request_error", "template_refused"),
    (InputError, 400, "invalid_request_error", "invalid_value"),
    (NocapError, 500, "server_error", "internal_error"),
)
"""The first that fits counts."""


def create_app(engine: Engine, *, user_token: str, admin_token: str, adapters_dir: Path) -> FastAPI:
    """The application over a started engine.

    Either token may chat, the admin's alone may load, unload, pause and resume. Adapters are taken from
    `adapters_dir` only.
    """
    app = FastAPI(title="nocap", docs_url=None, redoc_url=None, openapi_url=None)
    user, admin = Depends(_bearer(user_token, admin_token)), Depends(_bearer_admin(user_token, admin_token))
    pauses = Pauses(engine)
    _add_error_handlers(app)

    @app.post("/v1/chat/completions", dependencies=[user])
    async def chat_completions(body: ChatBody, request: Request) -> Response:
        messages = tuple(message.as_message() for message in body.messages)
        prompt = await asyncio.to_thread(engine.prompt_token_ids, GenerationRequest(AdapterName(body.model), messages))
        return await _answer(engine, request, body, prompt, "chat.completion")

    @app.post("/v1/completions", dependencies=[user])
    async def completions(body: CompletionBody, request: Request) -> Response:
        text = body.prompt
        prompt = engine.base.tokenizer.encode(text) if isinstance(text, str) else text
        return await _answer(engine, request, body, tuple(prompt), "text_completion")

    @app.get("/v1/models", dependencies=[user])
    async def models() -> dict[str, Any]:
        base = _model_card(BASE, engine.base.name, None) | {"max_model_len": engine.max_length}
        cards = [_model_card(adapter.name, adapter.digest, BASE) for adapter in engine.adapters()]
        return {"object": "list", "data": [base, *cards]}

    @app.post("/v1/load_lora_adapter", dependencies=[admin])
    async def load_lora_adapter(body: LoadBody) -> Response:
        folder = confined(adapters_dir, body.lora_path)
        await asyncio.to_thread(engine.load_adapter, body.lora_name, folder)
        return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' added successfully.")

    @app.post("/v1/unload_lora_adapter", dependencies=[admin])
    async def unload_lora_adapter(body: UnloadBody) -> Response:
        await asyncio.to_thread(engine.unload_adapter, body.lora_name)
        return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' removed successfully.")

    @app.post("/v1/pause", dependencies=[admin])
    async def pause(body: PauseBody) -> Response:
        await asyncio.to_thread(pauses.begin, body.owner, body.lease_seconds)
        return PlainTextResponse("Paused: nothing is held on the device.")

    @app.post("/v1/resume", dependencies=[admin])
    async def resume(body: ResumeBody) -> Response:
        await asyncio.to_thread(pauses.end, body.owner)
        return PlainTextResponse("Serving.")

    @app.get("/healthz")
    @app.get("/health")
    async def health() -> Response:
        return Response(status_code=200 if engine.is_alive else 503)

    @app.get("/readyz")
    @app.get("/ready")
    async def ready() -> Response:
        return Response(status_code=200 if engine.is_ready else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(engine.metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return app


def confined(root: Path, path: str) -> Path:
    """The folder that `path` names inside `root`, relative to it or absolute.

    Raises AdapterError where it leads outside, by `..`, by a symbolic link, or at once.
    """
    candidate = root.absolute() / path
    inside = candidate.relative_to(root.absolute()) if candidate.is_relative_to(root.absolute()) else None
    if inside is None or not inside.parts or ".." in inside.parts or "\0" in path:
        raise AdapterError("`lora_path` leads outside this server's adapter folder; name a folder inside it.")
    steps = [root.absolute().joinpath(*inside.parts[: depth + 1]) for depth in range(len(inside.parts))]
    if any(step.is_symlink() for step in steps):
        raise AdapterError("`lora_path` passes a symbolic link; name the adapter's own folder.")
    return candidate


async def _answer(engine: Engine, request: Request, body: Options, prompt: tuple[int, ...], kind: Kind) -> Response:
    sampling = body.sampling(engine.max_length - len(prompt))
    wanted = GenerationRequest(AdapterName(body.model), sampling=sampling, prompt_token_ids=prompt)
    loop, arrived = asyncio.get_running_loop(), asyncio.Queue[Event]()

    def hand_over(event: Event) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody listens any more
            loop.call_soon_threadsafe(arrived.put_nowait, event)

    generation = engine.submit(wanted, stream=body.stream, on_event=hand_over)
    answer = AnswerFormat(kind, generation.adapter)
    if body.stream:
        events = answer.events(_events(arrived, generation), include_usage=body.includes_usage)
        return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
    outcome = await _outcome(request, arrived, generation)
    return JSONResponse(answer.whole(outcome)) if outcome is not None else Response(status_code=499)


async def _events(arrived: asyncio.Queue[Event], generation: Generation) -> AsyncIterator[Event]:
    """Until the reply is over; whoever stops listening (a disconnect does) ends the generation."""
    try:
        while isinstance(event := await arrived.get(), str):
            yield event
        yield event
    finally:
        generation.cancel()


async def _outcome(request: Request, arrived: asyncio.Queue[Event], generation: Generation) -> Completion | None:
    """The whole reply, or None where the client has gone. Raises InferenceError where the request failed."""
    reply, gone = asyncio.ensure_future(arrived.get()), asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({reply, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not reply.done():
            return None
        event = reply.result()
        if isinstance(event, Completion):
            return event
        assert not isinstance(event, str), "a request without a stream has no pieces"
        raise event
    finally:
        generation.cancel()
        reply.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _model_card(name: str, root: str, parent: str | None) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "nocap", "root": root, "parent": parent}


def _bearer(*accepted: str) -> Callable[[Request], Awaitable[None]]:
    async def check(request: Request) -> None:
        if not any(_same(_sent_token(request), token) for token in accepted):
            raise HTTPException(401, "The bearer token is missing or wrong.", {"WWW-Authenticate": "Bearer"})

    return check


def _bearer_admin(user_token: str, admin_token: str) -> Callable[[Request], Awaitable[None]]:
    known = _bearer(user_token, admin_token)

    async def check(request: Request) -> None:
        await known(request)
        if not _same(_sent_token(request), admin_token):
            raise HTTPException(403, "This is the admin token's to ask; yours is the user token.")

    return check


def _sent_token(request: Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(NocapError)
    async def refused(request: Request, error: NocapError) -> Response:
        status, kind, code = next(row[1:] for row in _REFUSALS if isinstance(error, row[0]))
        headers = {"Retry-After": f"{error.retry_after_seconds:.0f}"} if isinstance(error, BackendBusy) else None
        return JSONResponse(error_body(str(error), kind, code), status, headers)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"][1:]) or "the body"
        sentence = f"`{where}` is not usable: {problem['msg']}."
        return JSONResponse(error_body(sentence, "invalid_request_error", "invalid_value"), 400)

    @app.exception_handler(HTTPException)
    async def refused_by_http(request: Request, error: HTTPException) -> Response:
        kind = "authentication_error" if error.status_code in (401, 403) else "invalid_request_error"
        return JSONResponse(error_body(error.detail, kind, None), error.status_code, error.headers)
