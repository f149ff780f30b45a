"""A retrain's process that trains and measures in no time and whose gates pass; everything else is the real run.

`python -m tests.faults.retrain_victim` forks one for every line of JSON (`tests.faults.nursery`).
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from nocap.domain import RunId, Verdict
from retrain import artefacts, gates, measure, stages
from retrain.gates import Measurements
from retrain.job import run_job
from retrain.run_folder import read_config
from tests.faults.nursery import serve
from tests.retrain.job_world import AS_OF, QUICK_STAGES, decided

assert artefacts, "imported here, so that no victim has to"


def work(order: dict[str, Any]) -> None:
    """On the run until it is over, then nothing until the kill."""
    measure.measure = lambda plan, progress: measure.Measured(Measurements(), ())
    gates.decide = lambda *_: decided(Verdict.PASS)
    stages.WORK.update(QUICK_STAGES)
    os.environ.update(order["environment"])
    run_job(RunId(order["run"]), read_config(Path(order["settings"])), lambda: AS_OF)
    time.sleep(3600)


if __name__ == "__main__":
    serve(work)
