"""What is lost, doubled or left half by SIGKILL at hundreds of random moments: nothing, on either database.

Chat, votes, duels, imports, promotions, erasures, revocations, backups, votes that waited, key rotations, an inference
replica under answers, every stage of a retrain; and on SQLite migrations and restorations. Each kill is followed by
`nocap db check` and a comparison with what the process had reported.
PostgreSQL is the one that the tests use; without it only SQLite is killed, and the figures say so.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks._postgres import postgres_database
from benchmarks._report import Bar, publish
from nocap.observability.logs import configure_logging
from tests.faults.kill import Killer, Verdict
from tests.faults.kill_retrain import RetrainKiller

POINTS, QUICK_POINTS = 240, 24
BARS = {
    "points": Bar(200, at_most=False),
    "lost": Bar(0),
    "doubled": Bar(0),
    "left_half": Bar(0),
    "broken_invariants": Bar(0),
    "killed_in_answer_of_a_replica": Bar(1, at_most=False),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the kills, no bar on their number")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", dest="as_json")
    arguments = parser.parse_args()
    configure_logging(logging.ERROR)
    points = QUICK_POINTS if arguments.quick else POINTS
    with postgres_database() as url:
        verdicts = sqlite_kills(points * 3 // 4 if url else points, arguments.seed)
        on_postgresql = postgres_kills(url, points // 4, arguments.seed) if url else []
        verdicts += on_postgresql
    in_flight = sum((verdict.in_flight for verdict in verdicts), Counter[str]())
    for wrong in (one for verdict in verdicts for one in verdict.wrong):
        print(wrong, file=sys.stderr)
    figures: dict[str, float] = {
        "points": sum(verdict.points for verdict in verdicts),
        "points_on_postgresql": sum(verdict.points for verdict in on_postgresql),
        "steps_done": sum(sum(verdict.done.values()) for verdict in verdicts),
        "lost": sum(len(verdict.lost) for verdict in verdicts),
        "doubled": sum(len(verdict.doubled) for verdict in verdicts),
        "left_half": sum(len(verdict.halves) for verdict in verdicts),
        "broken_invariants": sum(len(verdict.problems) for verdict in verdicts),
    }
    figures["killed_in_answer_of_a_replica"] = 0
    figures |= {f"killed_in_{what.replace(' ', '_')}": count for what, count in sorted(in_flight.items())}
    bars = {name: bar for name, bar in BARS.items() if name != "points" or not arguments.quick}
    publish("faults", figures, bars, packages=("SQLAlchemy", "psycopg"), as_json=arguments.as_json)


def sqlite_kills(points: int, seed: int) -> list[Verdict]:
    """A fifth of them in migrations and restorations, three tenths in key rotations, replicas and retrains."""
    with TemporaryDirectory() as name:
        killer = Killer(Path(name), None, seed)
        for _ in range(points - 5 * (points // 10)):
            killer.kill_and_judge()
        backup = killer.back_up(Path(name) / "kept")
        for _ in range(points // 10):
            killer.kill_a_migration()
            killer.kill_a_restoration(backup)
        for _ in range(points // 10):
            killer.kill_a_rotation()
            killer.kill_a_replica()
        killer.close()
    return [killer.verdict, retrain_kills(None, points // 10, seed)]


def postgres_kills(url: str, points: int, seed: int) -> list[Verdict]:
    with TemporaryDirectory() as name:
        killer = Killer(Path(name), url, seed)
        for _ in range(points - 3 * (points // 10)):
            killer.kill_and_judge()
        for _ in range(points // 10):
            killer.kill_a_rotation()
            killer.kill_a_replica()
        killer.close()
    with postgres_database() as another:
        return [killer.verdict, retrain_kills(another, points // 10, seed)]


def retrain_kills(url: str | None, points: int, seed: int) -> Verdict:
    with TemporaryDirectory() as name:
        killer = RetrainKiller(Path(name), url, seed)
        for _ in range(points):
            killer.kill()
        killer.close()
        return killer.verdict


if __name__ == "__main__":
    main()
