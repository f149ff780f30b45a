"""The settings tree: read once in the entry point (`load_settings`), then passed down.

Order of precedence: command line, environment (`NOCAP_SECTION__FIELD`), files of these names in the folder that
NOCAP_SECRETS_DIR names (container secrets, systemd credentials), `nocap.toml`, the defaults below.
Relative paths are taken from the folder of the settings file.
"""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NestedSecretsSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from nocap.domain import SamplingOptions
from nocap.errors import ConfigurationError

EMBEDDED_BASE = Path(__file__).parent / "demo" / "base"
"""The folder of the tiny instruct model that ships with the package (`model.base = "embedded"`)."""

SECRETS_DIR = "NOCAP_SECRETS_DIR"

PLACEHOLDER_SECRETS = frozenset({"changeme", "change-me", "secret", "token", "your-token", "xxx", "password"})

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """A part of the tree; an unknown key is an error, so that a typing mistake never goes unnoticed."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @field_validator("*", mode="after")
    @classmethod
    def _refuse_placeholder_secrets(cls, value: Any) -> Any:
        secrets = [
            one for one in (value.values() if isinstance(value, dict) else [value]) if isinstance(one, SecretStr)
        ]
        if any(one.get_secret_value().strip().lower() in PLACEHOLDER_SECRETS for one in secrets):
            raise ValueError("is a placeholder; put the real secret there or remove the line")
        return value


class DatabaseSettings(Section):
    url: str | None = None
    """SQLAlchemy URL; none means `sqlite:///<data_dir>/nocap.db`. PostgreSQL: `postgresql+psycopg://…`."""
    key_file: Path | None = None
    """Holds the encryption and pseudonym keys (mode 0600); none means `<data_dir>/nocap.key`."""


class ModelSettings(Section):
    base: str = "embedded"
    """`embedded`, a local folder, or a hub name such as `Qwen/Qwen2.5-7B-Instruct`."""
    quantization: Literal["nf4", "none"] = "nf4"
    """How the base is held while training, and while serving unless `inference.quantization` says otherwise; NF4 with
    double quantisation (Dettmers et al. 2023)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"


class InferenceSettings(Section):
    backend: Literal["embedded", "vllm", "tgi", "openai"] = "embedded"
    quantization: Literal["nf4", "none"] | None = None
    """How the base is held where it serves, which is how gates measure; none means as `model.quantization`. vLLM holds
    it in bf16: `none`."""
    model_name: str = "{adapter}"
    """What the backend calls an adapter; `{adapter}` stands for its name."""
    base_model_name: str | None = None
    """What the backend calls its bare base model; none means `base`, and `tgi` for TGI."""
    urls: tuple[str, ...] = ("http://127.0.0.1:8651",)
    """One URL per replica, without `/v1`."""
    host: str = "127.0.0.1"
    """Where `nocap serve` listens."""
    port: int = 8651
    user_token: SecretStr | None = None
    admin_token: SecretStr | None = None
    """Needed to load and unload adapters; none means that the key file's derived token is used."""
    timeout_seconds: float = 60.0
    deadline_seconds: float = 180.0
    """After which the embedded server gives up a reply that is not finished."""
    max_batch: int = 32
    """Requests decoded together by the embedded server."""
    max_queue: int = 256
    """Waiting requests beyond which the embedded server answers 429."""
    max_adapters: int = 4
    """Adapter slots of the embedded server: current, previous, canary and one to spare."""
    max_rank: int = 16
    signing_key_file: Path | None = None
    """With it a trainer signs its adapters (Ed25519, mode 0600; `nocap keys signing` makes one)."""
    trusted_signer: str | None = None
    """A public key in hex: servers and promotions then refuse adapters that it did not sign."""
    prefix_cache_mib: int = 256
    """Memory of the embedded server for prompts read before (57 KB a token for Qwen2.5-7B in bf16); 0 turns it off."""

    @field_validator("model_name")
    @classmethod
    def _name_holds_the_adapter(cls, value: str) -> str:
        if value.count("{adapter}") != 1 or set("{}") & set(value.replace("{adapter}", "")):
            raise ValueError("must hold {adapter} once, or every adapter would be asked for by the same name")
        return value


class ChatSettings(Section):
    temperature: float = 0.8
    top_p: Share = 0.95
    max_reply_tokens: int = 96
    context_turns: int = 6
    """Earlier messages of the channel that a prompt may hold; kept in memory, never written without consent."""
    glossary_tokens: int = 120
    """Token budget of the approved slang glossary in the system prompt; 0 leaves it out."""
    turns_per_minute: int = 12
    """Per member; more get a friendly sentence."""
    channel_turns_per_minute: int = 60
    """Per channel, all its members together."""
    total_turns_per_minute: int = 1200
    """Over all channels of this process: what the inference backend is spared."""

    @property
    def sampling(self) -> SamplingOptions:
        """How a reply is drawn, in chat and wherever it is imitated."""
        return SamplingOptions(self.temperature, self.top_p, self.max_reply_tokens)


class RetrainSettings(Section):
    schedule: str | None = "0 4 * * 1"
    """Crontab in UTC; none means by operators only."""
    runs_in: Literal["process", "worker"] = "process"
    """Where a run that is started here works: in a process beside, or wherever `nocap retrain work` or a scheduler that
    has torch takes it up; until then it waits in the database."""
    after_new_rows: int | None = None
    """Also start once so many more rows may train than the last run knew; looked at every hour."""
    after_drift: Annotated[float | None, Field(gt=0.0, lt=1.0)] = None
    """Also start once the talk has surely moved away from what the last promoted run learnt, by this share of what the
    data-drift gate allows (0.4: an area of 0.6, or 0.08 bits); looked at daily, at most one start a week."""
    window_days: int = 28
    evaluation_days: int = 7
    """The newest days, whose replies by held-out members judge the adapter."""
    replay_share: Share = 0.2
    """Share of older consented rows."""
    base_reply_share: Share = 0.1
    """Share of the base model's own replies, against forgetting."""
    quarantine_hours: float = 72.0
    trusted_after_days: float = 30.0
    """What a few members who are known for less repeat, and nobody else says, is not learnt yet."""
    max_examples_per_member: int = 10
    max_token_share_per_member: Share = 0.005
    """At least one example per member is always allowed."""
    min_members_for_rare_ngram: int = 3
    max_examples: int = 10_000
    min_examples: int = 200
    """Fewer eligible examples end the run as "nothing to learn"."""
    targets: Literal["all-linear", "attention"] = "all-linear"
    rank: int = 8
    alpha: int = 16
    learning_rate: float = 1e-4
    epochs: float = 2.0
    max_steps: int | None = None
    batch_examples: int = 16
    """Effective batch: micro-batch times accumulation."""
    max_length: int = 1024
    """Tokens of one packed training row."""
    seed: int = 7
    accelerate_config: Path | None = None
    """A file of `accelerate config`: the supervised training is divided among its processes, one a card."""
    gpu: Literal["share", "pause"] = "share"
    """`pause`: the embedded servers of `inference.urls` free their card while a run trains and measures, and bots say
    so; `share` leaves them alone."""
    price_per_hour: float = 0.34
    """Of the machine that trains, in `currency`; the default is an RTX 4090's rent, as in the founding run."""
    currency: str = "USD"
    budget_money: float | None = None
    """In `currency`, of one run: a plan that would cost more is refused, and a run that does is stopped."""
    budget_minutes: float | None = None
    """Likewise, of time."""
    watts: float = 65.0
    """Assumed draw where no energy counter can be read; such figures are marked as estimates."""


class PreferenceSettings(Section):
    """Votes and duels as a second teacher, after the supervised training and within the same run."""

    min_labels: int = 300
    """Voted replies that KTO needs; with fewer the run trains without it."""
    min_pairs: int = 100
    """Decided duels that DPO needs; with fewer the run trains without it."""
    min_members: int = 30
    """Distinct voters that either needs."""
    window_days: int = 84
    """How old a voted answer may be."""
    trusted_after_days: float = 7.0
    """Votes of members who are known for less do not count."""
    max_votes_per_member: int = 30
    kto_learning_rate: float = 5e-6
    dpo_learning_rate: float = 5e-6
    beta: float = 0.1
    """How closely the adapter is held to what supervised training made of it."""
    epochs: float = 1.0


class GateSettings(Section):
    alpha: Share = 0.05
    """Level of every gate in the intersection-union test (Berger 1982): the chance of promoting a bad adapter."""
    min_members: int = 40
    min_replies: int = 1000
    """Held-out human replies, of at least `min_members` members: 40 x 25 in the design; fewer and the gate abstains."""
    max_replies_per_member: int = 50
    """More of one member's are not counted, so that nobody is the community."""
    sampled_replies: int = 500
    """Replies drawn from each adapter for the gates that read answers."""
    resamples: int = 2000
    """Bootstrap resamples, by member."""


class PrivacySettings(Section):
    retire_within_days: float = Field(default=14.0, gt=0)
    """After an erasure, when an adapter that learnt from it is out of service at the latest."""
    minimum_age: int | None = Field(default=None, ge=1, le=120)
    """Years; where set, a yes in chat must say “I am N or older and agree”. Set it together with a new
    `policy_version`, so that those who agreed before are asked again."""
    drop_on_doubt: bool = False
    """Store no text in which a word may be a name and may be not (`Will`, `Jordan`, a surname alone)."""


Days = Annotated[float | None, Field(gt=0)]


class RetentionSettings(Section):
    """What is older goes at the scheduler's next round; none keeps it until its member or an operator erases it."""

    messages_days: Days = 365.0
    """Members' messages, by when they were sent; operators' seeds stay."""
    reply_texts_days: Days = 90.0
    """Prompts and answers of replies and duels; their votes still count in the statistics."""
    votes_days: Days = 365.0
    """Votes, with the replies and duels that they were cast on."""
    run_files_days: Days = 180.0
    """Folders of runs that are over and whose adapter is not deployed; the run's row and verdicts stay."""


class CanarySettings(Section):
    share: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Of a voice's channels that an adapter answers in before it is promoted; 0 promotes it as soon as its gates pass.
    0.1 to 0.25 suits a community that duels."""
    min_voters: int = 20
    """Known members whose duel votes it takes at least."""
    min_hours: float = 48.0
    max_hours: float = 336.0
    """After which a canary that was not shown to be preferred is withdrawn."""
    slow_seconds: float = 10.0
    """A whole answer that takes longer counts as slow."""
    check_seconds: float = 60.0
    """How often the scheduler looks at a canary."""
    alpha: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.05
    """The chance of promoting one that members do not prefer, and that of withdrawing one for harm it does not do."""


class BotsSettings(Section):
    edit_seconds: float = 1.2
    """Between two edits of a streaming answer; Discord bears one a second."""
    votes_per_minute: int = 30
    """Per member, duels included; more are not counted."""
    reports_per_hour: int = 10
    """Per member."""
    notice_poll_seconds: float = 20.0
    """How often ended runs are looked for, to be announced in the notice chats."""


class DiscordSettings(Section):
    token: SecretStr | None = None
    """Of the bot that speaks in `voice`; none means there is no Discord bot."""
    voices: dict[str, SecretStr] = {}
    """More bots in the same process: voice name = token."""
    operators: tuple[int, ...] = ()
    """User ids that may use `/nocap`; a server's administrators are not among them by themselves."""
    servers: tuple[int, ...] = ()
    """Only these servers are served; empty means every one that invites the bot, and that any of their moderators
    may review the voice's glossary, which all its chats share."""
    notice_channel: int | None = None
    """Channel id in which operators are told that a run ended, was refused, or a canary was withdrawn."""
    message_content: bool = False
    """Ask for the privileged Message Content intent; only `/channel mode always` and channels that collect need it."""
    api_base: str = "https://discord.com/api/v10"
    """A proxy or a compatible server, without a slash at the end."""
    gateway_url: str | None = None
    """Overrides the gateway's address, such as `wss://gateway.discord.gg`; none means what the API names."""
    shards: int | None = None
    """Of all processes together; none means what Discord recommends."""
    shard_ids: tuple[int, ...] = ()
    """The shards of this process; empty means all of them."""
    training_permission_reference: str | None = None
    """Discord's written permission to train on message content; without it such rows are never eligible."""


class TelegramSettings(Section):
    token: SecretStr | None = None
    """Of the bot that speaks in `voice`; none means there is no Telegram bot."""
    voices: dict[str, SecretStr] = {}
    """More bots in the same process: voice name = token."""
    operators: tuple[int, ...] = ()
    """User ids that may use `/nocap`; a group's administrators are not among them by themselves."""
    chats: tuple[int, ...] = ()
    """Only these groups are served (private chats always are); empty means every one that adds the bot, and that any
    of their administrators may review the voice's glossary, which all its chats share."""
    notice_chat: int | None = None
    """Chat id in which operators are told that a run ended, was refused, or a canary was withdrawn."""
    base_url: str = "https://api.telegram.org"
    """A local Bot API server or a compatible one; `/bot<token>` is put behind it."""
    messages_per_second: float = 30.0
    """Over all chats: Telegram's limit. More only with paid broadcasts, or on a server that bears it."""
    webhook_url: str | None = None
    """Public address that Telegram calls; none means long polling."""
    webhook_host: str = "127.0.0.1"
    """Where the webhook listens, behind the proxy that ends TLS."""
    webhook_port: int = 8660
    webhook_secret: SecretStr | None = None
    """Sent by Telegram with every update; none means that one is derived from the key file."""


class VoiceSettings(Section):
    """What one voice has otherwise than the others: any fields of these sections, the rest as in the sections."""

    retrain: dict[str, Any] = {}
    preferences: dict[str, Any] = {}
    gates: dict[str, Any] = {}
    canary: dict[str, Any] = {}


class MetricsSettings(Section):
    host: str = "127.0.0.1"
    """Where processes without a web server of their own serve `/metrics`, `/healthz` and `/readyz`."""
    schedule_port: int | None = 8652
    """The scheduler's, with the installation's figures too; none serves nothing. The server has its own (8651)."""
    bots_port: int | None = 8653
    """The bots'. With both platforms, their processes take the next two ports on loopback."""


class Settings(BaseSettings):
    """Everything that can be configured."""

    model_config = SettingsConfigDict(
        env_prefix="NOCAP_",
        env_nested_delimiter="__",
        env_parse_none_str="null",
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    data_dir: Path = Path("data")
    """Database, key, adapters and runs live here."""
    voice: str = "genz"
    """The voice that a new channel speaks in."""
    policy_version: str = "2026-11"
    """Of the privacy text that members agree to; a new value asks everyone again."""
    database: DatabaseSettings = DatabaseSettings()
    model: ModelSettings = ModelSettings()
    inference: InferenceSettings = InferenceSettings()
    chat: ChatSettings = ChatSettings()
    retrain: RetrainSettings = RetrainSettings()
    preferences: PreferenceSettings = PreferenceSettings()
    gates: GateSettings = GateSettings()
    privacy: PrivacySettings = PrivacySettings()
    retention: RetentionSettings = RetentionSettings()
    canary: CanarySettings = CanarySettings()
    bots: BotsSettings = BotsSettings()
    discord: DiscordSettings = DiscordSettings()
    telegram: TelegramSettings = TelegramSettings()
    metrics: MetricsSettings = MetricsSettings()
    voices: dict[str, VoiceSettings] = {}
    """By voice, such as `[voices.gamer.retrain]` with a `schedule` of its own, or `[voices.gamer.gates]`."""

    @model_validator(mode="after")
    def _voices_fit_their_sections(self) -> Settings:
        for voice in self.voices:
            self.for_voice(voice)
        return self

    def for_voice(self, voice: str) -> Settings:
        """These settings with what `voice` has of its own in place of what is shared."""
        own = self.voices.get(voice)
        if own is None:
            return self
        changed: dict[str, Any] = {"voices": {}}
        for name in type(own).model_fields:
            section: BaseModel = getattr(self, name)
            try:
                changed[name] = type(section).model_validate(section.model_dump() | getattr(own, name))
            except ValidationError as error:
                problem = error.errors()[0]
                field = ".".join(str(part) for part in problem["loc"])
                raise ValueError(f"voices.{voice}.{name}.{field}: {problem['msg']}") from error
        return self.model_copy(update=changed)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        secrets = os.environ.get(SECRETS_DIR)
        if secrets is None:
            return env_settings, init_settings
        if not Path(secrets).is_dir():
            raise ConfigurationError(f"{SECRETS_DIR} names {secrets}, which is no folder; mount the secrets there.")
        files = NestedSecretsSettingsSource(
            file_secret_settings, secrets_dir=secrets, secrets_nested_delimiter="__", env_prefix="NOCAP_"
        )
        return env_settings, files, init_settings

    @property
    def served_quantization(self) -> Literal["nf4", "none"]:
        """How the base is held where it answers members, and where answers are measured."""
        return self.inference.quantization or self.model.quantization

    @property
    def database_url(self) -> str:
        return self.database.url or f"sqlite:///{self.data_dir / 'nocap.db'}"

    @property
    def key_file(self) -> Path:
        return self.database.key_file or self.data_dir / "nocap.key"

    @property
    def adapters_dir(self) -> Path:
        return self.data_dir / "adapters"

    @property
    def runs_dir(self) -> Path:
        return self.data_dir / "runs"

    @property
    def base_path(self) -> str:
        """What transformers' `from_pretrained` is given."""
        return str(EMBEDDED_BASE) if self.model.base == "embedded" else self.model.base


def load_settings(file: Path | None = None, **overrides: Any) -> Settings:
    """The settings of `file` (or `nocap.toml` in the working folder, if any), overridden by top-level `overrides`.

    Raises ConfigurationError with the file, the key and what is wrong with it.
    """
    path = (file or Path("nocap.toml")).absolute()
    if file is not None and not path.is_file():
        raise ConfigurationError(f"There is no settings file {path}; write one with `nocap init`.")
    values: dict[str, Any] = {}
    if path.is_file():
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
            raise ConfigurationError(f"{path} cannot be read: {error}. Mend that line and try again.") from error
    try:
        settings = Settings(**values).model_copy(update=overrides)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise ConfigurationError(f"{path if values else 'The settings'}: `{where}`: {problem['msg']}.") from error
    return _with_absolute_paths(settings, path.parent)


def _with_absolute_paths(settings: Settings, folder: Path) -> Settings:
    key_file = settings.database.key_file
    database = settings.database.model_copy(
        update={"key_file": folder / key_file.expanduser() if key_file is not None else None}
    )
    signing = settings.inference.signing_key_file
    inference = settings.inference.model_copy(
        update={"signing_key_file": folder / signing.expanduser() if signing is not None else None}
    )
    accelerate = settings.retrain.accelerate_config
    retrain = settings.retrain.model_copy(
        update={"accelerate_config": folder / accelerate.expanduser() if accelerate is not None else None}
    )
    data_dir = folder / settings.data_dir.expanduser()
    return settings.model_copy(
        update={"data_dir": data_dir, "database": database, "inference": inference, "retrain": retrain}
    )


def render_settings_file(settings: Settings, folder: Path) -> str:
    """A commented `nocap.toml`: every setting with its default, its meaning, and unset ones commented out."""
    lines = ["# nocap: every setting, with its default. Environment variables NOCAP_SECTION__FIELD come first.", ""]
    sections: list[tuple[str, BaseModel]] = []
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, Section):
            sections.append((name, value))
        else:
            lines += _setting_lines(name, value, field.description, folder)
    for section, model in sections:
        lines += ["", f"[{section}]"]
        for name, field in type(model).model_fields.items():
            lines += _setting_lines(name, getattr(model, name), field.description, folder)
    return "\n".join(lines) + "\n"


def _setting_lines(name: str, value: Any, description: str | None, folder: Path) -> list[str]:
    comment = [f"# {line}" for line in (description or "").splitlines()]
    if value is None or isinstance(value, SecretStr):
        return [*comment, f'# {name} = ""']
    if isinstance(value, dict):
        return [*comment, f"# {name} = {{}}"]
    if isinstance(value, Path):
        value = str(value.relative_to(folder)) if value.is_relative_to(folder) else str(value)
    if isinstance(value, bool):
        return [*comment, f"{name} = {str(value).lower()}"]
    if isinstance(value, tuple):
        value = list(value)
    return [*comment, f"{name} = {json.dumps(value)}"]
