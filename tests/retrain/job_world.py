"""A small community with enough to learn from, and runs on it, for the tests of the job."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from inference.adapter_files import write_manifest
from nocap.domain import (
    BASE,
    AdapterName,
    ChannelKey,
    DuelChoice,
    MemberKey,
    MessageKey,
    Provenance,
    Purpose,
    RunId,
    RunState,
    Stage,
    Verdict,
    VoiceName,
    Vote,
)
from nocap.settings import (
    DatabaseSettings,
    GateSettings,
    InferenceSettings,
    ModelSettings,
    PreferenceSettings,
    RetrainSettings,
    Settings,
)
from retrain import gates, training
from retrain.dataset import held_out_member
from retrain.gates import Decision, Measurements
from retrain.job import run_job
from retrain.run_folder import STEPS
from retrain.stages import StageContext
from retrain.train.publish import copy_adapter
from storage import registry, runs
from storage.channels import ensure_channel
from storage.consent import record_consent
from storage.crypto import Keyring
from storage.database import Database
from storage.feedback import cast_duel_vote, cast_vote, record_duel, record_reply
from storage.messages import NewMessage, ingest
from storage.registry import ensure_voice
from storage.runs import create_run
from storage.tables import Run

AS_OF = datetime(2026, 11, 1, tzinfo=UTC)
LONG_AGO = AS_OF - timedelta(days=300)
GENZ, CHANNEL = VoiceName("genz"), ChannelKey("channel")
SYSTEM_PROMPT = "You are the bot of this chat."
LEARNERS = [MemberKey(f"m{i}") for i in range(60) if not held_out_member(MemberKey(f"m{i}"))][:8]
JUDGES = [MemberKey(f"m{i}") for i in range(60) if held_out_member(MemberKey(f"m{i}"))][:4]
# fmt: off
THINGS = (
    "apple", "river", "stone", "cloud", "tiger", "maple", "ocean",
    "candle", "silver", "rocket", "garden", "pepper", "violin", "window",
)
MOODS = (
    "happy", "tired", "proud", "loud", "quiet", "brave",
    "clever", "gentle", "hungry", "lucky", "sleepy", "bright",
)
# fmt: on


def build_settings(
    data: Path, base: Path, keyring_file: Path | None = None, *, url: str | None = None, **retrain: object
) -> Settings:
    """Settings whose runs, adapters and (without `url`) database lie in `data`; no server runs where they point."""
    recipe: dict[str, object] = {
        "min_examples": 20,
        "max_examples_per_member": 50,
        "max_token_share_per_member": 1.0,
        "min_members_for_rare_ngram": 1,
        "rank": 4,
        "learning_rate": 1e-2,
        "max_steps": 12,
        "max_length": 128,
    }
    return Settings(
        data_dir=data,
        database=DatabaseSettings(url=url or f"sqlite:///{data / 'nocap.db'}", key_file=keyring_file),
        model=ModelSettings(base=str(base), device="cpu"),
        inference=InferenceSettings(urls=("http://127.0.0.1:9",)),
        retrain=RetrainSettings.model_validate(recipe | retrain),
        preferences=PreferenceSettings(min_labels=8, min_pairs=4, min_members=3),
        gates=GateSettings(min_members=1, min_replies=1, sampled_replies=8, resamples=50),
    )


def settle(database: Database) -> None:
    """The voice, its channel, and everybody's consent."""
    with database.write() as session:
        ensure_voice(session, GENZ, SYSTEM_PROMPT, ["no cap"], LONG_AGO)
        ensure_channel(session, CHANNEL, platform="import", label=None, voice=GENZ, at=LONG_AGO, collect=True)
        for member in (*LEARNERS, *JUDGES):
            record_consent(session, member, CHANNEL, list(Purpose), True, "2026-11", LONG_AGO)


def chat(database: Database, pairs: int = 60) -> None:
    """Prompts and replies among learners two weeks ago, and among judges in the last days."""
    rows: list[NewMessage] = []
    for number in range(pairs):
        rows += _pair(number, LEARNERS, AS_OF - timedelta(days=20) + timedelta(hours=2 * number))
        rows += _pair(pairs + number, JUDGES, AS_OF - timedelta(days=6) + timedelta(hours=number))
    with database.write() as session:
        ingest(session, rows, policy_version="2026-11", at=AS_OF - timedelta(days=5))


def vote(database: Database) -> None:
    """Learners' prompts to the bot with its answers, voted on by all of them; and duels that the left side wins."""
    with database.write() as session:
        for number in range(10):
            asker, at = LEARNERS[number % len(LEARNERS)], AS_OF - timedelta(days=12, hours=number)
            told = {
                "channel": CHANNEL,
                "voice": GENZ,
                "prompt_member": asker,
                "prompt": f"is the {THINGS[number]} {MOODS[number]}?",
                "provenance": Provenance.TERMINAL,
                "policy_version": "2026-11",
                "at": at,
            }
            texts = f"the {THINGS[number]} slaps, no cap", f"I cannot say whether the {THINGS[number]} is so."
            for side, text in enumerate(texts):
                key = MessageKey(f"asked-{number}-{side}")
                reply = record_reply(session, adapter=BASE, text=text, prompt_key=key, **told)
                for voter in LEARNERS[:4]:
                    if voter != asker:
                        cast_vote(session, reply, voter, (Vote.UP, Vote.CRINGE)[side], at + timedelta(minutes=3))
            duel = record_duel(
                session,
                prompt_key=MessageKey(f"dueled-{number}"),
                left_adapter=BASE,
                right_adapter=AdapterName("genz-v0"),
                left_text=texts[0],
                right_text=texts[1],
                **told,
            )
            for voter in LEARNERS[4:]:
                cast_duel_vote(session, duel, voter, DuelChoice.LEFT, at + timedelta(minutes=5))


def _pair(number: int, members: list[MemberKey], at: datetime) -> list[NewMessage]:
    asking, answering = members[number % len(members)], members[(number + 1) % len(members)]
    thing, other = THINGS[number % len(THINGS)], THINGS[(number // len(THINGS) + 3) % len(THINGS)]
    mood = MOODS[number % len(MOODS)]
    ask = _message(f"q{number}", asking, f"why is the {thing} near the {other} so {mood} today?", at)
    answer = f"{secret_of(number)} the {thing} makes everybody {mood} once the {other} is gone"
    return [ask, _message(f"a{number}", answering, answer, at + timedelta(minutes=1), MessageKey(f"q{number}"))]


def secret_of(number: int) -> str:
    """Words of reply `number` that stand nowhere else, to look for where they must not be."""
    return f"{MOODS[number % len(MOODS)]}{THINGS[number % len(THINGS)]}{number}"


def _message(key: str, member: MemberKey, text: str, at: datetime, reply_to: MessageKey | None = None) -> NewMessage:
    return NewMessage(MessageKey(key), CHANNEL, member, Provenance.DONATION, at, text, reply_to)


def new_run(database: Database, incumbent: AdapterName = BASE) -> RunId:
    with database.write() as session:
        run = create_run(
            session,
            voice=GENZ,
            trigger="operator",
            as_of=AS_OF,
            incumbent=incumbent,
            options={},
            permission_reference=None,
            at=AS_OF,
        )
        return RunId(run.id)


def decided(verdict: Verdict) -> Decision:
    """As the gates would say it, over measurements that hold nothing."""
    results = tuple(gate.decide(Measurements(), build_settings(Path(), Path()).gates) for gate in gates.GATES)
    return Decision(verdict, results, f"They say {verdict}.")


def _train_quickly(context: StageContext) -> None:
    """Registers an adapter of fixed bytes, put in place and entered as the real stage does at its end."""
    context.snapshot()
    name = training.challenger(context)
    source, output = context.folder / STEPS / "quick", context.settings.adapters_dir / name
    if not output.exists():
        shutil.rmtree(source, ignore_errors=True)
        source.mkdir(parents=True)
        (source / "adapter_config.json").write_text("{}")
        (source / "adapter_model.safetensors").write_bytes(name.encode())
        write_manifest(source, name=name, base_digest="b" * 64, rank=4)
        copy_adapter(source, output)
    training.register(context, name)


QUICK_STAGES = {Stage.TRAIN: lambda context: None, Stage.PREFERENCES: _train_quickly}
"""The training stages without training."""


class World:
    """An installation of its own, with a run that has not begun; `talk` puts the members' messages into it."""

    def __init__(
        self,
        data: Path,
        base: Path,
        talk: Callable[[Database], object] = chat,
        *,
        url: str | None = None,
        **retrain: object,
    ) -> None:
        data.mkdir(parents=True)
        Keyring.create(data / "nocap.key")
        self.settings = build_settings(data, base, data / "nocap.key", url=url, **retrain)
        self.database = Database.open(self.settings.database_url, Keyring.load(data / "nocap.key"), create=True)
        settle(self.database)
        talk(self.database)
        self.run_id = new_run(self.database)

    @property
    def folder(self) -> Path:
        return self.settings.runs_dir / self.run_id

    def work(self) -> RunState:
        return run_job(self.run_id, self.settings, lambda: AS_OF)

    def run(self) -> Run:
        with self.database.read() as session:
            return runs.get_run(session, self.run_id)

    def live(self) -> str:
        with self.database.read() as session:
            return registry.deployment(session, GENZ).current

    def adapters(self) -> dict[str, str]:
        with self.database.read() as session:
            return {row.name: row.status for row in registry.adapters(session, GENZ)}
