"""Adapters to and from a hub repository; what comes in is verified and is nobody's voice until it is promoted."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from sqlmodel import select

from inference.adapter_files import MANIFEST, SIGNATURE, AdapterManifest, read_manifest, verify_adapter
from inference.base_model import base_digest
from inference.signing import require_signature
from nocap.domain import AdapterName, AdapterStatus, VoiceName
from nocap.errors import AdapterError, InputError
from nocap.settings import Settings
from retrain.bom import BOM_FILE
from retrain.card import CARD_FILE
from retrain.export import adapter_that_may_leave
from retrain.train.publish import copy_adapter
from storage import registry
from storage.database import Database
from storage.tables import Adapter, Run, Voice

BESIDE = (CARD_FILE, BOM_FILE)
"""What a repository holds beside the adapter's own files: they are not in its manifest."""
T = TypeVar("T")


def push_adapter(database: Database, settings: Settings, name: AdapterName, repository: str) -> str:
    """The commit's URL: the verified adapter, its model card and bill of materials, in a private repository.

    The hub is the one of HF_ENDPOINT, the token HF_TOKEN's. Raises InputError where the hub refuses, and as
    `adapter_that_may_leave` does.
    """
    from huggingface_hub import HfApi

    row = adapter_that_may_leave(database, settings, name)
    with TemporaryDirectory() as parent:
        folder = Path(parent) / name
        copy_adapter(settings.adapters_dir / name, folder)
        for file in BESIDE:
            with suppress(FileNotFoundError):
                shutil.copy(settings.runs_dir / str(row.run_id) / file, folder / file)
        api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))

        def upload() -> str:
            api.create_repo(repository, private=True, exist_ok=True)
            commit = api.upload_folder(repo_id=repository, folder_path=folder, commit_message=f"{name}, {row.digest}")
            return str(commit.commit_url)

        return _told(repository, upload)


def pull_adapter(
    database: Database,
    settings: Settings,
    repository: str,
    *,
    revision: str | None,
    at: datetime,
) -> AdapterManifest:
    """The adapter of `repository`, now in the adapters' folder and registered as a candidate of the voice in its name.

    Its gates have not judged it here, so it is not promoted without an operator's override. Raises AdapterError where a
    file is not what the manifest says, the base is another, the signature is missing or the name stands for another
    adapter; InputError where the hub refuses.
    """
    from huggingface_hub import snapshot_download

    with TemporaryDirectory() as parent:
        fetched, clean = Path(parent) / "fetched", Path(parent) / "adapter"
        endpoint = os.environ.get("HF_ENDPOINT")
        _told(
            repository,
            lambda: snapshot_download(repository, revision=revision, local_dir=fetched, endpoint=endpoint),
        )
        _take_listed(fetched, clean)
        manifest = verify_adapter(clean, base_digest=base_digest(settings.base_path))
        if settings.inference.trusted_signer is not None:
            require_signature(clean, settings.inference.trusted_signer)
        voice = VoiceName(manifest.name.rpartition("-v")[0])
        if _is_known(database, voice, manifest):
            return manifest
        copy_adapter(clean, settings.adapters_dir / manifest.name)
    with database.write() as session:
        row = Adapter(
            name=manifest.name,
            voice=voice,
            base=settings.model.base,
            base_digest=manifest.base_digest,
            digest=manifest.digest,
            status=AdapterStatus.CANDIDATE,
            created_at=at,
        )
        registry.register_adapter(session, row)
    return manifest


def _take_listed(fetched: Path, clean: Path) -> None:
    """The manifest with the files that it lists, and no other file of the repository."""
    manifest = read_manifest(fetched)
    for name in (MANIFEST, SIGNATURE, *manifest.files):
        source, target = fetched / name, clean / name
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise AdapterError(f"The manifest of {manifest.name} lists {name!r}, which leads out of its folder.")
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


def _is_known(database: Database, voice: VoiceName, manifest: AdapterManifest) -> bool:
    """Whether this very adapter is here. Raises where its voice is not, or its name is given to another."""
    with database.read() as session:
        if session.get(Voice, voice) is None:
            raise InputError(f"{manifest.name} speaks as {voice or 'no voice'}, which is not here; add it first.")
        row = session.get(Adapter, manifest.name)
        of_a_run = session.exec(select(Run.id).where(Run.challenger == manifest.name)).first()
    if row is not None and row.digest == manifest.digest:
        return True
    if row is not None or of_a_run is not None:
        raise AdapterError(f"The name {manifest.name} is another adapter's here; names are given once, it stays out.")
    return False


def _told(repository: str, work: Callable[[], T]) -> T:
    """The hub's refusals and an unreachable hub, in a sentence."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return work()
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, httpx.HTTPError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise InputError(
            f"The hub did not serve {repository} ({reason}); check the name, HF_TOKEN and HF_ENDPOINT."
        ) from error
