"""A second voice beside the first: trained by the real stages by its own recipe, judged by the real gates at its own
thresholds, served by one engine, each from its own channels."""

from __future__ import annotations

from datetime import timedelta

import pytest

from inference.adapter_files import verify_adapter
from inference.base_model import load_base
from inference.server.engine import Engine
from inference.server.generation import GenerationRequest
from nocap.domain import (
    BASE,
    ChannelKey,
    ChatMessage,
    MessageKey,
    Purpose,
    RunState,
    SamplingOptions,
    VoiceName,
)
from nocap.settings import GateSettings, VoiceSettings
from retrain import measure
from retrain.dataset import held_out_member
from retrain.job import run_job
from storage import registry, runs
from storage.channels import ensure_channel
from storage.consent import record_consent
from storage.crypto import Keyring
from storage.database import Database
from storage.messages import NewMessage, ingest
from tests.retrain import job_world
from tests.retrain.gates import factory
from tests.retrain.job_world import AS_OF, CHANNEL, GENZ, LONG_AGO, build_settings, chat, settle

GAMER, LAN = VoiceName("gamer"), ChannelKey("lan")


@pytest.fixture
def two_voices(tmp_path, tiny_base, monkeypatch):
    """An installation with a Gen Z and a gaming community; what is measured is made up: the models are random."""
    Keyring.create(tmp_path / "nocap.key")
    own = {"gates": {"min_replies": 30}, "retrain": {"rank": 2, "schedule": "0 5 * * 3"}}
    settings = build_settings(tmp_path, tiny_base, tmp_path / "nocap.key", max_steps=30)
    gates = GateSettings(min_members=1, min_replies=1, resamples=200)
    settings = settings.model_copy(update={"gates": gates, "voices": {GAMER: VoiceSettings(**own)}})
    database = Database.open(settings.database_url, Keyring.load(tmp_path / "nocap.key"), create=True)
    settle(database)
    chat(database)
    _settle_gamers(database)
    monkeypatch.setattr(measure, "measure", lambda plan, progress: measure.Measured(factory.good(), ()))
    yield settings, database
    database.close()


def _settle_gamers(database: Database) -> None:
    rows = []
    for number in range(120):
        members = job_world.LEARNERS if number < 60 else job_world.JUDGES
        at = AS_OF - (timedelta(days=20) if number < 60 else timedelta(days=6)) + timedelta(hours=number % 60)
        asker, answerer = members[number % len(members)], members[(number + 1) % len(members)]
        thing = job_world.THINGS[number % len(job_world.THINGS)]
        mood = job_world.MOODS[number % len(job_world.MOODS)]
        asked = MessageKey(f"lan-q{number}")
        rows.append(_row(asked, asker, f"who takes the {thing} lane, {mood} one?", at))
        reply = f"gg i rush {thing} {mood} {number} then respawn"
        rows.append(_row(MessageKey(f"lan-a{number}"), answerer, reply, at + timedelta(minutes=1), asked))
    with database.write() as session:
        registry.ensure_voice(session, GAMER, "You are the bot of a gaming chat.", ["gg", "respawn"], LONG_AGO)
        ensure_channel(session, LAN, platform="import", label=None, voice=GAMER, at=LONG_AGO, collect=True)
        for member in (*job_world.LEARNERS, *job_world.JUDGES):
            record_consent(session, member, LAN, list(Purpose), True, "2026-11", LONG_AGO)
        ingest(session, rows, policy_version="2026-11", at=AS_OF - timedelta(days=5))


def _row(key, member, text, at, reply_to=None) -> NewMessage:
    return NewMessage(key, LAN, member, job_world.Provenance.DONATION, at, text, reply_to)


def _run(settings, database, voice):
    with database.write() as session:
        run_id = runs.create_run(
            session,
            voice=voice,
            trigger="operator",
            as_of=AS_OF,
            incumbent=BASE,
            options={},
            permission_reference=None,
            at=AS_OF,
        ).id
    state = run_job(run_id, settings.for_voice(voice), lambda: AS_OF)
    with database.read() as session:
        needed = {row.gate: row.evidence_needed for row in runs.gate_results(session, run_id)}
        learned = {row.message_key for row in runs.sources(session, run_id)}
        return state, learned, needed, registry.deployment(session, voice).current


def test_two_voices_learn_apart_and_are_served_side_by_side(two_voices, tiny_base):
    settings, database = two_voices
    (genz_state, of_genz, genz_needs, genz) = _run(settings, database, GENZ)
    (gamer_state, of_gamers, gamer_needs, gamer) = _run(settings, database, GAMER)
    assert (genz_state, gamer_state, genz, gamer) == (RunState.PROMOTED, RunState.PROMOTED, "genz-v1", "gamer-v1")
    assert (genz_needs["freshness"], gamer_needs["freshness"]) == (1, 30)
    manifests = [verify_adapter(settings.adapters_dir / name, base_digest=None) for name in (genz, gamer)]
    assert [one.rank for one in manifests] == [4, 2]
    assert all(key.startswith("lan-") for key in of_gamers) and not [key for key in of_genz if key.startswith("lan-")]
    assert any(not held_out_member(member) for member in job_world.LEARNERS) and CHANNEL != LAN
    asked = (ChatMessage("user", "who takes the river lane, happy one?"),)
    greedy = SamplingOptions(temperature=0.0, max_tokens=16)

    def answers(*names):
        base = load_base(str(tiny_base), quantization="nf4", device="cpu")
        with Engine(base, max_batch=8, max_queue=8, max_adapters=2, max_rank=4) as engine:
            for name in {genz, gamer} & set(names):
                engine.load_adapter(name, settings.adapters_dir / name)
            replies = engine.generate_all([GenerationRequest(name, asked, greedy) for name in names])
            return {name: reply.text for name, reply in zip(names, replies, strict=True)}

    together = answers(genz, gamer, BASE)
    assert len(set(together.values())) == 3
    assert together == {name: answers(name)[name] for name in (genz, gamer, BASE)}


def test_a_voice_of_stricter_thresholds_abstains_where_the_other_would_go_on(two_voices):
    settings, database = two_voices
    strict = VoiceSettings(gates={"min_replies": 100_000})
    settings = settings.model_copy(update={"voices": {GAMER: strict}})
    state, _, _, live = _run(settings, database, GAMER)
    assert (state, live) == (RunState.ABSTAINED, BASE)
