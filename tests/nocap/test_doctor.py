"""Each finding, brought about: what the doctor says of a sound installation, and of each thing gone wrong."""

from __future__ import annotations

import shutil
from collections import namedtuple
from collections.abc import Callable, Iterator
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from nocap.app import initialise
from nocap.doctor import backend, examine, machine
from nocap.doctor.machine import needed_gib, parameters
from nocap.doctor.platforms import MESSAGE_CONTENT, check_discord, check_telegram
from nocap.domain import utc_now
from nocap.findings import Finding, Level
from nocap.settings import (
    DatabaseSettings,
    DiscordSettings,
    InferenceSettings,
    ModelSettings,
    RetrainSettings,
    Settings,
    TelegramSettings,
)

URL = "http://backend:8000"
TOKEN = "123456:very-secret"
Answer = Callable[[httpx.Request], httpx.Response]


def client(answer: Answer) -> httpx.Client:
    return httpx.Client(transport=httpx.MockTransport(answer))


def levels(findings: Iterator[Finding] | list[Finding]) -> list[Level]:
    return [finding.level for finding in findings]


def refused(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused", request=request)


@pytest.fixture
def installed(settings: Callable[..., Settings], tmp_path: Path) -> Settings:
    made = settings(database=DatabaseSettings(key_file=tmp_path / "keys" / "nocap.key"))
    initialise(made, tmp_path / "nocap.toml")
    return made


def test_gates_that_would_measure_another_quantisation_than_the_one_that_serves_are_a_problem(
    installed: Settings,
) -> None:
    served = installed.model_copy(update={"inference": InferenceSettings(backend="vllm", urls=(URL,))})
    (found,) = [one for one in machine.check_settings(served) if one.level is Level.PROBLEM]
    assert "NF4" in found.sentence and "inference.quantization" in (found.remedy or "")
    told = InferenceSettings(backend="vllm", urls=(URL,), quantization="none")
    told_settings = installed.model_copy(update={"inference": told})
    assert told_settings.served_quantization == "none" and told_settings.model.quantization == "nf4"
    assert not [one for one in machine.check_settings(told_settings) if one.level is Level.PROBLEM]


def test_an_environment_without_torch_is_told_to_leave_retrains_to_a_worker(
    installed: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrain.job.can_train", lambda: False)
    assert any("no torch" in one.sentence for one in machine.check_settings(installed))
    left = installed.model_copy(update={"retrain": RetrainSettings(runs_in="worker")})
    assert not any("no torch" in one.sentence for one in machine.check_settings(left))


def test_a_sound_installation_has_no_problem(installed: Settings) -> None:
    findings = examine(installed, transport=httpx.MockTransport(refused))
    assert not [finding for finding in findings if finding.level is Level.PROBLEM], findings
    assert {"settings", "disk", "key", "database", "base model", "gpu", "inference", "discord", "telegram"} <= {
        finding.subject for finding in findings
    }


def test_every_finding_that_is_not_well_says_what_to_do(settings: Callable[..., Settings]) -> None:
    findings = examine(settings(), transport=httpx.MockTransport(refused))
    assert Level.PROBLEM in levels(findings)
    assert all(finding.remedy for finding in findings if finding.level is not Level.OK)


def test_a_key_that_others_can_read_is_a_problem(installed: Settings) -> None:
    installed.key_file.chmod(0o644)
    (found,) = [one for one in examine(installed, offline=True) if one.subject == "key"]
    assert (found.level, "chmod 600" in found.sentence) == (Level.PROBLEM, True)


def test_an_old_schema_is_a_problem(installed: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.database.HEAD", "from-next-year")
    (found,) = [one for one in examine(installed, offline=True) if one.subject == "database"]
    assert (found.level, "nocap db upgrade" in found.sentence) == (Level.PROBLEM, True)


def test_a_read_only_data_folder_is_a_problem(installed: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_file(**_: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(machine.tempfile, "TemporaryFile", no_file)
    (found,) = machine.check_disk(installed)
    assert (found.level, "cannot be written" in found.sentence) == (Level.PROBLEM, True)


@pytest.mark.parametrize(("free", "level"), [(10**11, Level.OK), (3 * 2**30, Level.WARNING), (10**8, Level.PROBLEM)])
def test_a_disk_that_fills_up_is_told_in_time(
    installed: Settings, monkeypatch: pytest.MonkeyPatch, free: int, level: Level
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 0, free))
    assert levels(machine.check_disk(installed)) == [level]


def test_settings_that_cannot_work_together_are_a_problem(installed: Settings) -> None:
    wide = installed.model_copy(update={"retrain": RetrainSettings(rank=64, schedule="at dawn")})
    found = [one.sentence for one in machine.check_settings(wide) if one.level is Level.PROBLEM]
    assert any("at dawn" in sentence for sentence in found)
    assert any("rank 64" in sentence for sentence in found)


@pytest.mark.parametrize(
    ("base", "level"), [("embedded", Level.OK), ("./nowhere", Level.PROBLEM), ("Some/Model-1B", Level.WARNING)]
)
def test_the_base_models_files_are_looked_for(
    installed: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, base: str, level: Level
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    found = machine.check_base(installed.model_copy(update={"model": ModelSettings(base=base)}))
    assert levels(found) == [level]


def test_memory_is_reckoned_from_the_models_name() -> None:
    assert parameters("Qwen/Qwen2.5-7B-Instruct") == 7e9
    assert parameters("Qwen/Qwen3-0.6B") == 0.6e9
    assert parameters("some/model") is None
    serving, training = needed_gib(7e9, "nf4")
    assert 6 < serving < 7.5 < training < 8
    assert needed_gib(7e9, "none")[0] > 14


@pytest.mark.parametrize(("gib", "level"), [(4, Level.PROBLEM), (8, Level.WARNING), (24, Level.OK)])
def test_a_card_is_measured_against_the_base(
    installed: Settings, monkeypatch: pytest.MonkeyPatch, gib: int, level: Level
) -> None:
    monkeypatch.setattr(machine, "_cards", lambda: [("a card", gib * 2**30)])
    monkeypatch.setattr(machine, "_torch_sees_it", lambda name: iter(()))
    big = installed.model_copy(update={"model": ModelSettings(base="Qwen/Qwen2.5-7B-Instruct")})
    assert levels(machine.check_gpu(big)) == [level]


def test_cuda_without_a_card_is_a_problem(installed: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_cards", list)
    cuda = installed.model_copy(update={"model": ModelSettings(device="cuda")})
    assert levels(machine.check_gpu(cuda)) == [Level.PROBLEM]


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, {"name": "nocap", "flags": MESSAGE_CONTENT}, [Level.OK, Level.OK, Level.OK]),
        (200, {"name": "nocap", "flags": 0}, [Level.OK, Level.WARNING, Level.OK]),
        (401, {}, [Level.PROBLEM]),
    ],
)
def test_discords_intents_are_read_from_the_application(
    settings: Callable[..., Settings], status: int, body: dict[str, Any], expected: list[Level]
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["Authorization"] == f"Bot {TOKEN}"
        assert request.url.path == "/api/v10/applications/@me"
        return httpx.Response(status, json=body)

    with client(answer) as http:
        assert levels(check_discord(settings(discord=DiscordSettings(token=TOKEN)), http)) == expected


@pytest.mark.parametrize(
    ("status", "sees_all", "joins", "expected"),
    [
        (200, True, True, [Level.OK, Level.OK]),
        (200, False, True, [Level.OK, Level.WARNING]),
        (200, True, False, [Level.OK, Level.WARNING, Level.OK]),
        (401, True, True, [Level.PROBLEM]),
        (502, True, True, [Level.PROBLEM]),
    ],
)
def test_telegrams_privacy_mode_is_read_from_getme(
    settings: Callable[..., Settings], status: int, sees_all: bool, joins: bool, expected: list[Level]
) -> None:
    bot = {"username": "nocap_bot", "can_read_all_group_messages": sees_all, "can_join_groups": joins}

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == f"/bot{TOKEN}/getMe"
        return httpx.Response(status, json={"ok": True, "result": bot})

    with client(answer) as http:
        assert levels(check_telegram(settings(telegram=TelegramSettings(token=TOKEN)), http)) == expected


@pytest.mark.parametrize(("away", "expected"), [(1, Level.OK), (-90, Level.PROBLEM), (3600, Level.PROBLEM)])
@pytest.mark.parametrize("platform", ["discord", "telegram"])
def test_the_clock_is_held_against_the_platforms(
    settings: Callable[..., Settings], platform: str, away: float, expected: Level
) -> None:
    body = {"flags": 0, "result": {"username": "nocap_bot"}}
    date = format_datetime(utc_now() + timedelta(seconds=away), usegmt=True)
    chosen = settings(discord=DiscordSettings(token=TOKEN), telegram=TelegramSettings(token=TOKEN))
    check = {"discord": check_discord, "telegram": check_telegram}[platform]
    with client(lambda _: httpx.Response(200, json=body, headers={"Date": date})) as http:
        (finding,) = [one for one in check(chosen, http) if one.subject == "clock"]
    assert (finding.level, bool(finding.remedy)) == (expected, expected is Level.PROBLEM)


def test_no_token_is_told_when_a_platform_is_away(installed: Settings) -> None:
    tokens = {"discord": DiscordSettings(token=TOKEN), "telegram": TelegramSettings(token=TOKEN)}
    findings = examine(installed.model_copy(update=tokens), transport=httpx.MockTransport(refused))
    assert len([one for one in findings if one.subject in tokens and one.level is Level.PROBLEM]) == 2
    assert TOKEN not in str(findings)


def vllm(*models: str, root: str = "Qwen/Qwen2.5-7B-Instruct", loads: int = 400, max_loras: int = 4) -> Answer:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            cards = [{"id": name, "root": root if name == "base" else f"/adapters/{name}"} for name in models]
            return httpx.Response(200, json={"data": cards})
        if request.url.path == "/metrics":
            return httpx.Response(200, text=f'vllm:lora_requests_info{{max_lora="{max_loras}"}} 1.0\n')
        detail = {"detail": "Not Found"} if loads == 404 else {"message": f"{backend.PROBE}: no such folder"}
        return httpx.Response(loads, json=detail)

    return answer


@pytest.mark.parametrize(
    ("answer", "deployed", "sentence"),
    [
        (vllm("base"), [], None),
        (vllm("other"), [], "serves no model named `base`"),
        (vllm("base", root="Qwen/Qwen3-8B"), [], "serves the base Qwen/Qwen3-8B"),
        (vllm("base", loads=404), [], "does not let adapters be loaded"),
        (vllm("base", loads=401), [], "admin token"),
        (vllm("base", "genz-v1", "genz-v2", max_loras=1), ["genz-v1", "genz-v2"], "holds 1 adapters at once"),
        (lambda request: httpx.Response(401), [], "refuses our token"),
        (lambda request: httpx.Response(200, text="<html>"), [], "does not speak"),
        (refused, [], "Nothing answers"),
    ],
)
def test_the_inference_backend_is_asked_what_it_can_do(
    installed: Settings,
    monkeypatch: pytest.MonkeyPatch,
    answer: Answer,
    deployed: list[str],
    sentence: str | None,
) -> None:
    monkeypatch.setattr(backend, "_deployed", lambda _: deployed)
    update = {
        "inference": InferenceSettings(backend="vllm", urls=(URL,)),
        "model": ModelSettings(base="Qwen/Qwen2.5-7B-Instruct"),
    }
    with client(answer) as http:
        found = list(backend.check_backend(installed.model_copy(update=update), http))
    problems = [one.sentence for one in found if one.level is Level.PROBLEM]
    assert [sentence in one for one in problems] == ([True] if sentence else []), found  # type: ignore[operator]
