"""Composition: what is opened, started and wired together for a command or a long-running process."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import structlog
from pydantic import SecretStr

from bots.conversation import Conversation
from bots.core import BotCore, Connection, build_core
from inference.credentials import backend_tokens
from inference.responder import RoutedResponder, connect
from nocap.domain import AdapterName, Clock, VoiceName, utc_now
from nocap.errors import BackendUnavailable, ConfigurationError, NocapError, StorageError
from nocap.operators import BotOperators
from nocap.settings import DiscordSettings, Settings, TelegramSettings, render_settings_file
from storage import registry
from storage.crypto import Keyring
from storage.database import Database
from storage.outbox import VoteOutbox
from storage.pointers import LivePointers

if TYPE_CHECKING:
    from retrain.promote import LiveBackend
    from retrain.trial import CanaryPhases

# What trains is imported by those who need it: a bot process stays small without it.
SERVER_START_SECONDS = 120.0
LONGEST_BOT_PAUSE_SECONDS = 60.0
WAITING_VOTES_SECONDS = 5.0

RunBot = Callable[[BotCore, str], Awaitable[None]]
"""Runs one bot with its token until cancelled. Raises ConfigurationError for what only the operator can mend."""


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
    async with _connected(settings, database) as responder:
        yield Conversation(database, responder, settings, clock, seed=seed)


@asynccontextmanager
async def _connected(settings: Settings, database: Database) -> AsyncIterator[RoutedResponder]:
    """A responder that sees every promotion; meanwhile votes that waited are written once the database is back."""
    tokens = backend_tokens(settings, Keyring.load(settings.key_file))
    waiting = asyncio.create_task(_write_waiting_votes(VoteOutbox(database, settings.data_dir)))
    pointers = LivePointers(database)
    try:
        async with connect(settings, pointers.read, user_token=tokens.user, admin_token=tokens.admin) as responder:
            yield responder
    finally:
        waiting.cancel()


async def _write_waiting_votes(outbox: VoteOutbox) -> None:
    while True:
        await asyncio.sleep(WAITING_VOTES_SECONDS)
        try:
            await asyncio.to_thread(outbox.flush)
        except Exception as error:
            structlog.get_logger("bots").error("votes still wait", error=type(error).__name__)


@dataclass(frozen=True)
class BotPlan:
    """A bot that the settings ask for."""

    platform: str
    voice: VoiceName
    token: SecretStr
    run: RunBot


def bot_platforms(settings: Settings) -> list[str]:
    """The platforms on which some bot has a token."""
    sections: dict[str, DiscordSettings | TelegramSettings] = {
        "discord": settings.discord,
        "telegram": settings.telegram,
    }
    return [name for name, section in sections.items() if section.token or section.voices]


def starts_runs(settings: Settings) -> bool:
    """Whether a retrain of some voice starts by itself."""
    own = [settings.retrain, *(settings.for_voice(voice).retrain for voice in settings.voices)]
    return any(one.schedule or one.after_new_rows is not None or one.after_drift is not None for one in own)


def configured_bots(settings: Settings, platforms: Collection[str]) -> list[BotPlan]:
    """Every bot that has a token on one of these platforms; only their libraries are imported."""
    plans = []
    if "discord" in platforms:
        from bots.discord.bot import run_discord

        plans += _plans("discord", settings, settings.discord, run_discord)
    if "telegram" in platforms:
        from bots.telegram.bot import run_telegram

        plans += _plans("telegram", settings, settings.telegram, run_telegram)
    return plans


class BotHealth:
    """Whether the bots can do all of their work: each hears its platform, and database and backend answer."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._bots: dict[str, tuple[Connection, str | None]] = {}

    def note(self, plan: BotPlan, core: BotCore, cause: str | None) -> None:
        """That the bot runs, or why it does not."""
        self._bots[f"{plan.platform} {plan.voice}"] = core.connection, cause

    def not_ready(self) -> str | None:
        """Every reason why not; asked on any thread, and it asks database and backend."""
        bots = dict(self._bots)
        causes = [f"{name}: {cause}" for name, (_, cause) in bots.items() if cause]
        causes += [f"{name}: not connected" for name, (one, cause) in bots.items() if not (cause or one.is_up())]
        if not bots:
            causes.append("no bot has started yet")
        if away := self._database.why_away():
            causes.append(away)
        if not any(_can_answer(self._settings, url) for url in self._settings.inference.urls):
            causes.append(f"no inference replica answers at {', '.join(self._settings.inference.urls)}")
        return "; ".join(causes) or None


async def run_bots(
    settings: Settings,
    database: Database,
    platforms: Collection[str],
    *,
    clock: Clock = utc_now,
    health: BotHealth | None = None,
) -> None:
    """Runs every bot configured for these platforms until cancelled; one that cannot go on leaves the others alone.

    Raises ConfigurationError where none is configured or every one of them is refused for good.
    """
    plans = configured_bots(settings, platforms)
    if not plans:
        raise ConfigurationError("No bot is configured; set `discord.token` or `telegram.token` (docs/bots.md).")
    operators = BotOperators(database, settings, clock, lambda: live_backend(settings))
    health = health or BotHealth(settings, database)
    async with _connected(settings, database) as responder, asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(
                _keep_running(
                    plan,
                    build_core(
                        plan.platform,
                        plan.voice,
                        database=database,
                        responder=responder,
                        operators=operators,
                        settings=settings,
                        clock=clock,
                    ),
                    health,
                )
            )
            for plan in plans
        ]
    raise next(error for task in tasks if (error := task.result()) is not None)


def _plans(
    platform: str, settings: Settings, section: DiscordSettings | TelegramSettings, run: RunBot
) -> list[BotPlan]:
    tokens = {settings.voice: section.token} if section.token else {}
    return [BotPlan(platform, VoiceName(voice), token, run) for voice, token in (tokens | section.voices).items()]


async def _keep_running(plan: BotPlan, core: BotCore, health: BotHealth) -> ConfigurationError:
    """Runs the bot again whenever it fails, later each time; what only the operator can mend ends it."""
    log = structlog.get_logger("bots").bind(platform=plan.platform, voice=plan.voice)
    pause_seconds = 1.0
    while True:
        started = time.monotonic()
        health.note(plan, core, None)
        try:
            await plan.run(core, plan.token.get_secret_value())
            log.warning("ended", again_in_seconds=pause_seconds)
        except ConfigurationError as error:
            log.error("refused", cause=str(error))
            health.note(plan, core, "refused")
            return error
        except Exception as error:
            # A library's own words may hold a token or a member's text; ours never do.
            cause = str(error) if isinstance(error, NocapError) else _outward(error)
            log.error("failed", error=type(error).__name__, cause=cause, again_in_seconds=pause_seconds)
        health.note(plan, core, "starts again")
        if time.monotonic() - started > LONGEST_BOT_PAUSE_SECONDS:
            pause_seconds = 1.0
        await asyncio.sleep(pause_seconds)
        pause_seconds = min(2 * pause_seconds, LONGEST_BOT_PAUSE_SECONDS)


def _outward(error: Exception) -> str:
    """What can be said of an error whose words are withheld: how the platform answers, or that it does not."""
    status = getattr(error, "status", None)
    if isinstance(status, int):
        found = f"the platform answers {status}"
    elif any(isinstance(one, OSError) for one in (error, error.__cause__)):
        found = "the platform cannot be reached"
    else:
        return "not told here"
    return f"{found}; check the network and `discord.api_base` or `telegram.base_url` if it goes on"


async def until_signal(work: Coroutine[Any, Any, None]) -> None:
    """Runs `work` until it ends, or until SIGTERM or Ctrl-C cancels it."""
    task = asyncio.ensure_future(work)
    stopped_by_us = False

    def stop() -> None:
        nonlocal stopped_by_us
        stopped_by_us = True
        task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        await task
    except asyncio.CancelledError:
        if not stopped_by_us:
            raise


def _status_of(url: str) -> int | None:
    """The HTTP status that a GET of `url` has; None where nothing answers."""
    try:
        return httpx.get(url, timeout=2.0).status_code
    except httpx.HTTPError:
        return None


def _can_answer(settings: Settings, url: str) -> bool:
    """Whether the replica at `url` can answer now, as far as its dialect tells."""
    if settings.inference.backend == "embedded":
        return _status_of(f"{url}/ready") == 200
    status = _status_of(f"{url}/health")
    return status is not None and status < 500


def live_backend(settings: Settings) -> LiveBackend | None:
    """The running backend to load adapters on; None where the embedded server is not up."""
    from retrain import promote

    tokens = backend_tokens(settings, Keyring.load(settings.key_file))
    return promote.live_backend(settings, user_token=tokens.user, admin_token=tokens.admin)


def canary_phases(settings: Settings, database: Database, *, clock: Clock = utc_now) -> CanaryPhases:
    """What judges the voices' canaries, by their votes and by the configured backend's figures."""
    from retrain.trial import CanaryPhases, served_by

    token = backend_tokens(settings, Keyring.load(settings.key_file)).user
    return CanaryPhases(
        database=database,
        settings=settings,
        backend=lambda: live_backend(settings),
        served=lambda: served_by(settings.inference.urls, token, settings.canary.slow_seconds),
        clock=clock,
    )


@contextmanager
def running_server(settings: Settings, command: list[str]) -> Iterator[None]:
    """Within it the configured backend answers: an embedded one that is not up is started and stopped again."""
    # One that is paused for a retrain is up too, and says so to whoever asks it.
    if settings.inference.backend != "embedded" or _status_of(f"{settings.inference.urls[0]}/health") == 200:
        yield
        return
    from retrain.job import PROCESS_ENVIRONMENT

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
        if _status_of(f"{url}/ready") == 200:
            return
        time.sleep(0.1)
    raise BackendUnavailable(f"The embedded server is not ready after {SERVER_START_SECONDS:.0f} s; see {log}.")
