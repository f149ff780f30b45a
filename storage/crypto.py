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
from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from nocap.errors import ConfigurationError, KeyMismatchError

KEY_FILE_VERSION = 1
MASTER_BYTES = 32
NONCE_BYTES = 12
# The first byte of every ciphertext names the scheme and is authenticated with it.
_SCHEME = b"\x01"

PseudonymKind = Literal["member", "channel", "message"]


class Keyring:
    """Encrypts with AES-256-GCM under random nonces (at most 2^32 texts a key, NIST SP 800-38D); thread-safe."""

    def __init__(self, master: bytes) -> None:
        if len(master) != MASTER_BYTES:
            raise ConfigurationError(f"A master key has {MASTER_BYTES} bytes, this one {len(master)}.")
        self._master = master
        self._cipher = AESGCM(self._derive("text encryption"))
        self._pseudonym_key = self._derive("pseudonyms")
        self._digest_key = self._derive("content digests")

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
        return cls(_parse(path, content))

    def encrypt(self, text: str) -> bytes:
        """Scheme byte, nonce, ciphertext and tag. Lone surrogates, which UTF-8 cannot hold, become `?`."""
        nonce = os.urandom(NONCE_BYTES)
        return _SCHEME + nonce + self._cipher.encrypt(nonce, text.encode("utf-8", "replace"), _SCHEME)

    def decrypt(self, data: bytes) -> str:
        """The text of `encrypt`'s bytes. Raises KeyMismatchError if they were made by another key or changed."""
        nonce_end = len(_SCHEME) + NONCE_BYTES
        try:
            if data[: len(_SCHEME)] != _SCHEME or len(data) < nonce_end:
                raise InvalidTag
            return self._cipher.decrypt(data[len(_SCHEME) : nonce_end], data[nonce_end:], _SCHEME).decode("utf-8")
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


def _parse(path: Path, content: str) -> bytes:
    malformed = ConfigurationError(f"The key file {path} is malformed; bring back the original from your backup.")
    try:
        values = json.loads(content)
        version, master = values["version"], base64.b64decode(values["master"], validate=True)
    except (ValueError, KeyError, TypeError) as error:
        raise malformed from error
    if version != KEY_FILE_VERSION:
        raise ConfigurationError(
            f"The key file {path} has version {version!r}; this nocap reads version {KEY_FILE_VERSION}: update nocap."
        )
    if len(master) != MASTER_BYTES:
        raise malformed
    return master


def _write_once(path: Path, content: str) -> None:
    """Either the whole file is there (mode 0600) or none; raises FileExistsError rather than overwrite."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
