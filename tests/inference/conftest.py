"""One tiny Qwen3 base with three adapters."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import settings

from inference.base_model import BaseModel
from tests.inference.server import tiny

torch.set_num_threads(1)
settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("models") / "qwen3")


@pytest.fixture(scope="session")
def adapters_dir(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("adapters")
    tiny.write_adapter(base_folder, root / "genz-v1", seed=1)
    tiny.write_adapter(base_folder, root / "genz-v2", seed=2, rank=8)
    tiny.write_adapter(base_folder, root / "genz-v3", seed=3, rank=2, targets=["q_proj", "v_proj"])
    return root


@pytest.fixture(scope="session")
def base(base_folder: Path) -> BaseModel:
    return tiny.load(base_folder)
