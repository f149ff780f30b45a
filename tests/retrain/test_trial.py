"""The canary phase on a database: votes promote, harm withdraws, runs end, operators are told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from bots.notices import Notices
from inference.adapter_files import write_manifest
from nocap.domain import BASE, AdapterName, AdapterStatus, ChannelKey, DuelChoice, MemberKey, RunState, VoiceName, Vote
from retrain import trial as canary_phase
from retrain.trial import CanaryPhases, Served
from storage import feedback, registry, runs
from storage.tables import Adapter, Run

START = datetime(2026, 11, 1, tzinfo=UTC)
NOW = START + timedelta(hours=72)
GENZ, V1, V2 = VoiceName("genz"), AdapterName("genz-v1"), AdapterName("genz-v2")
MEMBERS = [MemberKey(f"m{number}") for number in range(60)]


@pytest.fixture
def world(database, settings, monkeypatch):
    """A voice whose genz-v2 has been a canary for three days beside genz-v1; its run is on trial."""
    monkeypatch.setattr(canary_phase, "load_snapshot", lambda *_: None)  # the run here trained on nothing
    made = settings()
    with database.write() as session:
        registry.ensure_voice(session, GENZ, "You are a bot.", [], START)
        for name in (V1, V2):
            registry.register_adapter(session, _adapter(made, name))
        registry.move_pointer(session, GENZ, V1, actor="test", reason="first", at=START)
        _answers(session, V1, MEMBERS, START - timedelta(days=3))
        registry.set_canary(session, GENZ, V2, 0.2, actor="test", at=START)
        run = Run(
            id="run-genz-v2", voice=GENZ, state=RunState.ON_TRIAL, trigger="operator", as_of=START, created_at=START,
            incumbent=V1, challenger=V2,
        )  # fmt: skip
        session.add(run)
    return database, made


def _adapter(settings, name: AdapterName) -> Adapter:
    folder = settings.adapters_dir / name
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(name.encode())
    (settings.runs_dir / f"run-{name}").mkdir(parents=True)
    digest = write_manifest(folder, name=name, base_digest="b" * 64, rank=8)
    return Adapter(
        name=name, voice=GENZ, run_id=f"run-{name}", base="embedded", base_digest="b" * 64, digest=digest,
        status=AdapterStatus.PASSED, created_at=START,
    )  # fmt: skip


def _answers(session, adapter, members, at) -> list[int]:
    return [
        feedback.record_reply(
            session, channel=ChannelKey("c"), voice=GENZ, adapter=adapter, prompt_member=member, prompt_key=None,
            prompt=None, text=None, provenance="terminal", policy_version="2026-11", at=at,
        )
        for member in members
    ]  # fmt: skip


def _duels(session, winners: int, losers: int, members=MEMBERS) -> None:
    for number, member in enumerate(members[: winners + losers]):
        for turn in range(3):
            is_left = (number + turn) % 2 == 0
            duel = feedback.record_duel(
                session, channel=ChannelKey("c"), voice=GENZ, prompt_member=member, prompt_key=None, prompt=None,
                left_adapter=V2 if is_left else V1, right_adapter=V1 if is_left else V2, left_text=None,
                right_text=None, provenance="terminal", policy_version="2026-11", at=START + timedelta(hours=turn),
            )  # fmt: skip
            choice = DuelChoice.LEFT if is_left == (number < winners) else DuelChoice.RIGHT
            feedback.cast_duel_vote(session, duel, member, choice, START + timedelta(hours=turn, minutes=1))


def _phases(world, served=dict) -> CanaryPhases:
    return CanaryPhases(world[0], world[1], backend=lambda: None, served=served, clock=lambda: NOW)


def _state(world) -> tuple[str, str | None, str, str]:
    with world[0].read() as session:
        pointer, run = registry.deployment(session, GENZ), runs.get_run(session, "run-genz-v2")
        return pointer.current, pointer.canary, run.state, registry.get_adapter(session, V2).status


async def _told(world) -> list[str]:
    notices = Notices(world[0], lambda: NOW, GENZ, ChannelKey("operators"))
    heard: list[str] = []

    async def announce(text: str) -> None:
        heard.append(text)

    await notices.announce_new(announce)
    await notices.announce_new(announce)
    return [text for text in heard if text.startswith("The canary")]


async def test_members_who_prefer_the_canary_promote_it_and_operators_are_told_once(world):
    with world[0].write() as session:
        _duels(session, 45, 10)
    _phases(world).look()
    assert _state(world) == (V2, None, RunState.PROMOTED, AdapterStatus.PASSED)
    assert len(told := await _told(world)) == 1
    assert "genz-v2 of genz was promoted: community votes: 55 members' duels prefer the canary" in told[0]
    assert (world[1].runs_dir / "run-genz-v2" / "trial.json").is_file()


async def test_an_open_vote_leaves_everything_as_it_is(world):
    with world[0].write() as session:
        _duels(session, 9, 4)
    (result,) = _phases(world).look().values()
    assert "has 13" in result.sentence
    assert _state(world) == (V1, V2, RunState.ON_TRIAL, AdapterStatus.PASSED)
    assert await _told(world) == []


async def test_members_who_find_it_cringe_withdraw_it(world):
    with world[0].write() as session:
        _answers(session, V1, MEMBERS[10:], START)
        for member, reply in zip(MEMBERS[:10], _answers(session, V2, MEMBERS[:10], START), strict=True):
            feedback.cast_vote(session, reply, member, Vote.CRINGE, NOW)
    _phases(world).look()
    assert _state(world) == (V1, None, RunState.REFUSED, AdapterStatus.REFUSED)
    assert "withdrawn: community votes: 10 of 10 disliked with the canary, 0 of 50" in (await _told(world))[0]


def test_a_canary_whose_requests_fail_is_withdrawn_by_what_was_seen_since(world):
    figures = {V1: Served(500, 90, 0), V2: Served(0, 0, 0)}
    phases = _phases(world, lambda: figures)
    phases.look()
    figures.update({V1: Served(900, 90, 0), V2: Served(60, 20, 0)})
    phases.look()
    assert _state(world)[:2] == (V1, None)


def test_an_operators_end_of_the_trial_ends_the_run(world):
    with world[0].write() as session:
        registry.set_canary(session, GENZ, None, 0.0, actor="operator", at=NOW)
    _phases(world).look()
    assert _state(world)[2] == RunState.REFUSED


def test_erased_training_rows_withdraw_instead_of_promoting(world, monkeypatch):
    from nocap.errors import RunError

    def gone(*_):
        raise RunError("rows are gone")

    monkeypatch.setattr(canary_phase, "load_snapshot", gone)
    with world[0].write() as session:
        _duels(session, 45, 10)
    _phases(world).look()
    assert _state(world)[:3] == (V1, None, RunState.REFUSED)


def test_strangers_votes_do_not_promote(world):
    strangers = [MemberKey(f"new{number}") for number in range(60)]
    with world[0].write() as session:
        _duels(session, 60, 0, strangers)
    (result,) = _phases(world).look().values()
    assert "has 0" in result.sentence


def test_served_figures_are_read_from_the_servers_own_exposition():
    from inference.server.metrics import EngineMetrics

    metrics = EngineMetrics()
    for seconds in (0.2, 3.0, 40.0):
        metrics.finished(V2, "stop", 5, 5, seconds)
    metrics.failed(V2)
    assert canary_phase._served(metrics.exposition().decode(), 10.0) == {V2: Served(3, 1, 1)}
    assert BASE not in canary_phase._served(metrics.exposition().decode(), 10.0)
