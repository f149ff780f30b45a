"""A backup is made while everything runs, and what is restored has the same rows and files."""

from __future__ import annotations

import shutil
import sqlite3
import tarfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlmodel import func, select

from inference.adapter_files import write_manifest
from nocap.backup import read_backup, restore_backup, write_backup
from nocap.check import check_installation
from nocap.domain import AdapterStatus
from nocap.errors import InputError, KeyMismatchError, StorageError
from nocap.findings import has_problems
from nocap.settings import DatabaseSettings, Settings
from storage.consent import record_consent
from storage.crypto import Keyring
from storage.database import Database
from storage.dump import digest_of
from storage.messages import forget_member
from storage.registry import ensure_voice, register_adapter
from storage.tables import Adapter, ConsentEvent, Message
from tests.storage.community import ANA, BEN, FLAT, GENZ, NOW, POLICY, agree, message, open_channel, store


@pytest.fixture(params=["sqlite", "postgresql"])
def installed(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """An installation with a key, two members' messages and one adapter, of each kind of database in turn."""
    url = None if request.param == "sqlite" else request.getfixturevalue("postgres_database_url")
    settings = Settings(data_dir=tmp_path / "data", database=DatabaseSettings(url=url))
    database = Database.open(settings.database_url, Keyring.create(settings.key_file), create=True)
    folder = settings.adapters_dir / "genz-v1"
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    digest = write_manifest(folder, name="genz-v1", base_digest="b" * 64, rank=8)
    with database.write() as session:
        ensure_voice(session, GENZ, "prompt", ["no cap"], NOW)
        open_channel(session)
        agree(session, ANA)
        agree(session, BEN)
        store(session, message("k1"), message("k2", BEN, "fr fr"))
        register_adapter(
            session,
            Adapter(name="genz-v1", voice=GENZ, base="embedded", base_digest="b" * 64, digest=digest,
                    status=AdapterStatus.PASSED, created_at=NOW),
        )  # fmt: skip
    database.close()
    return settings


def opened(settings: Settings) -> Database:
    return Database.open(settings.database_url, Keyring.load(settings.key_file))


def backed_up(settings: Settings, folder: Path, minutes: int = 0, keep: int | None = None) -> Path:
    database = opened(settings)
    backup = write_backup(settings, database, folder, NOW + timedelta(minutes=minutes), keep=keep)
    assert backup.digest == digest_of(database)
    database.close()
    return Path(backup.file)


def messages(settings: Settings) -> list[str]:
    database = opened(settings)
    with database.read() as session:
        found = sorted(session.exec(select(Message.text)))
    database.close()
    return found


def test_a_restored_backup_has_the_same_digest_and_passes_every_check(installed: Settings, tmp_path: Path) -> None:
    file = backed_up(installed, tmp_path / "backups")
    assert file.stat().st_mode & 0o077 == 0
    database = opened(installed)
    with database.write() as session:
        store(session, message("k3", text="later"))
    database.close()
    shutil.rmtree(installed.adapters_dir)
    restored = restore_backup(installed, file, replace=True)
    assert restored.digest == restored.backup.digest
    database = opened(installed)
    report = check_installation(installed, database, NOW)
    database.close()
    assert not has_problems(report.findings), report.findings
    assert report.digest == read_backup(file).digest
    assert messages(installed) == ["fr fr", "no cap"]


def test_a_restored_database_takes_new_rows(installed: Settings, tmp_path: Path) -> None:
    restore_backup(installed, backed_up(installed, tmp_path / "backups"), replace=True)
    database = opened(installed)
    with database.write() as session:
        agree(session, ANA, granted=False)
        agree(session, ANA)
        store(session, message("k9", text="new"))
    database.close()
    assert "new" in messages(installed)


def test_no_text_and_no_key_stands_in_a_backup(installed: Settings, tmp_path: Path) -> None:
    content = backed_up(installed, tmp_path / "backups").read_bytes()
    assert b"no cap" not in content.replace(b'["no cap"]', b"")  # the voice's own lexicon is no member's text
    assert b"fr fr" not in content
    assert installed.key_file.read_bytes()[20:40] not in content


def test_what_was_erased_and_revoked_since_stays_so(installed: Settings, tmp_path: Path) -> None:
    file = backed_up(installed, tmp_path / "backups")
    database = opened(installed)
    with database.write() as session:
        forget_member(session, ANA, NOW)
        record_consent(session, BEN, FLAT, ["train"], False, POLICY, NOW)  # type: ignore[list-item]
        lines = session.exec(select(func.count()).select_from(ConsentEvent)).one()
    database.close()
    restored = restore_backup(installed, file, replace=True)
    assert restored.decided_again == 4 + 1 + 2  # Ana's four revocations, Ben's one, Ana's tombstone and her message's
    assert messages(installed) == ["fr fr"]
    database = opened(installed)
    with database.read() as session:
        assert session.exec(select(func.count()).select_from(ConsentEvent)).one() == lines
    assert not has_problems(check_installation(installed, database, NOW).findings)
    database.close()


def test_a_database_that_is_there_is_only_replaced_on_request(installed: Settings, tmp_path: Path) -> None:
    file = backed_up(installed, tmp_path / "backups")
    with pytest.raises(StorageError, match="--replace"):
        restore_backup(installed, file, replace=False)
    assert messages(installed) == ["fr fr", "no cap"]


def test_a_database_in_use_is_not_replaced(installed: Settings, tmp_path: Path) -> None:
    file = backed_up(installed, tmp_path / "backups")
    database = opened(installed)
    with database.read() as session:
        session.exec(select(Message.key)).all()
        with pytest.raises(StorageError, match="stop nocap"):
            restore_backup(installed, file, replace=True)
    database.close()
    assert messages(installed) == ["fr fr", "no cap"]


def test_another_key_cannot_restore_and_changes_nothing(installed: Settings, tmp_path: Path) -> None:
    file = backed_up(installed, tmp_path / "backups")
    stranger = tmp_path / "stranger" / "nocap.key"
    Keyring.create(stranger)
    other = installed.model_copy(update={"database": DatabaseSettings(url=installed.database.url, key_file=stranger)})
    with pytest.raises(KeyMismatchError):
        restore_backup(other, file, replace=True)
    assert messages(installed) == ["fr fr", "no cap"]


@pytest.mark.parametrize("damage", ["cut short", "one byte flipped", "not an archive"])
def test_a_damaged_backup_is_refused_and_changes_nothing(installed: Settings, tmp_path: Path, damage: str) -> None:
    file = backed_up(installed, tmp_path / "backups")
    content = bytearray(file.read_bytes())
    if damage == "cut short":
        content = content[: len(content) // 2]
    elif damage == "one byte flipped":
        content[len(content) // 3] ^= 1
    else:
        content = bytearray(b"hello")
    file.write_bytes(content)
    with pytest.raises((InputError, StorageError)):
        restore_backup(installed, file, replace=True)
    assert messages(installed) == ["fr fr", "no cap"]
    assert not list(installed.data_dir.glob(".*"))


def test_only_the_newest_backups_are_kept(installed: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    (folder / "mine").mkdir(parents=True)
    files = [backed_up(installed, folder, minutes, keep=2) for minutes in range(3)]
    assert sorted(folder.iterdir()) == [folder / "mine", *files[1:]]


def test_what_was_deleted_is_not_in_the_copy_of_the_file(tmp_path: Path, sqlite_database: Database) -> None:
    from storage.dump import dump

    with sqlite_database.write() as session:
        open_channel(session)
        agree(session, ANA)
        store(session, message("gone"))
    cipher = sqlite3.connect(str(sqlite_database.url.database)).execute("SELECT text FROM message").fetchone()[0]
    with sqlite_database.write() as session:
        forget_member(session, ANA, NOW)
    dump(sqlite_database, tmp_path / "copy")
    assert cipher not in (tmp_path / "copy").read_bytes()


def test_checkpoints_and_unfinished_runs_are_left_out(
    installed: Settings, tmp_path: Path, settings: Callable[..., Settings]
) -> None:
    run = installed.runs_dir / "20261101-000000-abcdef"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "big.bin").write_bytes(b"x")
    (run / "gates.json").write_text("{}")
    with tarfile.open(backed_up(installed, tmp_path / "backups")) as archive:
        names = archive.getnames()
    assert "runs/20261101-000000-abcdef/gates.json" in names
    assert not any("checkpoints" in name for name in names)
