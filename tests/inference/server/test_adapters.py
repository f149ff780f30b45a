"""Adapters come and go under load; each answer is its adapter's alone, and a bad adapter changes nothing."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from inference.adapter_files import MANIFEST, WEIGHTS, write_manifest
from inference.base_model import BaseModel
from inference.server.engine import Engine
from inference.server.registry import AdapterConflict
from nocap.errors import AdapterError, UnknownAdapter
from tests.inference.server import tiny

PROMPTS = tiny.random_prompts(6, seed=21)


def slots_of(engine: Engine) -> list[torch.Tensor]:
    layers = engine._runner.bank._layers.values()
    return [store.clone() for layer in layers for store in (layer.down_KI, layer.up_KO)]


def rewritten(source: Path, folder: Path, base: BaseModel, **config: object) -> Path:
    """A copy of an adapter with another config and an honest manifest."""
    shutil.copytree(source, folder)
    (folder / MANIFEST).unlink()
    values = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").chmod(0o644)
    (folder / "adapter_config.json").write_text(json.dumps(values | config))
    write_manifest(folder, name=folder.name, base_digest=base.digest, rank=4)
    return folder


def with_weights(source: Path, folder: Path, base: BaseModel, change: object) -> Path:
    shutil.copytree(source, folder)
    (folder / MANIFEST).unlink()
    (folder / WEIGHTS).chmod(0o644)
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS)  # type: ignore[operator]
    write_manifest(folder, name=folder.name, base_digest=base.digest, rank=4)
    return folder


def test_answers_while_adapters_are_swapped_are_their_adapters_alone(
    base: BaseModel, base_folder: Path, adapters_dir: Path
) -> None:
    names = ["base", "genz-v1", "genz-v2", "genz-v3"]
    expected = {
        name: tiny.reference(base_folder, PROMPTS, 10, None if name == "base" else adapters_dir / name)
        for name in names
    }
    wrong: list[str] = []
    answered = dict.fromkeys(names, 0)
    over = threading.Event()

    def ask(engine: Engine, place: int) -> None:
        turn = place
        while not over.is_set():
            turn += 1
            name, which = names[turn % 4], turn % len(PROMPTS)
            try:
                answer = engine.submit(tiny.greedy(PROMPTS[which], name, 10), stream=False).result(60)
            except UnknownAdapter:
                continue
            answered[name] += 1
            if list(answer.token_ids) != expected[name][which]:
                wrong.append(name)

    with Engine(base, max_batch=4, max_queue=64, max_adapters=2, max_rank=8) as engine:
        askers = [threading.Thread(target=ask, args=(engine, place)) for place in range(5)]
        for asker in askers:
            asker.start()
        for swap in range(9):
            name = names[1 + swap % 3]
            engine.load_adapter(name, adapters_dir / name)
            if swap:
                engine.unload_adapter(names[1 + (swap - 1) % 3])
        over.set()
        for asker in askers:
            asker.join()
    assert wrong == []
    assert all(answered.values())


def test_unloading_takes_the_name_away_at_once_and_waits_for_running_requests(
    engine: Engine, base_folder: Path, adapters_dir: Path
) -> None:
    engine.load_adapter("genz-v1", adapters_dir / "genz-v1")
    running = engine.submit(tiny.greedy(PROMPTS[0], "genz-v1", 100))
    pieces = iter(running)
    next(pieces)
    unloading = threading.Thread(target=engine.unload_adapter, args=("genz-v1",))
    unloading.start()
    while engine.adapters():
        time.sleep(0.001)
    with pytest.raises(UnknownAdapter):
        engine.submit(tiny.greedy(PROMPTS[0], "genz-v1"))
    with pytest.raises(AdapterConflict, match="is being unloaded"):
        engine.load_adapter("genz-v1", adapters_dir / "genz-v1")
    answer = running.result(60)
    unloading.join()
    assert [list(answer.token_ids)] == tiny.reference(base_folder, PROMPTS[:1], 100, adapters_dir / "genz-v1")
    assert not any(store.any() for store in slots_of(engine))


def test_loading_the_same_adapter_again_changes_nothing(engine: Engine, adapters_dir: Path) -> None:
    first = engine.load_adapter("genz-v1", adapters_dir / "genz-v1")
    assert engine.load_adapter("genz-v1", adapters_dir / "genz-v1") == first
    assert engine.adapters() == [first]


def test_a_name_never_stands_for_two_adapters_even_after_unloading(
    engine: Engine, base_folder: Path, adapters_dir: Path, tmp_path: Path
) -> None:
    engine.load_adapter("genz-v1", adapters_dir / "genz-v1")
    other = tiny.write_adapter(base_folder, tmp_path / "genz-v1", seed=77)
    before = slots_of(engine)
    with pytest.raises(AdapterConflict, match="stands for another adapter"):
        engine.load_adapter("genz-v1", other)
    assert all(torch.equal(one, two) for one, two in zip(before, slots_of(engine), strict=True))
    engine.unload_adapter("genz-v1")
    with pytest.raises(AdapterConflict, match="stands for another adapter"):
        engine.load_adapter("genz-v1", other)


def test_no_slot_left_is_a_conflict_that_names_who_holds_them(engine: Engine, adapters_dir: Path) -> None:
    engine.load_adapter("genz-v1", adapters_dir / "genz-v1")
    engine.load_adapter("genz-v2", adapters_dir / "genz-v2")
    with pytest.raises(AdapterConflict, match="genz-v1, genz-v2"):
        engine.load_adapter("genz-v3", adapters_dir / "genz-v3")


def test_one_flipped_byte_is_refused_and_nothing_changes(engine: Engine, adapters_dir: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(adapters_dir / "genz-v1", tmp_path / "genz-v1")
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / WEIGHTS).chmod(0o644)
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(AdapterError, match="corrupt"):
        engine.load_adapter("genz-v1", folder)
    assert engine.adapters() == []
    assert not any(store.any() for store in slots_of(engine))
    assert engine.load_adapter("genz-v1", adapters_dir / "genz-v1").slot == 0


def test_an_adapter_of_another_base_is_refused(engine: Engine, tmp_path: Path) -> None:
    other_base = tiny.write_model(tmp_path / "other", seed=9)
    adapter = tiny.write_adapter(other_base, tmp_path / "genz-v8", seed=1)
    with pytest.raises(AdapterError, match="belongs to another base"):
        engine.load_adapter("genz-v8", adapter)
    assert engine.adapters() == []


def test_a_folder_with_another_name_inside_is_refused(engine: Engine, adapters_dir: Path) -> None:
    with pytest.raises(AdapterError, match="holds the adapter `genz-v1`"):
        engine.load_adapter("genz-v7", adapters_dir / "genz-v1")


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"alpha_pattern": {"q_proj": 1}}, "alpha_pattern"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"peft_type": "LOHA"}, "peft_type"),
        ({"r": 64}, "rank 64"),
        ({"r": 2}, "does not fit"),
    ],
)
def test_what_the_slots_cannot_serve_exactly_is_refused(
    config: dict[str, object], reason: str, engine: Engine, base: BaseModel, adapters_dir: Path, tmp_path: Path
) -> None:
    folder = rewritten(adapters_dir / "genz-v1", tmp_path / "genz-v9", base, **config)
    with pytest.raises(AdapterError, match=reason):
        engine.load_adapter("genz-v9", folder)
    assert engine.adapters() == []


def test_rank_stabilised_scaling_equals_peft(
    engine: Engine, base: BaseModel, base_folder: Path, adapters_dir: Path, tmp_path: Path
) -> None:
    folder = rewritten(adapters_dir / "genz-v1", tmp_path / "genz-v9", base, use_rslora=True)
    engine.load_adapter("genz-v9", folder)
    answers = engine.generate_all([tiny.greedy(prompt, "genz-v9") for prompt in PROMPTS])
    assert [list(answer.token_ids) for answer in answers] == tiny.reference(base_folder, PROMPTS, 12, folder)


def first_key(tensors: dict[str, torch.Tensor], half: str) -> str:
    return next(key for key in tensors if f"lora_{half}" in key)


def test_weights_that_are_missing_foreign_or_not_finite_are_refused(
    engine: Engine, base: BaseModel, adapters_dir: Path, tmp_path: Path
) -> None:
    source = adapters_dir / "genz-v1"

    def lacking(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        gone = first_key(tensors, "A").partition(".lora_")[0]
        return {key: tensor for key, tensor in tensors.items() if not key.startswith(gone)}

    def half(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {key: tensor for key, tensor in tensors.items() if key != first_key(tensors, "B")}

    def foreign(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return tensors | {"base_model.model.lm_head.lora_A.weight": torch.zeros(4, 64)}

    def infinite(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        tensors[first_key(tensors, "B")][0, 0] = float("inf")
        return tensors

    cases = {lacking: "lacks the weights", half: "does not fit", foreign: "lm_head", infinite: "not finite"}
    for number, (change, reason) in enumerate(cases.items()):
        with pytest.raises(AdapterError, match=reason):
            engine.load_adapter(f"bad-{number}", with_weights(source, tmp_path / f"bad-{number}", base, change))
    assert engine.adapters() == []
    assert not any(store.any() for store in slots_of(engine))


def test_unloading_what_is_not_loaded_is_unknown(engine: Engine) -> None:
    with pytest.raises(UnknownAdapter, match="nothing to unload"):
        engine.unload_adapter("genz-v1")
    with pytest.raises(UnknownAdapter):
        engine.unload_adapter("base")
