import base64
import json
import os
import stat
from pathlib import Path

import pytest

from nocap.errors import ConfigurationError, KeyMismatchError
from storage.crypto import Keyring


def test_the_key_file_is_private_and_loads_to_the_same_keys(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "nocap.key"
    made = Keyring.create(file)
    loaded = Keyring.load(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert loaded.decrypt(made.encrypt("héllo 🫡")) == "héllo 🫡"
    assert loaded.pseudonym("member", "discord", "1") == made.pseudonym("member", "discord", "1")
    assert loaded.check_value() == made.check_value()


def test_an_existing_key_file_is_never_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "nocap.key"
    Keyring.create(file)
    before = file.read_bytes()
    with pytest.raises(ConfigurationError, match="exists already"):
        Keyring.create(file)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["nocap.key"]


def test_the_file_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        Keyring.create(tmp_path / "nocap.key")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "nocap.key").stat().st_mode) == 0o600


def test_a_missing_key_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nocap init"):
        Keyring.load(tmp_path / "nocap.key")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_key_file_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "nocap.key"
    Keyring.create(file)
    file.chmod(mode)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        Keyring.load(file)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "not json",
        "[]",
        "3",
        '{"version": 1}',
        '{"version": 1, "master": 5}',
        '{"version": 1, "master": "%%%"}',
        json.dumps({"version": 1, "master": base64.b64encode(b"short").decode()}),
    ],
)
def test_a_malformed_key_file_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "nocap.key"
    file.write_text(content)
    file.chmod(0o600)
    with pytest.raises(ConfigurationError, match="malformed"):
        Keyring.load(file)


def test_a_key_file_of_a_later_version_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "nocap.key"
    file.write_text(json.dumps({"version": 3, "master": base64.b64encode(bytes(32)).decode()}))
    file.chmod(0o600)
    with pytest.raises(ConfigurationError, match="version 3"):
        Keyring.load(file)


@pytest.mark.parametrize("text", ["", "no cap", "👩‍👩‍👧 日本語", "a\x00b", "x" * 100_000])
def test_texts_come_back_as_they_were(keyring: Keyring, text: str) -> None:
    assert keyring.decrypt(keyring.encrypt(text)) == text


def test_a_lone_surrogate_becomes_a_question_mark(keyring: Keyring) -> None:
    assert keyring.decrypt(keyring.encrypt("a\ud800b")) == "a?b"


def test_equal_texts_have_unequal_ciphertexts_that_do_not_show_the_text(keyring: Keyring) -> None:
    first, second = keyring.encrypt("bussin bussin"), keyring.encrypt("bussin bussin")
    assert first != second
    assert b"bussin" not in first


def test_any_changed_byte_is_noticed(keyring: Keyring) -> None:
    data = keyring.encrypt("no cap")
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1
        with pytest.raises(KeyMismatchError):
            keyring.decrypt(bytes(changed))
    for length in range(len(data)):
        with pytest.raises(KeyMismatchError):
            keyring.decrypt(data[:length])


def test_another_key_reads_nothing_and_names_people_otherwise(keyring: Keyring) -> None:
    other = Keyring(bytes(32))
    with pytest.raises(KeyMismatchError, match="another key"):
        other.decrypt(keyring.encrypt("no cap"))
    assert other.pseudonym("member", "discord", "1") != keyring.pseudonym("member", "discord", "1")
    assert other.digest("a") != keyring.digest("a")
    assert other.derived_token("admin") != keyring.derived_token("admin")


def test_pseudonyms_of_different_things_differ(keyring: Keyring) -> None:
    names = {
        keyring.pseudonym("member", "discord", "12"),
        keyring.pseudonym("channel", "discord", "12"),
        keyring.pseudonym("message", "discord", "12"),
        keyring.pseudonym("member", "telegram", "12"),
        keyring.pseudonym("member", "discord1", "2"),
    }
    assert len(names) == 5
    assert all(len(name) == 32 and int(name, 16) >= 0 for name in names)


def test_outputs_stay_the_same_between_versions() -> None:
    keyring = Keyring(bytes(range(32)))
    assert keyring.pseudonym("member", "discord", "1") == PINNED["pseudonym"]
    assert keyring.digest("no cap") == PINNED["digest"]
    assert keyring.derived_token("admin") == PINNED["token"]
    assert keyring.decrypt(bytes.fromhex(PINNED["ciphertext"])) == "no cap"


def test_a_keyring_does_not_show_its_key() -> None:
    keyring = Keyring(b"k" * 32)
    assert "kkk" not in repr(keyring)


PINNED = {
    "pseudonym": "cb74ecb244fe61fbe0f58c043fe4f859",
    "digest": "a67237b3bbb80fe9dc72ab2c21097c1c5b8711568da8e854785bb21dddc42045",
    "token": "3ecc5590e32f8da0427c3ab7203b133883c06761f26319acad42f6cb6794a936",
    "ciphertext": "01f907f55bdd38f44de56d71f970f3d8362cefe55b35e10dd1c76a6d515557bf394aac",
}
