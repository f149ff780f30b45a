"""The server as a real process on a real socket, spoken to by the official OpenAI client."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from inference.adapter_files import WEIGHTS
from inference.base_model import BaseModel
from inference.prompt import render
from inference.server.main import serve
from nocap.domain import ChatMessage
from nocap.errors import ConfigurationError
from nocap.settings import InferenceSettings, Settings
from tests.inference.server import tiny
from tests.inference.server.test_adapters import rewritten

PROGRAM = """
import sys
from dataclasses import dataclass
from pathlib import Path
from inference.server.main import serve
from nocap.settings import InferenceSettings, ModelSettings, Settings

@dataclass(frozen=True)
class Tokens:
    user: str = "user-1"
    admin: str = "admin-1"

base, data, port = sys.argv[1:]
serve(
    Settings(
        data_dir=Path(data),
        model=ModelSettings(base=base, quantization="none", device="cpu"),
        inference=InferenceSettings(port=int(port), max_batch=2, max_queue=10, max_adapters=2),
    ),
    Tokens(),
    preload=["genz-v1", "genz-v404"],
)
"""


@dataclass(frozen=True)
class Tokens:
    user: str = "user-1"
    admin: str = "admin-1"


@dataclass(frozen=True)
class Running:
    url: str
    process: subprocess.Popen[bytes]
    log: Path


@pytest.fixture(scope="module")
def server(base_folder: Path, adapters_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    data = tmp_path_factory.mktemp("data")
    (data / "adapters").mkdir()
    for name in ("genz-v1", "genz-v2"):
        (data / "adapters" / name).mkdir()
        for file in (adapters_dir / name).iterdir():
            (data / "adapters" / name / file.name).write_bytes(file.read_bytes())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = data / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(base_folder), str(data), str(port)], stdout=output, stderr=output
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(url, process, log)
        yield Running(url, process, log)
    finally:
        process.kill()
        process.wait()


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(1800):
        assert process.poll() is None, log.read_text()
        try:
            if httpx.get(f"{url}/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(log.read_text())


def expected(base_folder: Path, adapters_dir: Path, adapter: str | None) -> str:
    tokenizer = tiny.load(base_folder).tokenizer
    prompt = render(tokenizer, [ChatMessage("user", "hello you")], add_generation_prompt=True)
    path = adapters_dir / adapter if adapter else None
    (token_ids,) = tiny.reference(base_folder, [prompt], 10, path)
    text: str = tokenizer.decode(token_ids, skip_special_tokens=True)
    return text


def test_the_openai_client_works_unchanged(server: Running, base_folder: Path, adapters_dir: Path) -> None:
    openai = pytest.importorskip("openai")
    user = openai.OpenAI(base_url=f"{server.url}/v1", api_key="user-1", max_retries=0)
    assert [model.id for model in user.models.list()] == ["base", "genz-v1"]
    ask = {"messages": [{"role": "user", "content": "hello you"}], "temperature": 0, "max_tokens": 10}
    whole = user.chat.completions.create(model="genz-v1", **ask)
    assert whole.model == "genz-v1"
    assert whole.choices[0].message.content == expected(base_folder, adapters_dir, "genz-v1")
    stream = user.chat.completions.create(model="base", stream=True, **ask)
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == expected(
        base_folder, adapters_dir, None
    )
    with pytest.raises(openai.NotFoundError):
        user.chat.completions.create(model="genz-v404", **ask)
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="no", max_retries=0).models.list()
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        user.chat.completions.create(model="base", messages=ask["messages"], max_tokens=9999)


async def test_hugging_faces_client_works_unchanged(server: Running, base_folder: Path, adapters_dir: Path) -> None:
    from huggingface_hub import AsyncInferenceClient

    client = AsyncInferenceClient(base_url=f"{server.url}/v1", api_key="user-1")
    ask = {"messages": [{"role": "user", "content": "hello you"}], "max_tokens": 10, "temperature": 0.0}
    whole = await client.chat_completion(model="genz-v1", **ask)
    assert whole.choices[0].message.content == expected(base_folder, adapters_dir, "genz-v1")
    assert whole.model == "genz-v1"
    stream = await client.chat_completion(model="genz-v1", stream=True, **ask)
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == whole.choices[0].message.content
    await client.close()


def test_curl_works(server: Running, base_folder: Path, adapters_dir: Path) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("needs curl")
    body = {"model": "base", "messages": [{"role": "user", "content": "hello you"}], "max_tokens": 10, "temperature": 0}
    command = [curl, "-sS", f"{server.url}/v1/chat/completions", "-H", "Authorization: Bearer user-1", "-H"]
    done = subprocess.run(
        [*command, "Content-Type: application/json", "-d", json.dumps(body)], check=True, capture_output=True
    )
    assert json.loads(done.stdout)["choices"][0]["message"]["content"] == expected(base_folder, adapters_dir, None)


def test_adapters_that_must_not_load_are_refused_with_the_reason_and_nothing_changes(
    server: Running, base: BaseModel, adapters_dir: Path, tmp_path: Path
) -> None:
    root = server.log.parent / "adapters"
    corrupt = shutil.copytree(adapters_dir / "genz-v1", root / "corrupt") / WEIGHTS
    corrupt.chmod(0o644)
    corrupt.write_bytes(corrupt.read_bytes()[:-1] + b"\0")
    tiny.write_adapter(tiny.write_model(tmp_path / "other", seed=9), root / "foreign", seed=1)
    rewritten(adapters_dir / "genz-v1", root / "ill-fitting", base, r=2)
    rewritten(adapters_dir / "genz-v1", root / "no-lora", base, peft_type="LOHA")
    (root / "linked").symlink_to(adapters_dir / "genz-v1")
    (root / "empty").mkdir()
    before = ask(server, "genz-v1")
    for name, path, reason in (
        ("corrupt", "corrupt", "corrupt"),
        ("foreign", "foreign", "another base"),
        ("ill-fitting", "ill-fitting", "does not fit"),
        ("no-lora", "no-lora", "peft_type"),
        ("empty", "empty", "empty"),
        ("linked", "linked", "symbolic link"),
        ("genz-v2", "../adapters/genz-v2", "outside"),
        ("genz-v2", "/etc", "outside"),
        ("genz-v404", "genz-v404", "no adapter folder"),
    ):
        refused = post(server, "/v1/load_lora_adapter", {"lora_name": name, "lora_path": path}, "admin-1")
        assert refused.status_code in (400, 409), (name, refused.text)
        assert reason in refused.json()["error"]["message"]
        assert post(server, "/v1/completions", {"model": name, "prompt": [5]}).status_code == 404
    models = httpx.get(f"{server.url}/v1/models", headers={"Authorization": "Bearer user-1"}).json()["data"]
    assert [model["id"] for model in models] == ["base", "genz-v1"]
    assert ask(server, "genz-v1") == before


def test_what_is_asked_wrongly_has_a_status_of_its_own_and_the_server_goes_on(server: Running) -> None:
    load = {"lora_name": "genz-v2", "lora_path": "genz-v2"}
    assert post(server, "/v1/load_lora_adapter", load, "user-1").status_code == 403
    assert post(server, "/v1/load_lora_adapter", load, "wrong").status_code == 401
    assert post(server, "/v1/completions", {"model": "base", "prompt": [5]}, "wrong").status_code == 401
    long = post(server, "/v1/completions", {"model": "base", "prompt": [5] * 250, "max_tokens": 10})
    assert (long.status_code, "256" in long.json()["error"]["message"]) == (400, True)
    for model in ("genz-v404", ""):
        assert post(server, "/v1/completions", {"model": model, "prompt": [5]}).status_code == 404
    assert post(server, "/v1/completions", {"model": "base", "prompt": [10**6]}).status_code == 400
    assert ask(server, "base")


async def test_a_full_queue_says_429_and_when_to_come_back(server: Running) -> None:
    body = {"model": "base", "prompt": [5], "max_tokens": 100, "temperature": 5}
    async with httpx.AsyncClient(base_url=server.url, headers={"Authorization": "Bearer user-1"}) as http:
        answers = await asyncio.gather(*(http.post("/v1/completions", json=body, timeout=60) for _ in range(24)))
    assert {answer.status_code for answer in answers} == {200, 429}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers if answer.status_code == 429)
    assert ask(server, "base")


def post(server: Running, path: str, body: dict[str, object], token: str = "user-1") -> httpx.Response:
    return httpx.post(f"{server.url}{path}", json=body, headers={"Authorization": f"Bearer {token}"}, timeout=60)


def ask(server: Running, model: str) -> str:
    answer = post(server, "/v1/completions", {"model": model, "prompt": [5, 6, 7], "max_tokens": 10, "temperature": 0})
    text: str = answer.json()["choices"][0]["text"]
    return text


def ask_and_leave(server: Running, stream: bool) -> None:
    """More requests than the batch holds, so that some still wait when their clients are gone."""
    body = json.dumps({"model": "base", "prompt": [5], "max_tokens": 230, "temperature": 5, "stream": stream})
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer user-1\r\nContent-Length: {len(body)}"
    with ExitStack() as connections:
        for _ in range(12):
            port = int(server.url.rpartition(":")[2])
            connection = connections.enter_context(socket.create_connection(("127.0.0.1", port)))
            connection.sendall(f"{head}\r\nContent-Type: application/json\r\n\r\n{body}".encode())
        while not metric(server, "vllm:num_requests_waiting"):
            time.sleep(0.001)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_its_place(server: Running, stream: bool) -> None:
    cancelled = 'vllm:request_success_total{finished_reason="cancelled",model_name="base"}'
    before = metric(server, cancelled)
    ask_and_leave(server, stream)
    while metric(server, "vllm:num_requests_running") or metric(server, "vllm:num_requests_waiting"):
        time.sleep(0.01)
    assert metric(server, cancelled) > before


def metric(server: Running, name: str) -> float:
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def test_an_adapter_that_could_not_be_preloaded_is_logged_with_the_reason(server: Running) -> None:
    assert "genz-v404" in server.log.read_text()


def test_an_address_in_use_is_one_clear_sentence(server: Running) -> None:
    port = int(server.url.rpartition(":")[2])
    settings = Settings(inference=InferenceSettings(port=port))
    with pytest.raises(ConfigurationError, match=f"cannot listen on 127.0.0.1:{port}"):
        serve(settings, Tokens())


def test_a_running_answer_is_finished_before_sigterm_ends_the_process(server: Running) -> None:
    body = {"model": "base", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 100, "stream": True}
    headers = {"Authorization": "Bearer user-1"}
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, headers=headers) as answer:
        lines = answer.iter_lines()
        next(lines)
        server.process.send_signal(signal.SIGTERM)
        assert "data: [DONE]" in list(lines)
    assert server.process.wait(30) == 0
    assert "Traceback" not in server.log.read_text()
