from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bots.support import World, world


@pytest.fixture
def bot(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as one:
        yield one
