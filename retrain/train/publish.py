"""From a trainer's model to a finished adapter folder, whole or absent."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from inference.adapter_files import CONFIG, write_manifest
from inference.base_model import BaseModel
from nocap.domain import AdapterName
from retrain.train.checkpoints import flush


def publish_adapter(model: Any, output: Path, *, name: AdapterName, base: BaseModel, rank: int) -> None:
    """Writes the PEFT adapter of `model` beside `output`, then renames it into place."""
    partial = output.with_name(f".{output.name}.partial")
    for stale in (partial, output):
        shutil.rmtree(stale, ignore_errors=True)
    partial.mkdir(parents=True)
    model.save_pretrained(str(partial), save_embedding_layers=False, selected_adapters=["default"])
    (partial / "README.md").unlink(missing_ok=True)
    _settle_config(partial / CONFIG, base.name)
    write_manifest(partial, name=name, base_digest=base.digest, rank=rank)
    _settle(partial, output)


def copy_adapter(source: Path, output: Path) -> None:
    """The same adapter at `output`, with the same digest."""
    partial = output.with_name(f".{output.name}.partial")
    for stale in (partial, output):
        shutil.rmtree(stale, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, partial)
    _settle(partial, output)


def _settle(partial: Path, output: Path) -> None:
    for file in partial.iterdir():
        flush(file)
    partial.rename(output)
    flush(output.parent)


def _settle_config(config_file: Path, base_name: str) -> None:
    """Puts the base's name where PEFT wrote its path on this machine, and the targets, a set, into one order."""
    config = json.loads(config_file.read_text(encoding="utf-8")) | {"base_model_name_or_path": base_name}
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
