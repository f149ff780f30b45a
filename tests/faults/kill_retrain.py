"""Kills the process of a retrain in every stage, on and on, and judges what it left and where the run ends.

After each kill every invariant of `nocap db check` holds but that the run goes on; another process takes it up. In the
end exactly one adapter is registered and live, with every gate's verdict once and each row that it learnt from once.
"""

from __future__ import annotations

import itertools
import random
import time
from pathlib import Path

from nocap.check import check_installation
from nocap.domain import AdapterName, AdapterStatus, RunState, Stage
from nocap.findings import Level
from nocap.settings import EMBEDDED_BASE
from retrain.gates import GATES
from retrain.run_folder import secrets_environment, write_config
from storage import runs
from storage.tables import Run
from tests.faults.kill import Verdict, until
from tests.faults.nursery import Nursery
from tests.retrain.job_world import AS_OF, World, new_run

MEAN_WAIT_SECONDS = 0.05
"""About a stage's length; some kills come much later, while the run's page is written."""
KILLS_A_RUN = 4
"""At most; then its process may end it."""


class RetrainKiller:
    """A small community, and one run after another that learns from it."""

    def __init__(self, folder: Path, url: str | None, seed: int) -> None:
        self.verdict = Verdict()
        self._world = World(folder / "data", EMBEDDED_BASE, url=url)
        self._random = random.Random(seed)
        self._stages = itertools.cycle(Stage)
        self._kills = 0
        self._nursery = Nursery("tests.faults.retrain_victim")

    def close(self) -> None:
        self._nursery.close()
        self._world.database.close()

    def kill(self) -> None:
        """One process, a moment after it began a stage or came past it."""
        stage = next(self._stages)
        pid = self._begin()
        until(lambda: self._has_come_to(stage, pid))
        time.sleep(self._random.expovariate(1 / MEAN_WAIT_SECONDS))
        self._nursery.kill(pid)
        run = self._world.run()
        is_over = RunState(run.state).is_over
        self.verdict.points += 1
        self.verdict.in_flight["between two steps" if is_over else f"retrain {run.stage}"] += 1
        self._kills += 1
        self._check()
        if not is_over and self._kills == KILLS_A_RUN:
            self._end()
        if RunState(self._world.run().state).is_over:
            self._judge(self._world.run())
            self._world.run_id = new_run(self._world.database, AdapterName(self._world.live()))
            self._kills = 0

    def _begin(self) -> int:
        order = {
            "run": self._world.run_id,
            "settings": str(write_config(self._world.folder, self._world.settings)),
            "environment": secrets_environment(self._world.settings),
        }
        return self._nursery.begin(order)

    def _has_come_to(self, stage: Stage, pid: int) -> bool:
        run, order = self._world.run(), list(Stage)
        reached = run.stage is not None and order.index(Stage(run.stage)) >= order.index(stage)
        return (reached and run.pid == pid) or RunState(run.state).is_over

    def _end(self) -> None:
        pid = self._begin()
        until(lambda: RunState(self._world.run().state).is_over)
        self._nursery.kill(pid)

    def _check(self) -> None:
        report = check_installation(self._world.settings, self._world.database, AS_OF)
        wrong = [one for one in report.findings if one.level is Level.PROBLEM and one.subject != "runs"]
        self.verdict.problems += [one.sentence for one in wrong]

    def _judge(self, run: Run) -> None:
        self.verdict.done["retrain"] += 1
        if run.state != RunState.PROMOTED or self._world.live() != run.challenger:
            self.verdict.lost.append(f"run {run.id} ended as {run.state}: {run.reason}")
        registered = [name for name, status in self._world.adapters().items() if status == AdapterStatus.PASSED]
        if len(registered) != self.verdict.done["retrain"]:
            self.verdict.doubled.append(f"{len(registered)} adapters of {self.verdict.done['retrain']} runs")
        with self._world.database.read() as session:
            gates = [row.gate for row in runs.gate_results(session, run.id)]
            learnt = [(row.message_key, row.role) for row in runs.sources(session, run.id)]
        if sorted(gates) != sorted(gate.name for gate in GATES):
            self.verdict.halves.append(f"run {run.id} has the verdicts of {gates}")
        if not learnt or len(learnt) != len(set(learnt)):
            self.verdict.halves.append(f"run {run.id} learnt from {len(learnt)} rows, some of them twice")
