from __future__ import annotations

import json

import pytest

from inference.adapter_files import read_manifest, write_manifest
from nocap.actions import Actions
from nocap.domain import AdapterName, AdapterStatus
from nocap.errors import AdapterError, InputError, NotPermitted
from storage import registry
from storage.tables import Adapter, AuditEvent
from tests.inference.server import tiny
from tests.retrain.job_world import AS_OF, GENZ, JUDGES, SYSTEM_PROMPT, build_settings, chat, secret_of, settle


@pytest.fixture
def actions(tmp_path, database):
    settle(database)
    chat(database)
    return Actions(database, build_settings(tmp_path, tmp_path), actor="tester", clock=lambda: AS_OF)


def _audited(database) -> list[str]:
    with database.read() as session:
        return [row.action for row in session.query(AuditEvent).all()]


@pytest.mark.parametrize("form", ["axolotl", "llama-factory"])
def test_the_data_set_holds_what_a_run_would_train_on_and_nothing_else(actions, database, tmp_path, form):
    plan, output = actions.preview(GENZ), tmp_path / "set.jsonl"
    assert actions.export_dataset(GENZ, output, form) == plan.train + plan.validation > 0
    lines = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == plan.train + plan.validation and output.stat().st_mode & 0o777 == 0o600
    if form == "axolotl":
        assert [turn["role"] for turn in lines[0]["messages"]][:2] == ["system", "user"]
        replies = [line["messages"][-1]["content"] for line in lines]
    else:
        assert lines[0]["system"] == SYSTEM_PROMPT and lines[0]["conversations"][0]["from"] == "human"
        replies = [line["conversations"][-1]["value"] for line in lines]
    assert not [reply for reply in replies for number in range(60, 120) if reply.startswith(f"{secret_of(number)} ")]
    assert JUDGES and _audited(database)[-1] == "export_dataset"
    with pytest.raises(InputError, match="there already"):
        actions.export_dataset(GENZ, output, form)


def _register(database, folder, digest, base_digest="b" * 64):
    row = Adapter(
        name=folder.name,
        voice=GENZ,
        base="embedded",
        base_digest=base_digest,
        digest=digest,
        status=AdapterStatus.PASSED,
        created_at=AS_OF,
    )
    with database.write() as session:
        registry.register_adapter(session, row)


def test_an_adapter_is_exported_as_it_is_and_a_corrupt_or_unknown_one_is_not(actions, database, tmp_path):
    folder = tmp_path / "adapters" / "genz-v1"
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    _register(database, folder, write_manifest(folder, name="genz-v1", base_digest="b" * 64, rank=4))
    exported = actions.export_adapter(AdapterName("genz-v1"), tmp_path / "out" / "genz-v1", "peft")
    assert (exported / "adapter_model.safetensors").read_bytes() == b"weights"
    with pytest.raises(InputError, match="there already"):
        actions.export_adapter(AdapterName("genz-v1"), exported, "peft")
    with pytest.raises(AdapterError, match="no adapter genz-v9"):
        actions.export_adapter(AdapterName("genz-v9"), tmp_path / "nine", "peft")
    (folder / "adapter_model.safetensors").chmod(0o600)
    (folder / "adapter_model.safetensors").write_bytes(b"changed")
    with pytest.raises(AdapterError, match="corrupt"):
        actions.export_adapter(AdapterName("genz-v1"), tmp_path / "again", "peft")


def test_a_merged_export_says_what_the_adapter_says_and_a_gguf_holds_its_layers(sqlite_database, tiny_base, tmp_path):
    settings = build_settings(tmp_path, tiny_base)
    settle(sqlite_database)
    folder = tiny.write_adapter(tiny_base, settings.adapters_dir / "genz-v1", seed=1)
    manifest = read_manifest(folder)
    _register(sqlite_database, folder, manifest.digest, manifest.base_digest)
    actions = Actions(sqlite_database, settings, actor="tester", clock=lambda: AS_OF)
    merged = actions.export_adapter(AdapterName("genz-v1"), tmp_path / "merged", "merged")
    prompts = tiny.random_prompts(4)
    said = tiny.reference(tiny_base, prompts, 12, folder)
    assert tiny.reference(merged, prompts, 12) == said != tiny.reference(tiny_base, prompts, 12)
    gguf = pytest.importorskip("gguf")
    lora = actions.export_adapter(AdapterName("genz-v1"), tmp_path / "out" / "genz-v1.gguf", "gguf-lora")
    assert len(gguf.GGUFReader(lora).tensors) == 2 * 2 * 7  # A and B, blocks, linear layers
    assert _audited(sqlite_database) == ["export_adapter"] * 2
    elsewhere = Actions(sqlite_database, build_settings(tmp_path, tiny.write_model(tmp_path / "other")), actor="tester")
    for form in ("merged", "gguf-lora"):
        with pytest.raises(AdapterError, match="belongs to another base model"):
            elsewhere.export_adapter(AdapterName("genz-v1"), tmp_path / f"elsewhere-{form}", form)
    with sqlite_database.write() as session:
        registry.request_retirement(session, [AdapterName("genz-v1")], AS_OF)
    with pytest.raises(NotPermitted, match="does not leave"):
        actions.export_adapter(AdapterName("genz-v1"), tmp_path / "late", "peft")
