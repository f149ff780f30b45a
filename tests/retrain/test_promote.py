"""Promotion and rollback against replicas that speak the wire protocol."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from datetime import UTC, datetime

import pytest

from inference.adapter_files import write_manifest
from nocap.domain import BASE, AdapterName, AdapterStatus, ChatMessage, VoiceName
from nocap.errors import AdapterError, BackendUnavailable, InputError, NotPermitted, RunError, WrongModelAnswered
from nocap.settings import InferenceSettings
from retrain.promote import Golden, LiveBackend, live_backend, promote, rollback, start_canary, write_golden
from storage import registry
from storage.audit import events
from storage.tables import Adapter
from tests.fakes.backend import FakeBackend, says
from tests.fakes.tgi import FakeTgi

NOW = datetime(2026, 11, 22, tzinfo=UTC)
GENZ = VoiceName("genz")
V1, V2, V3 = (AdapterName(f"genz-v{number}") for number in (1, 2, 3))
GOLDEN = [Golden(f"prompt {number}", f"answer {number}", f"base {number}") for number in range(5)]


class _Replicas:
    """Two replicas in memory; `answer` says what they reply."""

    def __init__(self, answer=lambda url, name, prompt: f"answer {prompt[-1]}") -> None:
        self.held: list[AdapterName] = []
        self.forgotten: list[AdapterName] = []
        self._answer = answer

    def load_adapter(self, name: AdapterName, forget: Collection[AdapterName] = ()) -> None:
        self.forgotten += sorted(set(self.held) & set(forget))
        self.held = [one for one in self.held if one not in forget] + [name]

    def answers(self, name: AdapterName, prompts: Sequence[Sequence[ChatMessage]]) -> dict[str, list[str]]:
        return {url: [self._answer(url, name, prompt[-1].content) for prompt in prompts] for url in ("one", "two")}


@pytest.fixture
def world(database, settings):
    """The database and settings of a voice with three adapters on disk, each recorded by its run."""
    made = settings()
    with database.write() as session:
        registry.ensure_voice(session, GENZ, "You are a bot.", [], NOW)
        for name in (V1, V2, V3):
            registry.register_adapter(session, _adapter(made, name))
    return database, made


def _adapter(settings, name: AdapterName) -> Adapter:
    folder = settings.adapters_dir / name
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(name.encode())
    digest = write_manifest(folder, name=name, base_digest="b" * 64, rank=8)
    run = settings.runs_dir / f"run-{name}"
    run.mkdir(parents=True)
    write_golden(run, GOLDEN)
    return Adapter(
        name=name, voice=GENZ, run_id=run.name, base="embedded", base_digest="b" * 64, digest=digest,
        status=AdapterStatus.PASSED, created_at=NOW,
    )  # fmt: skip


def _promote(world, backend, name=V1):
    return promote(world[0], backend, world[1], name, actor="test", reason="gates passed", at=NOW)


def _rollback(world, backend, to=None):
    return rollback(world[0], backend, world[1], GENZ, to, actor="test", reason="worse", at=NOW)


def _live(world):
    with world[0].read() as session:
        row = registry.deployment(session, GENZ)
        return row.current, row.previous


def test_promotion_loads_tries_and_then_moves_the_pointer(world):
    backend = _Replicas()
    move = _promote(world, backend)
    assert (move.before, move.after) == (BASE, V1)
    assert backend.held == [V1]
    assert _live(world) == (V1, BASE)
    with world[0].read() as session:
        (event,) = events(session, 10)
    assert (event.actor, event.detail["reason"]) == ("test", "gates passed")


def test_the_previous_adapter_stays_loaded_and_older_ones_make_room(world):
    backend = _Replicas()
    for name in (V1, V2, V3):
        _promote(world, backend, name)
    assert (backend.held, backend.forgotten) == ([V1, V2, V3], [])
    assert _rollback(world, backend).after == V2
    assert (sorted(set(backend.held)), backend.forgotten) == ([V2, V3], [V1])


@pytest.mark.parametrize(
    "answer",
    [
        lambda url, name, prompt: f"base {prompt[-1]}",
        lambda url, name, prompt: f"answer {prompt[-1]}" if url == "one" else "something else",
        lambda url, name, prompt: f"answer {prompt[-1]}" if prompt[-1] in "01" else "",
    ],
    ids=["the bare base answers", "one replica serves another adapter", "most answers differ"],
)
def test_a_backend_that_does_not_answer_as_the_trainer_did_promotes_nothing(world, answer):
    with pytest.raises(WrongModelAnswered, match=r"gives only [02] of the 5 answers that genz-v1"):
        _promote(world, _Replicas(answer))
    assert _live(world) == (BASE, None)


def test_rounding_in_one_answer_does_not_stop_a_promotion(world):
    _promote(world, _Replicas(lambda url, name, prompt: "off" if prompt[-1] == "0" else f"answer {prompt[-1]}"))
    assert _live(world) == (V1, BASE)


def test_without_a_server_the_files_are_verified_and_the_pointer_moves(world):
    assert _promote(world, None).after == V1


def test_one_flipped_byte_stops_promotion_and_rollback(world):
    weights = world[1].adapters_dir / V1 / "adapter_model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(b"Genz-v1")
    for move in (lambda: _promote(world, None), lambda: _rollback(world, None, V1)):
        with pytest.raises(AdapterError, match="corrupt"):
            move()
    assert _live(world) == (BASE, None)


def test_a_folder_that_holds_another_adapter_than_the_registered_is_refused(world):
    folder = world[1].adapters_dir / V1
    (folder / "manifest.json").unlink()
    (folder / "more.txt").write_text("another")
    write_manifest(folder, name=V1, base_digest="b" * 64, rank=8)
    with pytest.raises(AdapterError, match="holds another adapter than the one registered"):
        _promote(world, None)


def test_an_adapter_that_changes_nothing_is_not_promoted(world):
    write_golden(world[1].runs_dir / f"run-{V1}", [])
    with pytest.raises(NotPermitted, match="as the base does"):
        _promote(world, _Replicas())


def test_golden_answers_that_the_base_gives_too_prove_nothing(world):
    write_golden(world[1].runs_dir / f"run-{V1}", [Golden("prompt 1", "answer 1", "answer 1")])
    with pytest.raises(NotPermitted, match="as the base does"):
        _promote(world, _Replicas())


def _canary(world, backend, name=V2, share=0.2):
    start_canary(world[0], backend, world[1], name, share, actor="test", at=NOW)


def test_a_canary_is_loaded_and_tried_like_any_other_and_ends_with_the_next_promotion(world):
    backend = _Replicas()
    _promote(world, backend, V1)
    _canary(world, backend)
    with world[0].read() as session:
        row = registry.deployment(session, GENZ)
        assert (row.current, row.canary, row.canary_share) == (V1, V2, 0.2)
        assert events(session, 10)[0].action == "set_canary"
    assert backend.held == [V1, V2]
    _promote(world, backend, V3)
    with world[0].read() as session:
        row = registry.deployment(session, GENZ)
        assert (row.current, row.canary, row.canary_share) == (V3, None, 0.0)
    assert backend.forgotten == []


def test_a_canary_that_does_not_answer_as_its_trainer_did_is_not_started(world):
    with pytest.raises(WrongModelAnswered):
        _canary(world, _Replicas(lambda url, name, prompt: "base"))
    with world[0].read() as session:
        assert registry.deployment(session, GENZ).canary is None


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 1.5])
def test_a_canarys_share_lies_between_nobody_and_everybody(world, share):
    with pytest.raises(InputError, match="share"):
        _canary(world, _Replicas(), share=share)


def test_the_live_adapter_is_no_canary(world):
    _promote(world, _Replicas(), V1)
    with pytest.raises(NotPermitted, match="live adapter"):
        _canary(world, _Replicas(), V1)


def test_tgi_must_have_been_started_with_the_adapter(world):
    made = world[1].model_copy(update={"inference": InferenceSettings(backend="tgi", urls=("http://127.0.0.1:1",))})
    for fake, holds in (
        (FakeTgi(), False),
        (FakeTgi(genz_v1=lambda said: [f"answer {said[-1]['content'][-1]}"]), True),
    ):
        backend = LiveBackend(made, user_token=None, admin_token=None, transport=fake.transport())
        if holds:
            assert _promote(world, backend).after == V1
        else:
            with pytest.raises(AdapterError, match="restart it with `genz-v1`"):
                _promote(world, backend)
            assert _live(world) == (BASE, None)


def test_a_run_without_recorded_answers_cannot_be_tried(world):
    (world[1].runs_dir / f"run-{V1}" / "golden.json").unlink()
    with pytest.raises(RunError, match=r"golden\.json is missing"):
        _promote(world, _Replicas())


def test_rollback_goes_to_the_previous_adapter_and_forward_again(world):
    backend = _Replicas()
    _promote(world, backend, V1)
    _promote(world, backend, V2)
    move = _rollback(world, backend)
    assert (move.before, move.after) == (V2, V1)
    assert _rollback(world, backend).after == V2
    assert _rollback(world, backend, BASE).after == BASE
    assert backend.held.count(V1) >= 1


def test_rollback_without_an_earlier_adapter_says_so(world):
    with pytest.raises(NotPermitted, match="no earlier adapter"):
        _rollback(world, None)


def test_rollback_to_an_unknown_or_retired_adapter_is_refused(world):
    with pytest.raises(AdapterError, match="genz-v9"):
        _rollback(world, None, AdapterName("genz-v9"))
    with world[0].write() as session:
        registry.set_adapter_status(session, V1, AdapterStatus.RETIRED)
    with pytest.raises(NotPermitted, match="retired"):
        _rollback(world, None, V1)


def test_over_the_wire_every_replica_loads_answers_greedily_and_forgets(settings):
    fake = FakeBackend()
    fake.loadable = {V1: says("hm"), V2: says("no ", "cap")}
    made = settings(inference=InferenceSettings(urls=("http://127.0.0.1:1", "http://127.0.0.1:2")))
    backend = LiveBackend(made, user_token="u", admin_token="a", transport=fake.transport())
    assert backend.unreachable() == []
    backend.load_adapter(V1)
    backend.load_adapter(V2, forget=[V1, V3])
    assert V2 in fake.models and V1 not in fake.models
    answers = backend.answers(V2, [[ChatMessage("user", "hi")]] * 2)
    assert answers == {"http://127.0.0.1:1": ["no cap"] * 2, "http://127.0.0.1:2": ["no cap"] * 2}
    assert {chat["temperature"] for chat in fake.chats} == {0}


def test_no_embedded_server_is_no_backend_but_a_missing_vllm_is_an_error(settings):
    nowhere = ("http://127.0.0.1:9",)
    tokens = {"user_token": None, "admin_token": None}
    assert live_backend(settings(inference=InferenceSettings(urls=nowhere)), **tokens) is None
    with pytest.raises(BackendUnavailable, match=r"127\.0\.0\.1:9 cannot be reached"):
        live_backend(settings(inference=InferenceSettings(urls=nowhere, backend="vllm")), **tokens)


def test_golden_answers_survive_the_file(tmp_path):
    write_golden(tmp_path, GOLDEN)
    assert len(json.loads((tmp_path / "golden.json").read_text())) == 5
