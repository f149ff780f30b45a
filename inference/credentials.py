"""The bearer tokens of the inference backend."""

from __future__ import annotations

from dataclasses import dataclass

from nocap.settings import Settings
from storage.crypto import Keyring


@dataclass(frozen=True, slots=True)
class Tokens:
    """`user` may chat, `admin` may load and unload adapters too."""

    user: str
    admin: str


def backend_tokens(settings: Settings, keyring: Keyring) -> Tokens:
    """Those of the settings, or those that every process with the key file works out for itself."""
    user, admin = settings.inference.user_token, settings.inference.admin_token
    return Tokens(
        user.get_secret_value() if user else keyring.derived_token("user"),
        admin.get_secret_value() if admin else keyring.derived_token("admin"),
    )
