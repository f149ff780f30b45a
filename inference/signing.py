"""Adapters signed with the operator's Ed25519 key: who may put an adapter onto a server, beyond who can write a file.

The signature is over the bytes of the manifest, which holds the SHA-256 of every file, and lies beside it.
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from inference.adapter_files import MANIFEST, SIGNATURE
from nocap.errors import AdapterError, ConfigurationError


def create_signing_key(path: Path) -> str:
    """Writes a new private key (mode 0600) to `path`; returns its public half in hex, for `inference.trusted_signer`.

    Raises ConfigurationError where the file exists.
    """
    key = Ed25519PrivateKey.generate()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise ConfigurationError(f"{path} exists already; a signing key is never overwritten.") from error
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(key.private_bytes_raw().hex() + "\n")
    return key.public_key().public_bytes_raw().hex()


def sign_adapter(folder: Path, key_file: Path) -> None:
    """Writes the signature of the adapter in `folder`, which has its manifest; signing again changes nothing.

    Raises ConfigurationError for a key file that is missing, malformed or open to other users.
    """
    signature = _load(key_file).sign((folder / MANIFEST).read_bytes())
    if not (folder / SIGNATURE).exists():
        (folder / SIGNATURE).write_text(signature.hex() + "\n", encoding="ascii")
        (folder / SIGNATURE).chmod(0o444)


def require_signature(folder: Path, signer: str) -> None:
    """Raises AdapterError unless the manifest in `folder` is signed by `signer` (a public key in hex)."""
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(signer))
    except ValueError as error:
        raise ConfigurationError(
            "`inference.trusted_signer` is no public key; take the 64 hex digits that `nocap keys signing` printed."
        ) from error
    try:
        signature = bytes.fromhex((folder / SIGNATURE).read_text(encoding="ascii"))
        key.verify(signature, (folder / MANIFEST).read_bytes())
    except (OSError, ValueError, InvalidSignature) as error:
        state = "is not signed" if isinstance(error, FileNotFoundError) else "has a signature that does not fit"
        raise AdapterError(
            f"The adapter in {folder} {state}, and `inference.trusted_signer` is set; retrain it with the operator's"
            " `inference.signing_key_file`, or take it from where it was signed."
        ) from error


def _load(path: Path) -> Ed25519PrivateKey:
    try:
        mode, content = path.stat().st_mode, path.read_text(encoding="ascii")
        key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(content.strip()))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"The signing key {path} is missing or malformed; `nocap keys signing`.") from error
    if mode & 0o077:
        raise ConfigurationError(f"The signing key {path} is open to other users; run `chmod 600 {path}`.")
    return key
