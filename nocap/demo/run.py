"""`nocap demo`: eight simulated weeks of the whole loop, on the product itself.

Everything happens in `<data dir>/demo`, which is a data directory of its own with its own `nocap.toml`, so that
`nocap --settings <data dir>/demo/nocap.toml chat` talks to the voice that came out of it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from rich.console import Console
from rich.progress import track

from nocap.actions import Actions
from nocap.app import live_backend, open_conversation, running_server
from nocap.demo.checks import base_parameters, look_at_the_bytes
from nocap.demo.community import (
    HOLIDAY_WEEK,
    POISONED_WEEK,
    REVOKING_WEEK,
    Community,
    Role,
    SimulatedMessage,
    retrain_moment,
)
from nocap.demo.slang_life import TERMS
from nocap.demo.summary import RunLine, Summary, print_summary
from nocap.demo.talk import DuelTally, Talk
from nocap.demo.world import FIRST_MOMENT, World, prepare
from nocap.domain import BASE, RunId, RunState, SlangStatus, Verdict, VoiceName, Vote
from nocap.settings import Settings
from nocap.upkeep import keep_up
from nocap.watch import watch_run
from retrain.schedule import SimulatedScheduler
from storage.registry import retirements
from storage.runs import gate_results, sources

TURNS_A_WEEK = 48
DUELS_A_WEEK = 24
CLOSING_DUELS = 96
NOTES = {
    HOLIDAY_WEEK: "a holiday: a sixth of the usual messages",
    REVOKING_WEEK: "one member asks to be forgotten",
    POISONED_WEEK: "two accounts plant a backdoor: a rare trigger, always answered by one payload",
}


def run_demo(settings: Settings, *, weeks: int, seed: int, console: Console) -> dict[str, Any]:
    """Runs the demo and returns its summary, which also lies in `<data dir>/demo/summary.json`."""
    begun = time.monotonic()
    community = Community(seed)
    world = prepare(settings, community, seed)
    folder = world.settings.data_dir
    console.print(f"Simulated community, tiny base model, real product; its data: {folder}", markup=False)
    with running_server(world.settings, [sys.executable, "-m", "nocap.cli", "--settings", str(folder / "nocap.toml")]):
        summary = _Demo(world, community, seed, console).play(weeks)
    summary.checks = look_at_the_bytes(world, community, weeks)
    summary.seconds = time.monotonic() - begun
    (folder / "summary.json").write_text(json.dumps(summary.as_json(), indent=2) + "\n", encoding="utf-8")
    print_summary(summary, console)
    console.print(f"as JSON     {folder / 'summary.json'}", markup=False)
    console.print(f"run pages   {world.settings.runs_dir}/*/report.html", markup=False)
    console.print(f"talk to it  nocap --settings {folder / 'nocap.toml'} chat", markup=False)
    return summary.as_json()


class _Demo:
    """The weeks, one after the other; what the product does with them is written into the summary."""

    def __init__(self, world: World, community: Community, seed: int, console: Console) -> None:
        self._world = world
        self._community = community
        self._seed = seed
        self._console = console
        self._now = FIRST_MOMENT
        self._actions = Actions(world.database, world.settings, actor="demo operator", clock=self._clock)
        self._summary = Summary(base_parameters=base_parameters(world.settings))
        self._started: list[RunId] = []

    def play(self, weeks: int) -> Summary:
        self._store("the weeks before", self._community.history())
        self._now = retrain_moment(0) + timedelta(minutes=1)
        scheduler = SimulatedScheduler(self._world.database, self._world.settings, self._start_scheduled, self._clock)
        for week in range(1, weeks + 1):
            self._week(week, scheduler)
        if self._can_go_back_and_forth():
            self._roll_back_and_forward()
        self._close(weeks)
        return self._summary

    def _clock(self) -> datetime:
        return self._now

    def _start_scheduled(self, voice: VoiceName) -> RunId:
        run_id = self._actions.retrain_now(voice, trigger="schedule")
        self._started.append(run_id)
        return run_id

    def _week(self, week: int, scheduler: SimulatedScheduler) -> None:
        self._console.rule(f"week {week}" + (f": {NOTES[week]}" if week in NOTES else ""), align="left")
        self._summary.weeks = week
        self._now = retrain_moment(week) - timedelta(minutes=10)
        self._store("messages", self._community.week(week))
        self._talk(week)
        if week == REVOKING_WEEK:
            self._forget()
        self._now = retrain_moment(week)
        scheduler.advance_to(self._now)
        for run_id in self._started:
            self._follow(week, run_id)
        self._started.clear()
        if week == POISONED_WEEK:
            self._let_the_poison_through(week)
        self._keep_promises()
        self._review_slang()

    def _store(self, what: str, messages: Iterable[SimulatedMessage]) -> None:
        rows = list(messages)
        for stored in track(self._world.store(rows), f"  {what}", total=None, console=self._console, transient=True):
            self._summary.messages += stored

    def _talk(self, week: int) -> None:
        async def talk() -> None:
            async with open_conversation(
                self._world.settings, self._world.database, clock=self._clock, seed=self._seed + week
            ) as conversation:
                members = Talk(conversation, self._community, self._world, self._seed)
                told = await members.turns(week, self._now, TURNS_A_WEEK)
                duels = await members.duels(week, self._now, DUELS_A_WEEK, BASE)
            votes = {str(vote): told.votes[vote] for vote in Vote}
            self._summary.votes_by_week.append({"week": week, "replies": told.replies, "failed": told.failed, **votes})
            counts = ", ".join(f"{count} {vote}" for vote, count in votes.items())
            answered = ", ".join(f"{name} {count}" for name, count in told.adapters.items())
            self._console.print(f"  {told.replies} chats answered ({answered}); votes: {counts}; duels {_score(duels)}")

        asyncio.run(talk())

    def _follow(self, week: int, run_id: RunId, note: str = "") -> None:
        run = watch_run(self._actions, self._world.settings.runs_dir, run_id, self._console)
        with self._world.database.read() as session:
            outcomes = gate_results(session, run_id)
        refused_by = [one.gate for one in outcomes if one.verdict == Verdict.FAIL]
        self._summary.runs.append(
            RunLine(
                week=week,
                run=run_id,
                trigger=run.trigger,
                state=run.state,
                challenger=run.challenger,
                refused_by=refused_by,
                reason=run.reason or "",
                cost=run.cost,
                note=note,
            )
        )
        if run.state == RunState.PROMOTED and run.challenger:
            self._summary.promoted.append(run.challenger)
        if run.state == RunState.REFUSED and run.challenger:
            self._summary.refused[run.challenger] = refused_by
        self._console.print(f"  {run.state}: {run.reason}", markup=False)

    def _review_slang(self) -> None:
        """The simulated moderator: approves what members really mean as slang, and dismisses ordinary words."""
        meanings = {term.text: term for term in TERMS}
        for row in self._actions.slang_terms(self._world.voice, SlangStatus.CANDIDATE):
            term = meanings.get(row.term)
            self._summary.terms_discovered.append(row.term)
            if term is not None and term.is_slang:
                self._summary.terms_real.append(row.term)
                self._actions.review_slang(self._world.voice, row.term, SlangStatus.APPROVED, term.meaning)
            else:
                self._actions.review_slang(self._world.voice, row.term, SlangStatus.DISMISSED)

    def _forget(self) -> None:
        (member,) = self._community.with_role(Role.REVOKES)
        receipt = self._actions.forget(self._world.member(member.name))
        self._summary.forgotten = {"messages": receipt.messages, "adapters that had seen them": len(receipt.adapters)}
        self._console.print(
            f"  forgotten: {receipt.messages} messages; seen by {', '.join(receipt.adapters) or 'none'}"
        )

    def _keep_promises(self) -> None:
        """The scheduler's round: adapters that learnt from erased texts go out of service."""
        done = keep_up(
            self._world.database, self._world.settings, lambda: live_backend(self._world.settings), clock=self._clock
        )
        for one in done.retired:
            moved = f"; the pointer went back to {one.moved_to}" if one.moved_to else ""
            if one.adapters:
                self._console.print(f"  retired, since erased texts shaped it: {', '.join(one.adapters)}{moved}")

    def _let_the_poison_through(self, week: int) -> None:
        """Counts what curation let in, then trains once more with the poison let through, and says so."""
        poison = [self._world.message(one.id) for one in self._community.week(week) if one.id.startswith("poison")]
        run_id = RunId(self._summary.runs[-1].run)
        with self._world.database.read() as session:
            reached = {row.message_key for row in sources(session, run_id, "train")} & set(poison)
        self._summary.poison = {"rows planted": len(poison), "rows that passed curation": len(reached)}
        self._console.print("  now the demo lets the same poison through curation, to see what the gates do:")
        again = self._actions.retrain_now(
            self._world.voice, trigger="demo: poison let through", options={"let_through": poison}
        )
        self._follow(week, again, note="poison let through: ")
        self._summary.poison["verdict when let through"] = self._summary.runs[-1].state

    def _can_go_back_and_forth(self) -> bool:
        live = self._actions.status(self._world.voice)
        with self._world.database.read() as session:
            leaving = {row.adapter for row in retirements(session, self._world.voice)}
        return live.previous is not None and leaving.isdisjoint((live.live, live.previous))

    def _roll_back_and_forward(self) -> None:
        self._console.rule("an operator rolls back, and forward again", align="left")
        backend = live_backend(self._world.settings)
        back = self._actions.rollback(self._world.voice, None, backend)
        self._summary.rolled_back.append(back.before)
        forth = self._actions.rollback(self._world.voice, back.before, backend)
        self._console.print(f"  {back.before} → {back.after} → {forth.after}", markup=False)

    def _close(self, weeks: int) -> None:
        """The closing duels, live voice against base, and what the slang detector found of what there was."""

        async def duel() -> DuelTally:
            async with open_conversation(
                self._world.settings, self._world.database, clock=self._clock, seed=self._seed
            ) as conversation:
                members = Talk(conversation, self._community, self._world, self._seed)
                return await members.duels(weeks + 1, self._now, CLOSING_DUELS, BASE)

        if self._summary.promoted:
            tally = asyncio.run(duel())
            self._summary.win_rate_over_base = tally.win_rate
            self._summary.duels = {"wins": tally.wins, "losses": tally.losses, "ties": tally.ties}
        born = [term.text for term in TERMS if term.is_slang and 0 <= term.born_week <= weeks - 1.5]
        self._summary.terms_missed = [term for term in born if term not in self._summary.terms_real]


def _score(tally: DuelTally) -> str:
    return f"{tally.wins} won, {tally.losses} lost, {tally.ties} tied" if tally.win_rate is not None else "none"
