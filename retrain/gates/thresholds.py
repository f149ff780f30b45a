"""Named limits of the gates: each a number that knows what it means and where it comes from."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable
from typing import Self

from retrain.gates.result import Gate


class Threshold(float):
    """A limit that belongs to the code; its value is part of `thresholds_version`."""

    why: str

    def __new__(cls, value: float, why: str) -> Self:
        limit = super().__new__(cls, value)
        limit.why = why
        return limit

    def __getnewargs__(self) -> tuple[float, str]:  # type: ignore[override]
        return float(self), self.why


def thresholds_of(gate: Gate) -> dict[str, Threshold]:
    """The limits that stand in the gate's own module, by name."""
    names = vars(sys.modules[type(gate).__module__])
    return {name.lower(): value for name, value in names.items() if isinstance(value, Threshold)}


def thresholds_version(gates: Iterable[Gate]) -> str:
    """12 hex digits over every limit of `gates`: another value anywhere is another version."""
    values = {gate.name: {name: float(value) for name, value in thresholds_of(gate).items()} for gate in gates}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]
