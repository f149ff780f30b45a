"""Swap under fire: clients talk to two replicas while promotions, rollbacks and canaries go on, and one is killed.

    python -m benchmarks.hotswap [--quick] [--json]

Every answer is compared in full with what its adapter answers alone, one request at a time. *Wrong* is any other text;
*mixed* a wrong one that begins as its own adapter's answer does; *stale* an answer by an adapter that was neither live
nor canary at any moment between the request and its first piece; *failed* an error that reached the client. In the
second part one replica gets SIGKILL in the middle. Servers, database, promotion and router are the product's own.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import torch

from benchmarks._models import write_random_adapter
from benchmarks._report import Bar, publish
from inference.adapter_files import read_manifest
from inference.base_model import load_base
from inference.responder import ReplyRequest, RoutedResponder, connect
from inference.router_metrics import MOVED
from inference.server.engine import Engine
from inference.server.generation import GenerationRequest
from nocap.domain import BASE, AdapterName, AdapterStatus, ChannelKey, SamplingOptions, VoiceName
from nocap.errors import NocapError
from nocap.settings import EMBEDDED_BASE, InferenceSettings, ModelSettings, Settings
from retrain.promote import (
    GREEDY,
    Golden,
    LiveBackend,
    golden_messages,
    promote,
    rollback,
    start_canary,
    write_golden,
)
from storage import registry
from storage.crypto import Keyring
from storage.database import Database
from storage.tables import Adapter, Deployment

VOICE = VoiceName("genz")
SYSTEM_PROMPT = "You are a bot in this chat."
TOKENS = "user-1", "admin-1"
CLIENTS = 12
PROMPTS = tuple(f"what do you think about {thing}" for thing in ("school", "pizza", "rain", "cats", "trains", "music"))
SAMPLING = SamplingOptions(temperature=0.0, top_p=1.0, max_tokens=24)
SMALLEST_MARGIN = 1e-3
"""Prompts whose reference has two tokens nearer than this are left out: rounding in a batch could tell them apart."""
BARS = {
    "moves": Bar(40, at_most=False),
    "wrong": Bar(0),
    "mixed": Bar(0),
    "failed": Bar(0),
    "stale": Bar(0),
    "kill_wrong": Bar(0),
    "kill_failed": Bar(0),
}
QUICK_BARS = BARS | {"moves": Bar(6, at_most=False)}
SERVER = """
import logging, sys, torch
from pathlib import Path
torch.set_num_threads(1)
from inference.credentials import Tokens
from inference.server.main import serve
from nocap.observability.logs import configure_logging
from nocap.settings import InferenceSettings, ModelSettings, Settings

configure_logging(logging.WARNING, process="serve")
model, data, port = sys.argv[1:]
serve(
    Settings(
        data_dir=Path(data),
        model=ModelSettings(base=model, quantization="none", device="cpu"),
        inference=InferenceSettings(port=int(port), max_batch=16, max_adapters=4),
    ),
    Tokens("user-1", "admin-1"),
)
"""


@dataclass
class World:
    """What the clients and the operator share."""

    database: Database
    settings: Settings
    expected: dict[tuple[str, str], str]
    """By adapter and prompt: the whole answer."""
    adapters: list[AdapterName]
    deployed: list[tuple[float, frozenset[str]]] = field(default_factory=list)
    """From when on which adapters might answer; while a move is under way both the old and the new."""
    counts: Counter[str] = field(default_factory=Counter)

    def read_deployment(self, voice: VoiceName) -> Deployment:
        with self.database.read() as session:
            return registry.deployment(session, voice)

    def note_deployed(self, *coming: str) -> None:
        row = self.read_deployment(VOICE)
        names = {name for name in (row.current, row.canary, *coming) if name}
        self.deployed.append((time.monotonic(), frozenset(names)))

    def could_answer(self, adapter: str, asked_at: float, answered_at: float) -> bool:
        ends = [moment for moment, _ in self.deployed[1:]] + [float("inf")]
        return any(
            adapter in names and start <= answered_at and end >= asked_at
            for (start, names), end in zip(self.deployed, ends, strict=True)
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="12 seconds instead of 60, 6 moves instead of 40")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seconds = 12 if options.quick else 60
    with TemporaryDirectory() as folder, prepared(Path(folder)) as (world, processes):
        figures = asyncio.run(swap_under_fire(world, seconds))
        figures |= asyncio.run(kill_under_fire(world, processes[0], 8 if options.quick else 20))
    bars = QUICK_BARS if options.quick else BARS
    publish("hotswap", figures, bars, packages=("torch", "transformers", "fastapi", "httpx"), as_json=options.json)


async def swap_under_fire(world: World, seconds: float) -> dict[str, float]:
    """Figures of `seconds` of talk with a move after the other."""
    world.note_deployed()
    over = asyncio.Event()
    async with _router(world) as responder:
        clients = [asyncio.create_task(_client(world, responder, number, over)) for number in range(CLIENTS)]
        await asyncio.to_thread(_operate, world, time.monotonic() + seconds)
        over.set()
        await asyncio.gather(*clients)
    figures = {name: float(world.counts[name]) for name in ("answered", "moves", "wrong", "mixed", "failed", "stale")}
    figures["adapters_that_answered"] = float(sum(name.startswith("by ") for name in world.counts))
    return figures


async def kill_under_fire(world: World, process: subprocess.Popen[bytes], seconds: float) -> dict[str, float]:
    """The same talk without moves, while one of the two replicas is killed after a third of the time."""
    world.counts.clear()
    world.note_deployed()
    taken_up = _taken_up()
    over = asyncio.Event()
    async with _router(world) as responder:
        clients = [asyncio.create_task(_client(world, responder, number, over)) for number in range(CLIENTS)]
        await asyncio.sleep(seconds / 3)
        process.send_signal(signal.SIGKILL)
        await asyncio.sleep(2 * seconds / 3)
        over.set()
        await asyncio.gather(*clients)
    return {
        "kill_answered": float(world.counts["answered"]),
        "kill_wrong": float(world.counts["wrong"]),
        "kill_failed": float(world.counts["failed"]),
        "kill_streams_taken_up_elsewhere": _taken_up() - taken_up,
    }


def _taken_up() -> float:
    """Answers so far that went on at another replica."""
    (counted,) = MOVED.collect()
    return sum(sample.value for sample in counted.samples if sample.name.endswith("_total"))


def _router(world: World) -> RoutedResponder:
    user, admin = TOKENS
    return connect(world.settings, world.read_deployment, user_token=user, admin_token=admin)


async def _client(world: World, responder: RoutedResponder, number: int, over: asyncio.Event) -> None:
    """Asks again and again; every third client reads its answer piece by piece, slowly."""
    rng = random.Random(number)
    prompts = sorted({prompt for _, prompt in world.expected})
    while not over.is_set():
        prompt = rng.choice(prompts)
        messages = tuple(golden_messages(SYSTEM_PROMPT, prompt))
        asked_at = time.monotonic()
        try:
            channel = ChannelKey(f"{number}-{rng.randrange(40)}")
            reply = await responder.open(ReplyRequest(VOICE, channel, messages, SAMPLING))
            answered_at = time.monotonic()
            pieces = []
            async for piece in reply:
                pieces.append(piece)
                if number % 3 == 0:
                    await asyncio.sleep(0.01)
        except NocapError as error:
            world.counts["failed"] += 1
            print(f"failed: {type(error).__name__}: {error}", file=sys.stderr)
            await asyncio.sleep(0.1)
            continue
        _judge(world, reply.adapter, prompt, "".join(pieces), asked_at, answered_at)


def _judge(world: World, adapter: str, prompt: str, text: str, asked_at: float, answered_at: float) -> None:
    world.counts["answered"] += 1
    world.counts[f"by {adapter}"] += 1
    expected = world.expected[adapter, prompt]
    if text != expected:
        world.counts["wrong"] += 1
        world.counts["mixed"] += text[:4] == expected[:4]
        print(f"wrong: {adapter} answered {text!r}, alone {expected!r}", file=sys.stderr)
    if not world.could_answer(adapter, asked_at, answered_at):
        world.counts["stale"] += 1
        print(f"stale: {adapter}", file=sys.stderr)


def _operate(world: World, until: float) -> None:
    """Promotes one adapter after the other with a canary beside it, and rolls back after every third."""
    backend = LiveBackend(world.settings, user_token=TOKENS[0], admin_token=TOKENS[1])
    audit = {"actor": "benchmark", "at": datetime.now(UTC)}
    turn = 0
    while time.monotonic() < until:
        name, canary = (world.adapters[(turn + step) % len(world.adapters)] for step in (0, 1))
        world.note_deployed(name)
        promote(world.database, backend, world.settings, name, reason="benchmark", **audit)  # type: ignore[arg-type]
        world.counts["moves"] += 1
        world.note_deployed(canary)
        start_canary(world.database, backend, world.settings, canary, 0.3, **audit)  # type: ignore[arg-type]
        world.note_deployed()
        if turn % 3 == 2:
            world.note_deployed(world.read_deployment(VOICE).previous or BASE)
            rollback(world.database, backend, world.settings, VOICE, None, reason="benchmark", **audit)  # type: ignore[arg-type]
            world.counts["moves"] += 1
            world.note_deployed()
        turn += 1


@contextmanager
def prepared(folder: Path) -> Iterator[tuple[World, list[subprocess.Popen[bytes]]]]:
    """Six random adapters of the embedded base with what each answers alone, a database, and two replicas."""
    model = EMBEDDED_BASE
    names = [AdapterName(f"genz-v{number}") for number in range(1, 7)]
    base = load_base(str(model), quantization="none", device="cpu")
    data = folder / "data"
    for number, name in enumerate(names):
        write_random_adapter(base, model, data / "adapters" / name, seed=number)
    prompts, answers, expected = _alone(base, data / "adapters", names)
    ports = [_free_port() for _ in range(2)]
    settings = Settings(
        data_dir=data,
        model=ModelSettings(base=str(model), quantization="none", device="cpu"),
        inference=InferenceSettings(urls=tuple(f"http://127.0.0.1:{port}" for port in ports), max_adapters=4),
    )
    database = _register(settings, names, prompts, answers)
    processes = [subprocess.Popen([sys.executable, "-c", SERVER, str(model), str(data), str(port)]) for port in ports]
    try:
        for url in settings.inference.urls:
            _wait_until_ready(url)
        yield World(database, settings, expected, names), processes
    finally:
        for process in processes:
            process.kill()
            process.wait()
        database.close()


def _alone(
    base: object, adapters: Path, names: Sequence[AdapterName]
) -> tuple[list[str], dict[tuple[str, str], str], dict[tuple[str, str], str]]:
    """Prompts that rounding cannot change, the golden answers, and the whole ones; one request at a time."""
    short: dict[tuple[str, str], str] = {}
    whole: dict[tuple[str, str], str] = {}
    near: set[str] = set()
    with Engine(base, max_batch=1, max_queue=1, max_adapters=6, max_rank=8, max_length=256) as engine:  # type: ignore[arg-type]
        margin = _watch_margin(engine)
        for name in names:
            engine.load_adapter(name, adapters / name)
        for name in (BASE, *names):
            for prompt in PROMPTS:
                messages = tuple(golden_messages(SYSTEM_PROMPT, prompt))
                margin.clear()
                for answers, sampling in ((short, GREEDY), (whole, SAMPLING)):
                    reply = engine.submit(GenerationRequest(name, messages, sampling), stream=False).result()
                    answers[name, prompt] = reply.text
                if min(margin) < SMALLEST_MARGIN:
                    near.add(prompt)
    kept = [prompt for prompt in PROMPTS if prompt not in near]
    if len(kept) < 2:
        raise SystemExit("Too few prompts with clear answers; change PROMPTS.")
    return kept, short, {key: text for key, text in whole.items() if key[1] in kept}


def _watch_margin(engine: Engine) -> list[float]:
    """Fills with the distance of the best two logits of every step."""
    margins: list[float] = []
    real = engine._runner.logits

    def logits(first_slot: int, chunks: object, starts: object, adapters: object) -> torch.Tensor:
        found_BV = real(first_slot, chunks, starts, adapters)  # type: ignore[arg-type]
        best_B2 = found_BV.topk(2).values
        margins.append(float((best_B2[:, 0] - best_B2[:, 1]).min()))
        return found_BV

    engine._runner.logits = logits  # type: ignore[method-assign, assignment]
    return margins


def _register(
    settings: Settings, names: Sequence[AdapterName], prompts: Sequence[str], short: dict[tuple[str, str], str]
) -> Database:
    database = Database.open(settings.database_url, Keyring.create(settings.key_file), create=True)
    now = datetime.now(UTC)
    with database.write() as session:
        registry.ensure_voice(session, VOICE, SYSTEM_PROMPT, [], now)
        for name in names:
            run = settings.runs_dir / f"run-{name}"
            run.mkdir(parents=True)
            write_golden(run, [Golden(prompt, short[name, prompt], short[BASE, prompt]) for prompt in prompts])
            manifest = read_manifest(settings.adapters_dir / name)
            registry.register_adapter(
                session,
                Adapter(
                    name=name,
                    voice=VOICE,
                    run_id=run.name,
                    base="benchmark",
                    base_digest=manifest.base_digest,
                    digest=manifest.digest,
                    status=AdapterStatus.PASSED,
                    created_at=now,
                ),
            )
    return database


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _wait_until_ready(url: str) -> None:
    for _ in range(1200):
        try:
            if httpx.get(f"{url}/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"{url} did not start.")


if __name__ == "__main__":
    main()
