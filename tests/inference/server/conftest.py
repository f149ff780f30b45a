"""An engine over the tiny base for the tests that leave it as they found it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from inference.base_model import BaseModel
from inference.server.engine import Engine


@pytest.fixture
def engine(base: BaseModel) -> Iterator[Engine]:
    """Three requests at a time, so that batches change while they run."""
    with Engine(base, max_batch=3, max_queue=8, max_adapters=2, max_rank=8) as started:
        yield started
