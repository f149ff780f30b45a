"""An adapter's folder is exactly what its manifest says, or it is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from inference.adapter_files import MANIFEST, adapter_name, read_manifest, verify_adapter, write_manifest
from nocap.errors import AdapterError

BASE_DIGEST = "b" * 64


def files(folder: Path) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"r": 4}')
    (folder / "adapter_model.safetensors").write_bytes(bytes(range(256)))
    return folder


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = files(tmp_path / "genz-v1")
    write_manifest(folder, name="genz-v1", base_digest=BASE_DIGEST, rank=4)
    return folder


def test_what_was_written_is_verified_and_read_back(tmp_path: Path) -> None:
    folder = files(tmp_path / "genz-v1")
    digest = write_manifest(folder, name="genz-v1", base_digest=BASE_DIGEST, rank=4)
    manifest = verify_adapter(folder, base_digest=BASE_DIGEST)
    assert (manifest.name, manifest.rank, manifest.base_digest) == ("genz-v1", 4, BASE_DIGEST)
    assert manifest.digest == digest == read_manifest(folder).digest
    assert sorted(manifest.files) == ["adapter_config.json", "adapter_model.safetensors"]
    assert verify_adapter(folder, base_digest=None) == manifest


def test_the_digest_is_the_contents_and_not_the_places(tmp_path: Path) -> None:
    one, two = files(tmp_path / "one"), files(tmp_path / "two")
    digests = [write_manifest(folder, name="genz-v1", base_digest=BASE_DIGEST, rank=4) for folder in (one, two)]
    assert digests[0] == digests[1]
    other = files(tmp_path / "other")
    (other / "adapter_config.json").write_text('{"r": 5}')
    assert write_manifest(other, name="genz-v1", base_digest=BASE_DIGEST, rank=4) != digests[0]


def test_the_files_are_read_only_afterwards_and_the_manifest_is_never_rewritten(adapter: Path) -> None:
    assert all(path.stat().st_mode & 0o222 == 0 for path in adapter.iterdir())
    with pytest.raises(AdapterError, match="already has a manifest"):
        write_manifest(adapter, name="genz-v2", base_digest=BASE_DIGEST, rank=4)


def flip_a_byte(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


def remove_the_weights(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()


def add_a_file(folder: Path) -> None:
    (folder / "extra.json").write_text("{}")


def add_a_pickle(folder: Path) -> None:
    (folder / "adapter_model.bin").write_bytes(b"x")


def link_the_weights(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.rename(folder.parent / "elsewhere")
    path.symlink_to(folder.parent / "elsewhere")


def remove_the_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def break_the_manifest(folder: Path) -> None:
    (folder / MANIFEST).chmod(0o644)
    (folder / MANIFEST).write_text("{")


def use_a_later_format(folder: Path) -> None:
    content = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).chmod(0o644)
    (folder / MANIFEST).write_text(json.dumps(content | {"format": 2}))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (flip_a_byte, "is corrupt: adapter_model.safetensors"),
        (remove_the_weights, "adapter_model.safetensors is missing"),
        (add_a_file, "extra.json is not in its manifest"),
        (add_a_pickle, "may hold code"),
        (link_the_weights, "symbolic link"),
        (remove_the_manifest, "has no manifest"),
        (break_the_manifest, "malformed"),
        (use_a_later_format, "format 2"),
    ],
)
def test_a_damaged_adapter_is_refused_with_the_reason(
    damage: Callable[[Path], None], reason: str, adapter: Path
) -> None:
    damage(adapter)
    with pytest.raises(AdapterError, match=reason):
        verify_adapter(adapter, base_digest=BASE_DIGEST)


def test_another_base_is_refused_by_both_digests(adapter: Path) -> None:
    with pytest.raises(AdapterError, match=f"{'b' * 12}.*{'c' * 12}"):
        verify_adapter(adapter, base_digest="c" * 64)


def test_a_missing_or_linked_folder_is_refused(adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(adapter)
    for folder in (tmp_path / "nothing", tmp_path / "link"):
        with pytest.raises(AdapterError, match="no adapter folder"):
            verify_adapter(folder, base_digest=BASE_DIGEST)


@pytest.mark.parametrize("change", [remove_the_weights, add_a_pickle])
def test_an_incomplete_or_pickled_folder_gets_no_manifest(change: Callable[[Path], None], tmp_path: Path) -> None:
    folder = files(tmp_path / "genz-v1")
    change(folder)
    with pytest.raises(AdapterError):
        write_manifest(folder, name="genz-v1", base_digest=BASE_DIGEST, rank=4)
    assert not (folder / MANIFEST).exists()


@pytest.mark.parametrize("name", ["base", "", "..", "../x", "a/b", "a b", ".hidden", "-x", "é", "x" * 65, "a\n"])
def test_names_that_could_be_paths_or_the_base_are_refused(name: str) -> None:
    with pytest.raises(AdapterError, match="cannot name an adapter"):
        adapter_name(name)


def test_verifying_needs_no_torch() -> None:
    program = "import sys, inference.adapter_files, inference.prompt; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
