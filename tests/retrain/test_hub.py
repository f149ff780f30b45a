"""Adapters leave for a hub repository and come back by huggingface_hub itself, against a hub on a local socket."""

from __future__ import annotations

import pytest
from huggingface_hub import constants

from inference.adapter_files import verify_adapter, write_manifest
from inference.base_model import base_digest
from nocap.actions import Actions
from nocap.domain import AdapterName, AdapterStatus
from nocap.errors import AdapterError, InputError, NotPermitted
from storage import registry
from storage.crypto import Keyring
from storage.database import Database
from storage.tables import Adapter, AuditEvent
from tests.fakes.hub import TOKEN, running_hub
from tests.retrain.job_world import AS_OF, GENZ, build_settings, new_run, settle

GENZ_V1, REPOSITORY = AdapterName("genz-v1"), "club/genz"


@pytest.fixture
def hub(monkeypatch):
    with running_hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the hub's own storage has no stand-in here
        yield running


@pytest.fixture
def actions(tmp_path, sqlite_database, tiny_base):
    """An installation with genz-v1, whose run has left a card."""
    settle(sqlite_database)
    settings = build_settings(tmp_path / "data", tiny_base)
    run_id, folder = new_run(sqlite_database), settings.adapters_dir / GENZ_V1
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(b"weights" * 1000)
    digest = write_manifest(folder, name=GENZ_V1, base_digest=base_digest(str(tiny_base)), rank=4)
    (settings.runs_dir / run_id).mkdir(parents=True)
    (settings.runs_dir / run_id / "README.md").write_text("---\nlicense: apache-2.0\n---\nIt is a bot.\n")
    row = Adapter(
        name=GENZ_V1, voice=GENZ, run_id=run_id, base=str(tiny_base), base_digest=base_digest(str(tiny_base)),
        digest=digest, status=AdapterStatus.PASSED, created_at=AS_OF,
    )  # fmt: skip
    with sqlite_database.write() as session:
        registry.register_adapter(session, row)
    return Actions(sqlite_database, settings, actor="tester", clock=lambda: AS_OF)


@pytest.fixture
def elsewhere(tmp_path, tiny_base):
    """Another machine of the operator, on which nothing was trained."""
    keyring = Keyring.create(tmp_path / "elsewhere.key")
    database = Database.open(f"sqlite:///{tmp_path / 'elsewhere.db'}", keyring, create=True)
    settle(database)
    settings = build_settings(tmp_path / "elsewhere", tiny_base)
    yield Actions(database, settings, actor="tester", clock=lambda: AS_OF)
    database.close()


def test_a_pushed_adapter_is_pulled_whole_and_is_a_candidate_that_no_gate_passed(
    actions, elsewhere, sqlite_database, hub
):
    assert actions.push_adapter(GENZ_V1, REPOSITORY) == f"{hub.url}/{REPOSITORY}/commit/{hub.commit}"
    assert hub.private == {REPOSITORY: True}
    names = {"adapter_config.json", "adapter_model.safetensors", "manifest.json", "README.md"}
    assert set(hub.files[REPOSITORY]) - {".gitattributes"} == names
    with sqlite_database.read() as session:
        digest = registry.get_adapter(session, GENZ_V1).digest
    assert actions.pull_adapter(REPOSITORY, None).digest == digest, "what is here already stays as it is"
    assert elsewhere.pull_adapter(REPOSITORY, None).digest == digest
    folder = elsewhere._settings.adapters_dir / GENZ_V1
    assert verify_adapter(folder, base_digest=None).digest == digest and not (folder / "README.md").exists()
    row = elsewhere.adapter(GENZ_V1)
    assert (row.status, row.run_id, row.digest) == (AdapterStatus.CANDIDATE, None, digest)
    assert (elsewhere.status(GENZ).live, _audited(sqlite_database)) == ("base", ["push_adapter", "pull_adapter"])
    with pytest.raises(NotPermitted, match="gates did not pass"):
        elsewhere.promote(GENZ_V1, "looks fine", None)


def _audited(database) -> list[str]:
    with database.read() as session:
        return [event.action for event in session.query(AuditEvent).all()]


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("adapter_model.safetensors", b"poisoned", "is corrupt"),
        ("adapter_model.bin", b"pickle", None),
        ("manifest.json", b"{}", "malformed"),
    ],
)
def test_what_was_changed_on_the_hub_does_not_come_in(actions, elsewhere, hub, file, content, told):
    actions.push_adapter(GENZ_V1, REPOSITORY)
    hub.files[REPOSITORY][file] = content
    folder = elsewhere._settings.adapters_dir / GENZ_V1
    if told is None:  # a file that the manifest does not list is left where it is
        elsewhere.pull_adapter(REPOSITORY, None)
        assert folder.is_dir() and not (folder / file).exists()
        return
    with pytest.raises(AdapterError, match=told):
        elsewhere.pull_adapter(REPOSITORY, None)
    assert not folder.exists()
    with pytest.raises(AdapterError, match="no adapter genz-v1"):
        elsewhere.adapter(GENZ_V1)


def test_a_name_that_stands_for_another_adapter_another_base_or_an_unknown_voice_stays_out(
    actions, elsewhere, hub, tmp_path
):
    actions.push_adapter(GENZ_V1, REPOSITORY)
    other = Adapter(
        name=GENZ_V1, voice=GENZ, base="b", base_digest="b", digest="d", status=AdapterStatus.PASSED, created_at=AS_OF
    )
    with elsewhere._database.write() as session:
        registry.register_adapter(session, other)
    with pytest.raises(AdapterError, match="another adapter's here"):
        elsewhere.pull_adapter(REPOSITORY, None)
    for name, base, told in (("genz-v9", "f" * 64, "another base"), ("nobody-v1", None, "which is not here")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "adapter_config.json").write_text("{}")
        (folder / "adapter_model.safetensors").write_bytes(b"w")
        write_manifest(folder, name=name, base_digest=base or base_digest(actions._settings.base_path), rank=4)
        hub.files[f"club/{name}"] = {file.name: file.read_bytes() for file in folder.iterdir()}
        with pytest.raises((AdapterError, InputError), match=told):
            actions.pull_adapter(f"club/{name}", None)


def test_an_erased_members_adapter_does_not_leave_and_a_refusing_hub_is_told_in_a_sentence(
    actions, sqlite_database, hub, monkeypatch
):
    with pytest.raises(InputError, match="The hub did not serve club/nothing"):
        actions.pull_adapter("club/nothing", None)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(InputError, match="check the name, HF_TOKEN"):
        actions.push_adapter(GENZ_V1, REPOSITORY)
    with sqlite_database.write() as session:
        registry.request_retirement(session, [GENZ_V1], AS_OF)
    with pytest.raises(NotPermitted, match="does not leave"):
        actions.push_adapter(GENZ_V1, REPOSITORY)
