"""An adapter on disk: a folder that PEFT can read, with a manifest of SHA-256 digests, safetensors only.

The manifest names the adapter and the base it was trained on. Its own digest is the adapter's identity: the same
name never stands for two digests.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from nocap.domain import BASE, AdapterName
from nocap.errors import AdapterError

MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
FORMAT = 1

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"})


@dataclass(frozen=True, slots=True)
class AdapterManifest:
    """What `manifest.json` says; `files` maps each other file's relative path to its SHA-256."""

    name: AdapterName
    base_digest: str
    rank: int
    files: Mapping[str, str]
    digest: str


def adapter_name(name: str) -> AdapterName:
    """`name` if it can name an adapter: at most 64 of letters, digits, `.`, `_`, `-`, and not the base's name."""
    if not _NAME.fullmatch(name) or name == BASE:
        raise AdapterError(
            f"`{name[:80]}` cannot name an adapter; use letters, digits, `.`, `_` and `-`, and not `{BASE}`."
        )
    return AdapterName(name)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path, *, name: str, base_digest: str, rank: int) -> str:
    """The digest of the adapter in `folder`, whose files are now listed in its manifest and read-only.

    Raises AdapterError where the folder holds anything but PEFT's files with safetensors weights.
    """
    if (folder / MANIFEST).exists():
        raise AdapterError(f"{folder} already has a manifest; an adapter is never changed, write a new one instead.")
    files = {path.relative_to(folder).as_posix(): file_digest(path) for path in _files(folder)}
    _require_weights(folder, files)
    content = {"format": FORMAT, "name": adapter_name(name), "base_digest": base_digest, "rank": rank, "files": files}
    encoded = json.dumps(content, indent=1, sort_keys=True).encode()
    (folder / MANIFEST).write_bytes(encoded)
    for path in (folder / MANIFEST, *_files(folder)):
        path.chmod(0o444)
    return hashlib.sha256(encoded).hexdigest()


def read_manifest(folder: Path) -> AdapterManifest:
    """The manifest as it stands, its files unchecked. Raises AdapterError where it is missing or malformed."""
    path = folder / MANIFEST
    if path.is_symlink() or not path.is_file():
        raise AdapterError(f"{folder} is not an adapter: it has no {MANIFEST}.")
    encoded = path.read_bytes()
    try:
        content = json.loads(encoded)
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']} is unknown")
        return AdapterManifest(
            name=adapter_name(str(content["name"])),
            base_digest=str(content["base_digest"]),
            rank=int(content["rank"]),
            files={str(name): str(digest) for name, digest in dict(content["files"]).items()},
            digest=hashlib.sha256(encoded).hexdigest(),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise AdapterError(f"{path} is malformed ({error}); take the adapter from a backup or retrain it.") from error


def verify_adapter(folder: Path, *, base_digest: str | None) -> AdapterManifest:
    """The manifest of `folder`, once every file is what it says and the base is `base_digest` (None: any base).

    Raises AdapterError with the file or digest that is wrong.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise AdapterError(f"There is no adapter folder {folder}.")
    manifest = read_manifest(folder)
    present = {path.relative_to(folder).as_posix(): path for path in _files(folder)} | {MANIFEST: folder / MANIFEST}
    _require_weights(folder, manifest.files)
    for name in sorted(manifest.files.keys() ^ (present.keys() - {MANIFEST})):
        state = "is missing" if name in manifest.files else f"is not in its {MANIFEST}"
        raise AdapterError(
            f"Adapter {manifest.name} is not intact: {name} {state}; take it from a backup or retrain it."
        )
    for name, digest in manifest.files.items():
        if file_digest(present[name]) != digest:
            raise AdapterError(
                f"Adapter {manifest.name} is corrupt: {name} is not the file that was written "
                f"(SHA-256 differs); take it from a backup or retrain it."
            )
    if base_digest is not None and manifest.base_digest != base_digest:
        raise AdapterError(
            f"Adapter {manifest.name} belongs to another base model (digest {manifest.base_digest[:12]}, "
            f"this one is {base_digest[:12]}); serve its own base, or retrain it on this one."
        )
    return manifest


def _require_weights(folder: Path, files: Mapping[str, str]) -> None:
    for needed in (CONFIG, WEIGHTS):
        if needed not in files:
            raise AdapterError(f"{folder} is not a complete adapter: {needed} is missing.")


def _files(folder: Path) -> Iterator[Path]:
    """The folder's files but for manifest and signature, in order. AdapterError at a link, a pickle or a device."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise AdapterError(f"{path} is a symbolic link; an adapter holds plain files only.")
        if path.suffix.lower() in _PICKLES:
            raise AdapterError(f"{path} may hold code; an adapter's weights are safetensors only.")
        if not path.is_dir() and not path.is_file():
            raise AdapterError(f"{path} is not a plain file; an adapter holds plain files only.")
        if path.is_file() and path not in (folder / MANIFEST, folder / SIGNATURE):
            yield path
