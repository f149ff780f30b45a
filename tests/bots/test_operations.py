from __future__ import annotations

import pytest

from bots.callers import Caller
from bots.notices import Notices
from bots.operations import Operations
from nocap.domain import BASE, AdapterName, ChannelKey, RunId, RunState
from nocap.errors import NotPermitted
from nocap.operators import BotOperators
from storage.audit import events
from storage.registry import deployment
from storage.runs import create_run, finish_run, set_gate_results
from storage.tables import GateOutcome
from tests.bots.support import ADA, BEN, VOICE, World

OPERATOR = Caller("discord", ADA, is_operator=True)
MODERATOR = Caller("discord", BEN, is_moderator=True)
CHAT = ChannelKey("0" * 32)


@pytest.fixture
def operations(bot: World) -> Operations:
    return Operations(BotOperators(bot.database, bot.settings, bot.clock, lambda: None), VOICE)


def end_a_run(bot: World, state: RunState = RunState.REFUSED) -> str:
    with bot.database.write() as session:
        run = create_run(
            session,
            voice=VOICE,
            trigger="operator",
            as_of=bot.now,
            incumbent=BASE,
            options={},
            permission_reference=None,
            at=bot.clock(),
        )
        outcome = GateOutcome(
            run_id=run.id,
            gate="drift",
            verdict="fail",
            threshold="x",
            evidence=1,
            evidence_needed=1,
            sentence="It drifted too far.",
        )
        set_gate_results(session, RunId(run.id), [outcome])
        finish_run(session, RunId(run.id), state, "One gate failed.", bot.clock())
        return run.id


async def test_moderators_are_no_operators(operations: Operations) -> None:
    calls = [
        operations.status(MODERATOR),
        operations.retrain_now(MODERATOR),
        operations.runs(MODERATOR),
        operations.gates(MODERATOR, RunId("x")),
        operations.adapters(MODERATOR),
        operations.propose_rollback(MODERATOR, None),
        operations.rollback(MODERATOR, BASE),
        operations.propose_promotion(MODERATOR, "genz-v1"),
        operations.promote(MODERATOR, AdapterName("genz-v1")),
    ]
    for call in calls:
        with pytest.raises(NotPermitted, match="operators"):
            await call


async def test_a_rollback_is_proposed_and_then_heard_in_the_next_answer(bot: World, operations: Operations) -> None:
    bot.promote("genz-v1", "new voice")
    assert (await bot.ask("hi")).text == "new voice"
    proposal = await operations.propose_rollback(OPERATOR, None)
    assert proposal.name == BASE and "genz" in proposal.question
    assert (await bot.ask("hi")).text == "new voice"
    await operations.rollback(OPERATOR, proposal.name)
    assert (await bot.ask("hi")).text == "base speaking"
    with bot.database.read() as session:
        assert events(session, 1)[0].actor == f"discord:{ADA}"
        assert deployment(session, VOICE).current == BASE


async def test_what_did_not_pass_its_gates_is_not_promoted_from_chat(bot: World, operations: Operations) -> None:
    with pytest.raises(NotPermitted, match="no adapter"):
        await operations.propose_promotion(OPERATOR, "genz-v9")
    bot.promote("genz-v1", "x")
    with pytest.raises(NotPermitted, match="gates did not pass"):
        await operations.promote(OPERATOR, AdapterName("genz-v1"))


async def test_status_runs_and_adapters_are_told(bot: World, operations: Operations) -> None:
    bot.promote("genz-v1", "x")
    run = end_a_run(bot)
    assert "genz-v1 is live" in await operations.status(OPERATOR)
    assert f"{run}: refused" in await operations.runs(OPERATOR)
    assert "genz-v1: passed" in await operations.adapters(OPERATOR)
    assert "FAIL  drift" in await operations.gates(OPERATOR, RunId(run))


async def test_the_end_of_a_run_is_announced_once_by_whoever_comes_first(bot: World) -> None:
    told: list[str] = []

    async def announce(text: str) -> None:
        told.append(text)

    one, two = (Notices(bot.database, bot.clock, VOICE, CHAT) for _ in range(2))
    end_a_run(bot)
    for watcher in (one, two, one):
        await watcher.announce_new(announce)
    assert len(told) == 1
    assert "refused" in told[0] and "FAIL  drift" in told[0]


async def test_a_notice_that_failed_is_told_later(bot: World) -> None:
    told: list[str] = []

    async def fail(text: str) -> None:
        raise RuntimeError("the chat is gone")

    async def announce(text: str) -> None:
        told.append(text)

    watcher = Notices(bot.database, bot.clock, VOICE, CHAT)
    end_a_run(bot)
    with pytest.raises(RuntimeError):
        await watcher.announce_new(fail)
    await watcher.announce_new(announce)
    assert len(told) == 1
