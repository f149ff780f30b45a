"""The keyring: encryption of texts, pseudonyms of people, and derived tokens, all from one master key.

The master key lives in a file of its own (JSON, mode 0600), apart from the database. Every use has its own key,
derived by HKDF-SHA256 (RFC 5869), so that no output of one tells anything about another.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from nocap.errors import ConfigurationError, KeyMismatchError

KEY_FILE_VERSION = 1
ROTATED_FILE_VERSION = 2
MASTER_BYTES = 32
NONCE_BYTES = 12
# The first bytes of every ciphertext name the scheme, and after a rotation the key; they are authenticated with it.
_FIRST_SCHEME, _ROTATED_SCHEME = b"\x01", b"\x02"
MAX_GENERATION = 255

PseudonymKind = Literal["member", "channel", "message"]


@dataclass(frozen=True, slots=True)
class PreviousKey:
    """What a rotation under way still needs of the key before."""

    generation: int
    texts: bytes
    check: str


@dataclass(frozen=True, slots=True)
class KeptKeys:
    """What outlives a rotation."""

    generation: int
    pseudonyms: bytes
    digests: bytes
    previous: PreviousKey | None = None


class Keyring:
    """Encrypts with AES-256-GCM under random nonces (at most 2^32 texts a key, NIST SP 800-38D); thread-safe."""

    def __init__(self, master: bytes, kept: KeptKeys | None = None) -> None:
        if len(master) != MASTER_BYTES:
            raise ConfigurationError(f"A master key has {MASTER_BYTES} bytes, this one {len(master)}.")
        self._master = master
        self._kept = kept or KeptKeys(0, self._derive("pseudonyms"), self._derive("content digests"))
        self._texts_key = self._derive("text encryption")
        self.prefix = _prefix(self._kept.generation)
        """What every text begins with that is encrypted under the present key."""
        self._ciphers = {self.prefix: AESGCM(self._texts_key)}
        if previous := self._kept.previous:
            self._ciphers[_prefix(previous.generation)] = AESGCM(previous.texts)
        self._pseudonym_key = self._kept.pseudonyms
        self._digest_key = self._kept.digests

    @classmethod
    def create(cls, path: Path, master: bytes | None = None) -> Keyring:
        """A new keyring, random unless `master` is given (the demo's, so that it repeats), written to `path`.

        Raises ConfigurationError where that file exists already.
        """
        master = master or secrets.token_bytes(MASTER_BYTES)
        content = {"version": KEY_FILE_VERSION, "master": base64.b64encode(master).decode()}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_once(path, json.dumps(content) + "\n")
        except FileExistsError as error:
            raise ConfigurationError(
                f"The key file {path} exists already and is never overwritten: without it every text stored"
                " under it is lost. Move it away only if its database is gone too."
            ) from error
        except OSError as error:
            raise ConfigurationError(f"The key file {path} cannot be written: {error.strerror or error}.") from error
        return cls(master)

    @classmethod
    def load(cls, path: Path) -> Keyring:
        """The keyring of `path`. Raises ConfigurationError if it is missing, malformed or open to other users."""
        try:
            mode = path.stat().st_mode
            content = path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise ConfigurationError(
                f"There is no key file {path}; write one with `nocap init`, or bring back the one that belongs"
                " to your database."
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"The key file {path} cannot be read: {error}.") from error
        if mode & 0o077:
            raise ConfigurationError(
                f"The key file {path} is open to other users (mode {mode & 0o777:04o}); run `chmod 600 {path}`."
            )
        return cls(*_parse(path, content))

    @property
    def is_rotating(self) -> bool:
        """Whether the previous key is still held, because texts under it may be left."""
        return self._kept.previous is not None

    def begin_rotation(self, path: Path) -> Keyring:
        """A keyring with a new key that still reads texts of this one, written over this one's file.

        Pseudonyms and digests keep their keys: a new one would make strangers of all members.
        """
        if self._kept.generation >= MAX_GENERATION:
            raise ConfigurationError("This key was rotated 255 times; export the data into a new database.")
        previous = PreviousKey(self._kept.generation, self._texts_key, self.check_value())
        kept = KeptKeys(previous.generation + 1, self._pseudonym_key, self._digest_key, previous)
        return Keyring(secrets.token_bytes(MASTER_BYTES), kept)._replace_file(path)

    def end_rotation(self, path: Path) -> Keyring:
        """The keyring without the previous key, written over its file: what that key could read is unreadable now."""
        kept = KeptKeys(self._kept.generation, self._pseudonym_key, self._digest_key)
        return Keyring(self._master, kept)._replace_file(path)

    def accepts(self, check: str | None) -> bool:
        """Whether a database with this check value was made with this keyring, or is being rotated to it."""
        previous = self._kept.previous
        return check == self.check_value() or (previous is not None and check == previous.check)

    def _replace_file(self, path: Path) -> Keyring:
        content: dict[str, Any] = {
            "version": ROTATED_FILE_VERSION,
            "generation": self._kept.generation,
            "master": _encoded(self._master),
            "pseudonyms": _encoded(self._pseudonym_key),
            "digests": _encoded(self._digest_key),
        }
        if previous := self._kept.previous:
            texts = _encoded(previous.texts)
            content["previous"] = {"generation": previous.generation, "texts": texts, "check": previous.check}
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            _write_new(temporary, json.dumps(content) + "\n")
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise ConfigurationError(f"The key file {path} cannot be written: {error.strerror or error}.") from error
        return self

    def encrypt(self, text: str) -> bytes:
        """Scheme byte, nonce, ciphertext and tag. Lone surrogates, which UTF-8 cannot hold, become `?`."""
        nonce = os.urandom(NONCE_BYTES)
        cipher = self._ciphers[self.prefix]
        return self.prefix + nonce + cipher.encrypt(nonce, text.encode("utf-8", "replace"), self.prefix)

    def decrypt(self, data: bytes) -> str:
        """The text of `encrypt`'s bytes. Raises KeyMismatchError if they were made by another key or changed."""
        prefix = data[:2] if data[:1] == _ROTATED_SCHEME else data[:1]
        nonce_end = len(prefix) + NONCE_BYTES
        try:
            cipher = self._ciphers.get(prefix)
            if cipher is None or len(data) < nonce_end:
                raise InvalidTag
            return cipher.decrypt(data[len(prefix) : nonce_end], data[nonce_end:], prefix).decode("utf-8")
        except InvalidTag as error:
            raise KeyMismatchError(
                "A stored text was encrypted with another key or was changed; use the key file that belongs to this"
                " database, or restore the database from a backup."
            ) from error

    def pseudonym(self, kind: PseudonymKind, platform: str, external_id: str) -> str:
        """HMAC-SHA256, cut to 32 hex digits (128 bits), of a platform's own id."""
        parts = [part.encode("utf-8", "surrogatepass") for part in (kind, platform, external_id)]
        message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return hmac.digest(self._pseudonym_key, message, "sha256").hex()[:32]

    def digest(self, text: str) -> str:
        """A keyed content digest (HMAC-SHA256, 64 hex digits): equal texts agree, guesses cannot be tried on it."""
        return hmac.digest(self._digest_key, text.encode("utf-8", "surrogatepass"), "sha256").hex()

    def derived_token(self, purpose: str) -> str:
        """A bearer token (64 hex digits) that every process with this key file can work out for itself."""
        return self._derive(f"token: {purpose}").hex()

    def check_value(self) -> str:
        """What a database keeps to recognise its key; it tells nothing about the key."""
        return hashlib.sha256(self._derive("key check")).hexdigest()

    def __repr__(self) -> str:
        return "Keyring(…)"

    def _derive(self, use: str) -> bytes:
        return HKDF(SHA256(), length=32, salt=None, info=f"nocap 1 {use}".encode()).derive(self._master)


def _prefix(generation: int) -> bytes:
    return _ROTATED_SCHEME + bytes([generation]) if generation else _FIRST_SCHEME


def _encoded(key: bytes) -> str:
    return base64.b64encode(key).decode()


def _decoded(value: str) -> bytes:
    key = base64.b64decode(value, validate=True)
    if len(key) != MASTER_BYTES:
        raise ValueError("a key has 32 bytes")
    return key


def _parse(path: Path, content: str) -> tuple[bytes, KeptKeys | None]:
    try:
        values = json.loads(content)
        version = values["version"]
        if version == KEY_FILE_VERSION:
            return _decoded(values["master"]), None
        if version == ROTATED_FILE_VERSION:
            return _decoded(values["master"]), _kept(values)
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"The key file {path} is malformed; bring back the original from your backup."
        ) from error
    raise ConfigurationError(
        f"The key file {path} has version {version!r}; this nocap reads versions {KEY_FILE_VERSION} and"
        f" {ROTATED_FILE_VERSION}: update nocap."
    )


def _kept(values: dict[str, Any]) -> KeptKeys:
    before = values.get("previous")
    previous = (
        PreviousKey(int(before["generation"]), _decoded(before["texts"]), str(before["check"])) if before else None
    )
    return KeptKeys(int(values["generation"]), _decoded(values["pseudonyms"]), _decoded(values["digests"]), previous)


def _write_once(path: Path, content: str) -> None:
    """Either the whole file is there (mode 0600) or none; raises FileExistsError rather than overwrite."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        _write_new(temporary, content)
        os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_new(path: Path, content: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
