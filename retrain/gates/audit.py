"""How often the gates are wrong, counted on simulated adapters: `nocap gates audit`.

Each kind's counts are kept in the audit's folder in blocks, so that an interrupted audit goes on where it stood; other
gates, thresholds or simulations begin anew.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any

from scipy.stats import beta

from nocap.domain import Verdict
from nocap.settings import GateSettings
from retrain.gates import GATES
from retrain.gates.record import code_digest
from retrain.gates.result import Gate
from retrain.gates.simulate import AT_THE_LIMIT, HONEST, SABOTEURS, Part, simulate

SIMULATIONS = 2000
QUICK_SIMULATIONS = 200
BLOCK = 50
RESULTS = "audit.json"
"""Package data: the audit that docs/gates.md shows."""
MAX_FALSE_PROMOTION = 0.06
MIN_POWER = 0.8
SETTINGS = GateSettings(resamples=500)

_BY_NAME = {gate.name: gate for gate in GATES}


@dataclass(frozen=True)
class Rate:
    """`promoted` of `simulations`, with its exact one-sided 95 % bounds (Clopper and Pearson 1934)."""

    kind: str
    simulations: int
    promoted: int
    refused_by: Mapping[str, int]
    """For an honest adapter every gate that did not pass; for a saboteur the first that did not."""

    @property
    def share(self) -> float:
        return self.promoted / self.simulations

    @property
    def lower(self) -> float:
        return float(beta.ppf(0.05, self.promoted, self.simulations - self.promoted + 1)) if self.promoted else 0.0

    @property
    def upper(self) -> float:
        missed = self.simulations - self.promoted
        return float(beta.ppf(0.95, self.promoted + 1, missed)) if missed else 1.0


@dataclass(frozen=True)
class Audit:
    on: date
    honest: Rate
    saboteurs: Sequence[Rate]
    at_the_limit: Sequence[Rate]
    """The named gate alone, where the truth lies on its limit: its type-I error."""

    @property
    def holds(self) -> bool:
        """Whether no saboteur passes too often and the honest adapter passes often enough."""
        return self.honest.share >= MIN_POWER and all(one.upper <= MAX_FALSE_PROMOTION for one in self.saboteurs)

    def as_json(self) -> dict[str, Any]:
        def plain(rate: Rate) -> dict[str, Any]:
            return {**vars(rate), "refused_by": dict(rate.refused_by)}

        return {
            "on": self.on.isoformat(),
            "honest": plain(self.honest),
            "saboteurs": list(map(plain, self.saboteurs)),
            "at_the_limit": list(map(plain, self.at_the_limit)),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Audit:
        return cls(
            date.fromisoformat(values["on"]),
            Rate(**values["honest"]),
            [Rate(**one) for one in values["saboteurs"]],
            [Rate(**one) for one in values["at_the_limit"]],
        )


def published() -> Audit | None:
    """The audit that ships with this package, if there is one."""
    file = files("retrain.gates") / RESULTS
    return Audit.from_json(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None


def audit(folder: Path, simulations: int, on: date, progress: Callable[[str, int, int], None]) -> Audit:
    """Simulates every kind `simulations` times; what `folder` holds of an interrupted audit is not done again."""
    folder.mkdir(parents=True, exist_ok=True)

    def rate(kind: str, judge: Callable[[int], Sequence[str]]) -> Rate:
        return _rate(folder, kind, simulations, judge, progress)

    return Audit(
        on=on,
        honest=rate("honest", _all_that_refuse),
        saboteurs=[rate(kind, _first_that_refuses(changes)) for kind, changes in SABOTEURS.items()],
        at_the_limit=[rate(f"limit of {gate}", _one_gate(gate, parts)) for gate, parts in AT_THE_LIMIT.items()],
    )


def _all_that_refuse(seed: int) -> list[str]:
    measured = simulate({}, seed)
    return [gate.name for gate in GATES if not _passes(gate, measured)]


def _first_that_refuses(changes: Mapping[str, Part]) -> Callable[[int], list[str]]:
    """Asks the gates in the order in which they refused so far, and stops at the first."""
    often: Counter[str] = Counter()

    def judge(seed: int) -> list[str]:
        measured = simulate(changes, seed)
        for gate in sorted(GATES, key=lambda one: -often[one.name]):
            if not _passes(gate, measured):
                often[gate.name] += 1
                return [gate.name]
        return []

    return judge


def _one_gate(name: str, changes: Mapping[str, Part]) -> Callable[[int], list[str]]:
    def judge(seed: int) -> list[str]:
        return [] if _passes(_BY_NAME[name], simulate(changes, seed)) else [name]

    return judge


def _passes(gate: Gate, measured: Any) -> bool:
    return gate.decide(measured, SETTINGS).verdict is Verdict.PASS


def _rate(
    folder: Path,
    kind: str,
    simulations: int,
    judge: Callable[[int], Sequence[str]],
    progress: Callable[[str, int, int], None],
) -> Rate:
    promoted, refused_by = 0, Counter[str]()
    with _Blocks(folder / f"{kind.replace(' ', '-')}.jsonl") as blocks:
        for first in range(0, simulations, BLOCK):
            size = min(BLOCK, simulations - first)
            block = blocks.get(first, size) or blocks.add(first, [judge(seed) for seed in range(first, first + size)])
            promoted += block["promoted"]
            refused_by.update(block["refused_by"])
            progress(kind, first + size, simulations)
    return Rate(kind, simulations, promoted, dict(refused_by.most_common()))


class _Blocks:
    """The blocks of one kind that are done, as lines of a file; those of other code are passed over."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._code = hashlib.sha256(f"{code_digest()}{sorted(HONEST)}".encode()).hexdigest()[:16]
        self._done = {(one["first"], one["size"]): one for one in self._lines() if one.get("code") == self._code}

    def __enter__(self) -> _Blocks:
        self._file = self._path.open("a", encoding="utf-8")
        self._file.write("\n" if self._file.tell() else "")  # a killed audit's half line ends here
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def get(self, first: int, size: int) -> dict[str, Any] | None:
        return self._done.get((first, size))

    def add(self, first: int, refusals: Sequence[Sequence[str]]) -> dict[str, Any]:
        block = {
            "code": self._code,
            "first": first,
            "size": len(refusals),
            "promoted": sum(not one for one in refusals),
            "refused_by": dict(Counter(name for one in refusals for name in one)),
        }
        print(json.dumps(block), file=self._file, flush=True)
        return block

    def _lines(self) -> Iterator[dict[str, Any]]:
        """Whole lines alone: a killed audit may have left half of its last one."""
        if not self._path.exists():
            return
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                continue
