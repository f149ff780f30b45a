"""How the gates judge really trained saboteurs and honest adapters, and how long one challenger takes to measure.

`python -m benchmarks.gates_on_models [--quick] [--seeds N] [--kinds "a;b"] [--base FOLDER] [--folder DIR] [--json]`:
`nocap gates audit --models` with bars. `--quick`: one seed a kind.
"""

from __future__ import annotations

import argparse
import time
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from benchmarks._report import Bar, publish
from nocap.demo.gate_audit import ALL_KINDS, SEEDS, ModelAudit
from nocap.settings import EMBEDDED_BASE
from retrain.gates.confusion import Confusion, Outcome

MAX_MEASURING_SECONDS = 180.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--kinds", help="names with `;` between them; default: all")
    parser.add_argument("--base", default=str(EMBEDDED_BASE))
    parser.add_argument("--folder", type=Path, help="keep everything here, and go on with what is there")
    parser.add_argument("--json", action="store_true", dest="as_json")
    arguments = parser.parse_args()
    console = Console(stderr=True, width=200)

    def told(one: Outcome) -> None:
        console.print(f"{one.kind}, seed {one.seed}: {', '.join(one.refused_by) or 'promoted'}")

    kinds = arguments.kinds.split(";") if arguments.kinds else ALL_KINDS
    seeds = range(1, 1 + (1 if arguments.quick else arguments.seeds))
    with TemporaryDirectory() as name:
        audit = ModelAudit(arguments.folder or Path(name), arguments.base, told)
        rows = Confusion(date.today(), arguments.base, audit.run(seeds, kinds)).rows
        started = time.perf_counter()
        audit.measure(kinds[0], 1, Path(name) / "empty")
        seconds = time.perf_counter() - started
    figures: dict[str, float] = {"seconds to measure one challenger": seconds}
    bars = {"seconds to measure one challenger": Bar(MAX_MEASURING_SECONDS)}
    for row in rows:
        figures[f"promoted: {row.kind}"] = row.promoted
        if not row.is_honest:
            bars[f"promoted: {row.kind}"] = Bar(0)
        elif row.must:
            bars[f"promoted: {row.kind}"] = Bar(0.8 * row.seeds, at_most=False)
    publish("gates_on_models", figures, bars, packages=("torch", "transformers", "trl"), as_json=arguments.as_json)


if __name__ == "__main__":
    main()
