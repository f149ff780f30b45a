"""One tiny Qwen3 base with three adapters, and an engine over it for the tests that leave it as they found it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from inference.base_model import BaseModel
from inference.server.engine import Engine
from tests.inference.server import tiny

torch.set_num_threads(1)


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


@pytest.fixture
def engine(base: BaseModel) -> Iterator[Engine]:
    """Three requests at a time, so that batches change while they run."""
    with Engine(base, max_batch=3, max_queue=8, max_adapters=2, max_rank=8) as started:
        yield started
