"""`retrain.gpu = "pause"` on a real server: it makes room, bots say so, and it serves again, also after a kill."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
import uvicorn

from bots import messages
from inference.base_model import BaseModel, load_base
from inference.credentials import backend_tokens
from inference.responder import ReplyRequest, connect
from inference.server.api import create_app
from inference.server.engine import Engine
from nocap.domain import ChatMessage, RunState, SamplingOptions, Stage
from nocap.errors import BackendPaused
from nocap.settings import InferenceSettings
from retrain import stages
from retrain.run_folder import secrets_environment, write_config
from storage import registry
from tests.retrain.job_world import CHANNEL, GENZ, World

KILLABLE = """
import sys
from retrain import card_room, job
card_room.LEASE_SECONDS, card_room.RENEW_SECONDS, job.HEARTBEAT_SECONDS = 12.0, 1.0, 1.0
sys.exit(job.main(sys.argv[1:]))
"""


@pytest.fixture
def world(tmp_path, tiny_base) -> Iterator[World]:
    """An installation whose card is lent to retrains, with its embedded server on a real socket."""
    made = World(tmp_path / "data", tiny_base, gpu="pause", max_steps=400)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    inference = InferenceSettings(urls=(f"http://127.0.0.1:{port}",))
    made.settings = made.settings.model_copy(update={"inference": inference})
    tokens = backend_tokens(made.settings, made.database.keyring)

    def load() -> BaseModel:
        return load_base(str(tiny_base), quantization="nf4", device="cpu")

    with Engine(load(), max_batch=2, max_queue=4, max_adapters=2, max_rank=4, load_again=load) as engine:
        app = create_app(
            engine, user_token=tokens.user, admin_token=tokens.admin, adapters_dir=made.settings.adapters_dir
        )
        server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
        thread = threading.Thread(target=server.run)
        thread.start()
        _wait_for(lambda: server.started)
        yield made
        server.should_exit = True
        thread.join()
    made.database.close()


def test_bots_say_that_they_are_being_retrained_and_answer_again_afterwards(world, monkeypatch) -> None:
    """The run ends while it trains; measuring and gates have tests of their own."""
    while_it_trains: list[str] = []

    def train(context) -> stages.Outcome:
        while_it_trains.extend(asyncio.run(_asked_twice(world)))
        return RunState.ABSTAINED, "Enough for this test."

    monkeypatch.setattr(stages, "WORK", stages.WORK | {Stage.TRAIN: train})
    assert world.work() is RunState.ABSTAINED
    assert [told[:32] for told in while_it_trains] == ["I'm being retrained right now an"] * 2
    assert not _is_paused(world), "the run's end brought the server back"
    assert [told for told in asyncio.run(_asked_twice(world)) if "retrained" in told] == []


async def _asked_twice(world: World) -> list[str]:
    """What a member reads; the second time the responder knows already, and need not ask the server."""
    tokens = backend_tokens(world.settings, world.database.keyring)

    def deployment(voice):
        with world.database.read() as session:
            return registry.deployment(session, voice)

    request = ReplyRequest(GENZ, CHANNEL, (ChatMessage("user", "you up?"),), SamplingOptions(max_tokens=4))
    told = []
    async with connect(world.settings, deployment, user_token=tokens.user, admin_token=tokens.admin) as responder:
        for _ in range(2):
            try:
                told.append("".join([piece async for piece in await responder.open(request)]))
            except BackendPaused as error:
                told.append(messages.failure(error, "abc"))
    return told


@pytest.mark.slow
def test_the_server_comes_back_by_itself_where_the_run_is_killed(world) -> None:
    config = write_config(world.folder, world.settings)
    process = subprocess.Popen(
        [sys.executable, "-c", KILLABLE, world.run_id, "--settings", str(config)],
        env=dict(os.environ) | secrets_environment(world.settings),
    )
    try:
        _wait_for(lambda: _is_paused(world) or process.poll() is not None)
        time.sleep(15)
        assert process.poll() is None and _is_paused(world), "longer than one lease: the heartbeat renews it"
    finally:
        process.kill()
        process.wait()
    _wait_for(lambda: not _is_paused(world), seconds=60)
    assert world.run().stage in (Stage.TRAIN, Stage.PREFERENCES)


def test_a_backend_that_cannot_pause_fails_the_run_with_one_sentence(world) -> None:
    inference = world.settings.inference.model_copy(update={"backend": "vllm"})
    world.settings = world.settings.model_copy(update={"inference": inference})
    assert world.work() is RunState.FAILED
    assert "only the embedded server pauses" in world.run().reason


def _is_paused(world: World) -> bool:
    return httpx.get(f"{world.settings.inference.urls[0]}/ready").status_code == 503


def _wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)
