"""How often the gates are wrong, counted on simulated adapters: `nocap gates audit`.

Each kind's counts are kept in the audit's folder in blocks, so that an interrupted audit goes on where it stood; other
gates, thresholds or simulations begin anew.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import beta

from nocap.domain import Verdict
from nocap.settings import GateSettings
from retrain.gates import GATES
from retrain.gates.record import code_digest
from retrain.gates.result import Gate
from retrain.gates.simulate import DESIGNED, EFFECTS, SABOTEURS, Effect, Part, Size, simulate
from retrain.gates.simulate_votes import PREFERRED, UNPREFERRED, Phase, is_ever_promoted
from retrain.gates.votes import CommunityVotes

SIMULATIONS = 2000
QUICK_SIMULATIONS = 200
BLOCK = 50
RESULTS = "audit.json"
"""Package data: the audit that docs/gates.md shows."""
MAX_FALSE_PROMOTION = 0.06
MAX_PEEKED = 0.05
MIN_POWER = 0.8
SIZES = (DESIGNED, Size(40, 60), Size(120, 25), Size(400, 10))
SHARES = (0.5, 1.0, 1.5, 2.0)
"""Of the way from a good adapter to a gate's limit."""
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
    members: int = DESIGNED.members
    each: int = DESIGNED.each
    effect: float | None = None
    """Share of the way from good to the gate's limit."""

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
    honest: Sequence[Rate]
    """An adapter with the designed effect, by size of the community; the designed size first."""
    saboteurs: Sequence[Rate]
    effects: Sequence[Rate]
    """One gate alone, where the truth lies some share of the way to its limit: at 1 its type-I error."""
    unpreferred: Sequence[Rate]
    """Canary phases of an adapter that members do not prefer, looked at after every vote."""
    preferred: Sequence[Rate]

    @property
    def holds(self) -> bool:
        """Whether no saboteur passes too often and the honest adapter passes often enough."""
        return (
            self.honest[0].share >= MIN_POWER
            and all(one.upper <= MAX_FALSE_PROMOTION for one in self.saboteurs)
            and all(one.share <= MAX_PEEKED for one in self.unpreferred)
        )

    def as_json(self) -> dict[str, Any]:
        groups = {name: [vars(one) for one in getattr(self, name)] for name in _GROUPS}
        return {"on": self.on.isoformat(), **groups}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Audit:
        groups = {name: [Rate(**one) for one in values[name]] for name in _GROUPS}
        return cls(date.fromisoformat(values["on"]), **groups)


_GROUPS = ("honest", "saboteurs", "effects", "unpreferred", "preferred")


def published() -> Audit | None:
    """The audit that ships with this package, if there is one."""
    file = files("retrain.gates") / RESULTS
    return Audit.from_json(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None


def audit(folder: Path, simulations: int, on: date, progress: Callable[[str, int, int], None]) -> Audit:
    """Simulates every kind `simulations` times, what no bar is held against a quarter as often.

    What `folder` holds of an interrupted audit is not done again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fewer = max(1, simulations // 4)

    def rate(kind: str, often: int, judge: _Judge, size: Size = DESIGNED, effect: float | None = None) -> Rate:
        empty = Rate(kind, 0, 0, {}, size.members, size.each, effect)
        return _counted(folder, empty, often, judge, progress)

    return Audit(
        on=on,
        honest=[
            rate("honest", simulations if size == DESIGNED else fewer, _all_that_refuse(size), size) for size in SIZES
        ],
        saboteurs=[rate(kind, simulations, _first_that_refuses(changes)) for kind, changes in SABOTEURS.items()],
        effects=[
            rate(name, simulations if (size, share) == (DESIGNED, 1.0) else fewer, judge, size, share)
            for name, effect in EFFECTS.items()
            for size, share in _CASES
            for judge in (_one_gate(effect, share, size),)
        ],
        unpreferred=[rate(kind, simulations, _vote(phase)) for kind, phase in UNPREFERRED.items()],
        preferred=[rate(kind, fewer, _vote(phase)) for kind, phase in PREFERRED.items()],
    )


_Judge = Callable[[int], Sequence[str]]
"""From a draw's seed the gates that refuse it."""
_CASES = (*((DESIGNED, share) for share in SHARES), *((size, 1.0) for size in SIZES[1:]))


def _all_that_refuse(size: Size) -> _Judge:
    return lambda seed: [gate.name for gate in GATES if not _passes(gate, {}, seed, size)]


def _first_that_refuses(changes: Mapping[str, Part]) -> _Judge:
    """Asks the gates in the order in which they refused so far, and stops at the first."""
    often: Counter[str] = Counter()

    def judge(seed: int) -> list[str]:
        for gate in sorted(GATES, key=lambda one: -often[one.name]):
            if not _passes(gate, changes, seed):
                often[gate.name] += 1
                return [gate.name]
        return []

    return judge


def _one_gate(effect: Effect, share: float, size: Size) -> _Judge:
    parts, gate = effect.parts(share), _BY_NAME[effect.gate]
    return lambda seed: [] if _passes(gate, parts, seed, size) else [gate.name]


def _vote(phase: Phase) -> _Judge:
    return lambda seed: [] if is_ever_promoted(phase(np.random.default_rng(seed))) else [CommunityVotes.name]


def _passes(gate: Gate, changes: Mapping[str, Part], seed: int, size: Size = DESIGNED) -> bool:
    """What the gate says of this draw, of which only the parts that it reads are made."""
    return gate.decide(simulate(changes, seed, size, gate.reads), SETTINGS).verdict is Verdict.PASS


def _counted(
    folder: Path, rate: Rate, simulations: int, judge: _Judge, progress: Callable[[str, int, int], None]
) -> Rate:
    """`rate`, which is still empty, with its counts."""
    name = "-".join(map(str, (rate.kind, rate.members, rate.each, rate.effect)))
    promoted, refused_by = 0, Counter[str]()
    with _Blocks(folder / f"{re.sub('[^a-z0-9.]+', '-', name)}.jsonl") as blocks:
        for first in range(0, simulations, BLOCK):
            size = min(BLOCK, simulations - first)
            block = blocks.get(first, size) or blocks.add(first, [judge(seed) for seed in range(first, first + size)])
            promoted += block["promoted"]
            refused_by.update(block["refused_by"])
            progress(rate.kind, first + size, simulations)
    return replace(rate, simulations=simulations, promoted=promoted, refused_by=dict(refused_by.most_common()))


class _Blocks:
    """The blocks of one kind that are done, as lines of a file; those of other code are passed over."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._code = code_digest()[:16]
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
