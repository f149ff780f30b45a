"""How every benchmark reports: figures with their bars, as a table or as one JSON object."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version


@dataclass(frozen=True)
class Bar:
    """What a figure must keep to: `at_most`, or else `at_least`, the limit."""

    limit: float
    at_most: bool = True

    def holds(self, figure: float) -> bool:
        return figure <= self.limit if self.at_most else figure >= self.limit


def publish(
    benchmark: str,
    figures: Mapping[str, float],
    bars: Mapping[str, Bar],
    *,
    packages: Sequence[str],
    as_json: bool,
) -> None:
    """Prints the report and exits 1 where a bar does not hold."""
    held = {name: bar.holds(figures[name]) for name, bar in bars.items()}
    if as_json:
        document = {
            "benchmark": benchmark,
            "machine": machine(),
            "versions": {name: version(name) for name in packages} | {"python": platform.python_version()},
            "figures": dict(figures),
            "bars": {name: {"limit": bar.limit, "holds": held[name]} for name, bar in bars.items()},
        }
        print(json.dumps(document, indent=2))
    else:
        print(f"{benchmark} on {machine()}")
        for name, figure in figures.items():
            bar = bars.get(name)
            note = "" if bar is None else f"  {'holds' if held[name] else 'MISSED'}: {_limit(bar)}"
            print(f"  {name:<44} {figure:>12.4g}{note}")
    sys.exit(0 if all(held.values()) else 1)


def _limit(bar: Bar) -> str:
    return f"{'at most' if bar.at_most else 'at least'} {bar.limit:g}"


def machine() -> str:
    """The machine in words, without its name."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores {platform.machine()}, {memory:.0f} GiB, {platform.system()}"
