from __future__ import annotations

from pathlib import Path

import pytest

from inference.adapter_files import SIGNATURE, verify_adapter, write_manifest
from inference.server.registry import AdapterRegistry
from inference.signing import create_signing_key, require_signature, sign_adapter
from nocap.errors import AdapterError, ConfigurationError


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "genz-v1"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    write_manifest(folder, name="genz-v1", base_digest="b", rank=8)
    return folder


def test_a_signed_adapter_is_accepted_and_still_verifies(adapter: Path, tmp_path: Path) -> None:
    signer = create_signing_key(tmp_path / "key")
    sign_adapter(adapter, tmp_path / "key")
    sign_adapter(adapter, tmp_path / "key")
    require_signature(adapter, signer)
    assert verify_adapter(adapter, base_digest="b").name == "genz-v1"


@pytest.mark.parametrize("how", ["unsigned", "another key", "another manifest", "garbage"])
def test_anything_else_is_refused_by_the_server_before_its_weights_are_read(
    adapter: Path, tmp_path: Path, how: str
) -> None:
    import threading

    signer = create_signing_key(tmp_path / "key")
    if how == "another key":
        create_signing_key(tmp_path / "other")
        sign_adapter(adapter, tmp_path / "other")
    elif how == "another manifest":
        sign_adapter(adapter, tmp_path / "key")
        (adapter / "manifest.json").chmod(0o600)
        (adapter / "manifest.json").write_text("{}")
    elif how == "garbage":
        (adapter / SIGNATURE).write_text("not hex")
    server = AdapterRegistry(1, threading.Condition(), signer)
    with pytest.raises(AdapterError, match="trusted_signer"), server.loading("genz-v1", adapter, "b"):
        pytest.fail("it was loaded")
    assert server.ready() == []


def test_a_key_that_others_may_read_signs_nothing(adapter: Path, tmp_path: Path) -> None:
    create_signing_key(tmp_path / "key")
    (tmp_path / "key").chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        sign_adapter(adapter, tmp_path / "key")
    assert not (adapter / SIGNATURE).exists()
    with pytest.raises(ConfigurationError, match="never overwritten"):
        create_signing_key(tmp_path / "key")
