from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nocap.settings import Settings
from storage.database import Database
from storage.registry import ensure_voice
from tests.bots.support import PROMPT, START, VOICE, World, world


@pytest.fixture(params=["sqlite", "postgresql"])
def bot(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    if request.param == "sqlite":
        with world(tmp_path) as one:
            yield one
        return
    database: Database = request.getfixturevalue("postgres_database")
    with database.write() as session:
        ensure_voice(session, VOICE, PROMPT, ["fr"], START)
    yield World(tmp_path, database, Settings(data_dir=tmp_path), None)
