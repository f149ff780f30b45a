"""Composition: what is opened, started and wired together for a command or a long-running process."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
import tomllib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import httpx

from bots.conversation import Conversation
from inference.credentials import backend_tokens
from inference.responder import connect
from nocap.domain import AdapterName, Clock, VoiceName, utc_now
from nocap.errors import BackendUnavailable, ConfigurationError, StorageError
from nocap.settings import Settings, render_settings_file
from retrain import promote
from retrain.job import PROCESS_ENVIRONMENT
from retrain.promote import LiveBackend
from storage import registry
from storage.crypto import Keyring
from storage.database import Database
from storage.pointers import LivePointers

SERVER_START_SECONDS = 120.0


@dataclass(frozen=True)
class VoiceFile:
    """A voice as it is written down: its prompt and its seed lexicon."""

    name: VoiceName
    system_prompt: str
    lexicon: tuple[str, ...]


def read_voice(file: Path | None = None) -> VoiceFile:
    """The voice in a TOML file (`name`, `system_prompt`, `lexicon`); the Gen Z voice that ships where none is given."""
    text = (file or resources.files("nocap.voices") / "genz.toml").read_text(encoding="utf-8")
    try:
        values = tomllib.loads(text)
        return VoiceFile(VoiceName(values["name"]), values["system_prompt"], tuple(values["lexicon"]))
    except (tomllib.TOMLDecodeError, KeyError) as error:
        raise ConfigurationError(f"The voice file {file} lacks {error}; see nocap/voices/genz.toml.") from error


def initialise(settings: Settings, settings_file: Path, *, clock: Clock = utc_now) -> list[str]:
    """Creates what is missing (settings file, key, database, voice), keeps what is there, and says which it did."""
    done = []
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    if not settings_file.exists():
        settings_file.write_text(render_settings_file(settings, settings_file.parent), encoding="utf-8")
        done.append(f"wrote {settings_file}, every setting with its default")
    if not settings.key_file.exists():
        if settings.database_url.startswith("sqlite") and Path(settings.database_url[10:]).exists():
            raise StorageError(
                f"The database is there but its key {settings.key_file} is not; put the key file back: without it"
                " the texts cannot be read."
            )
        Keyring.create(settings.key_file)
        done.append(f"wrote the key file {settings.key_file} (keep a copy apart from the database)")
    database = open_database(settings, create=True)
    voice = read_voice()
    with database.write() as session:
        registry.ensure_voice(session, voice.name, voice.system_prompt, list(voice.lexicon), clock())
    database.close()
    done.append(f"database ready, voice {voice.name} speaks with the base model {settings.model.base}")
    return done


def open_database(settings: Settings, *, create: bool = False) -> Database:
    """The opened database. Raises ConfigurationError or StorageError with what to do."""
    return Database.open(settings.database_url, Keyring.load(settings.key_file), create=create)


def deployed_adapters(database: Database) -> list[AdapterName]:
    """Every adapter that some voice serves or may roll back to: what a starting server loads."""
    with database.read() as session:
        return registry.deployed_adapters(session)


@asynccontextmanager
async def open_conversation(
    settings: Settings, database: Database, *, clock: Clock = utc_now, seed: int | None = None
) -> AsyncIterator[Conversation]:
    """A conversation wired to the configured backend; its connections are closed at the end."""
    tokens = backend_tokens(settings, Keyring.load(settings.key_file))
    pointers = LivePointers(database)
    async with connect(settings, pointers.read, user_token=tokens.user, admin_token=tokens.admin) as responder:
        conversation = Conversation(database, responder, settings, clock, seed=seed)
        waiting = asyncio.create_task(conversation.write_waiting_votes())
        try:
            yield conversation
        finally:
            waiting.cancel()


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready", timeout=2.0).status_code == 200
    except httpx.HTTPError:
        return False


def live_backend(settings: Settings) -> LiveBackend | None:
    """The running backend to load adapters on; None where the embedded server is not up."""
    tokens = backend_tokens(settings, Keyring.load(settings.key_file))
    return promote.live_backend(settings, user_token=tokens.user, admin_token=tokens.admin)


@contextmanager
def running_server(settings: Settings, command: list[str]) -> Iterator[None]:
    """Within it the configured backend answers: an embedded one that is not up is started and stopped again."""
    if settings.inference.backend != "embedded" or is_ready(settings.inference.urls[0]):
        yield
        return
    log = settings.data_dir / "server.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*command, "serve"],
            env=PROCESS_ENVIRONMENT | dict(os.environ),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _wait_until_ready(process, settings.inference.urls[0], log)
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + SERVER_START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise BackendUnavailable(f"The embedded server ended with status {process.returncode}; {log} says why.")
        if is_ready(url):
            return
        time.sleep(0.1)
    raise BackendUnavailable(f"The embedded server is not ready after {SERVER_START_SECONDS:.0f} s; see {log}.")
