"""Rotating the key, whole and interrupted."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text
from sqlmodel import select

from nocap.errors import KeyMismatchError, NotPermitted
from storage import registry, rotation, runs
from storage.crypto import Keyring
from storage.database import Database
from storage.rotation import rotate
from storage.tables import Message
from tests.storage.community import ANA, GENZ, NOW, agree, message, open_channel, store

ROWS = 12


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """The URL and the key file of a database with a few texts, of each kind in turn."""
    monkeypatch.setattr(rotation, "BATCH_ROWS", 5)
    key_file = tmp_path / "nocap.key"
    is_file = request.param == "sqlite"
    url = f"sqlite:///{tmp_path / 'nocap.db'}" if is_file else request.getfixturevalue("postgres_database_url")
    database = Database.open(url, Keyring.create(key_file), create=True)
    with database.write() as session:
        registry.ensure_voice(session, GENZ, "Be a bot.", [], NOW)
        open_channel(session)
        agree(session, ANA)
        store(session, *(message(f"k{number}", text=f"story {number}") for number in range(ROWS)))
    database.close()
    return url, key_file


def texts(url: str, key_file: Path) -> list[str]:
    database = Database.open(url, Keyring.load(key_file))
    with database.read() as session:
        found = [row.text for row in session.exec(select(Message).order_by(Message.id))]  # type: ignore[arg-type]
    database.close()
    return found


def stored_bytes(url: str, key_file: Path) -> list[bytes]:
    database = Database.open(url, Keyring.load(key_file))
    with database.read() as session:
        found = [bytes(data) for data in session.connection().execute(text("SELECT text FROM message")).scalars()]
    database.close()
    return found


def test_every_text_is_under_the_new_key_and_the_old_one_opens_nothing(place: tuple[str, Path], tmp_path: Path) -> None:
    url, key_file = place
    before = Keyring.load(key_file)
    (tmp_path / "old.key").write_bytes(key_file.read_bytes())
    (tmp_path / "old.key").chmod(0o600)
    old_bytes = stored_bytes(url, key_file)
    assert rotate(url, key_file) == ROWS
    after = Keyring.load(key_file)
    assert not after.is_rotating
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert texts(url, key_file) == [f"story {number}" for number in range(ROWS)]
    assert after.pseudonym("member", "x", "1") == before.pseudonym("member", "x", "1")
    assert after.digest("x") == before.digest("x")
    assert after.derived_token("user") != before.derived_token("user")
    with pytest.raises(KeyMismatchError):
        texts(url, tmp_path / "old.key")
    for file in tmp_path.glob("nocap.db*"):
        assert not any(old in file.read_bytes() for old in old_bytes), file.name
    assert rotate(url, key_file) == ROWS, "a second rotation goes on from the first"


@pytest.mark.parametrize("batches", [0, 2, 3, 5])
def test_an_interrupted_rotation_reads_everything_and_goes_on(
    place: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, batches: int
) -> None:
    url, key_file = place
    real, left = rotation._encrypt_batch, [batches]

    def fail_later(*arguments: object) -> int:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return real(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(rotation, "_encrypt_batch", fail_later)
        rotate(url, key_file)
    assert Keyring.load(key_file).is_rotating
    assert len(texts(url, key_file)) == ROWS
    remaining = sum(data.startswith(b"\x01") for data in stored_bytes(url, key_file))
    assert rotate(url, key_file) == remaining
    assert not Keyring.load(key_file).is_rotating
    assert len(texts(url, key_file)) == ROWS


def test_a_run_in_progress_keeps_the_key(place: tuple[str, Path]) -> None:
    url, key_file = place
    database = Database.open(url, Keyring.load(key_file))
    with database.write() as session:
        runs.create_run(
            session, voice=GENZ, trigger="x", as_of=NOW, incumbent="base", options={}, permission_reference=None, at=NOW
        )
    database.close()
    with pytest.raises(NotPermitted, match="in progress"):
        rotate(url, key_file)
    assert not Keyring.load(key_file).is_rotating
