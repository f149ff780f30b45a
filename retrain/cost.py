"""What a run costs: time, memory, tokens, money and energy, counted on across restarts."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nocap.errors import OverBudget
from nocap.settings import RetrainSettings

BYTES_PER_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one run up to now."""

    seconds: float = 0.0
    peak_bytes: int = 0
    """Resident memory of the process, or the GPU's memory in use where that is more."""
    tokens: int = 0
    examples: int = 0
    energy_joules: float = 0.0
    energy_is_estimate: bool = False
    """True where watts × seconds stood in for an energy counter."""
    money: float = 0.0
    currency: str = ""
    seconds_by_stage: tuple[tuple[str, float], ...] = ()
    peak_bytes_by_stage: tuple[tuple[str, int], ...] = ()
    """As `peak_bytes`; where the system cannot start a peak anew, a stage's holds those before it."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {name: dict(getattr(self, name)) for name in _BY_STAGE}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Cost:
        return cls(**(values | {name: tuple(values.get(name, {}).items()) for name in _BY_STAGE}))


_BY_STAGE = ("seconds_by_stage", "peak_bytes_by_stage")


@dataclass(frozen=True, slots=True)
class Budget:
    """What one run may cost; None is no limit."""

    money: float | None
    minutes: float | None
    price_per_hour: float
    currency: str

    @classmethod
    def of(cls, settings: RetrainSettings) -> Budget:
        return cls(settings.budget_money, settings.budget_minutes, settings.price_per_hour, settings.currency)

    def check(self, seconds: float, *, is_estimate: bool) -> None:
        """Raises OverBudget where a run of `seconds` exceeds it."""
        money, minutes = seconds / 3600 * self.price_per_hour, seconds / 60
        limits = []
        if self.money is not None and money > self.money:
            limits.append(f"{self.money:.2f} {self.currency} (`retrain.budget_money`)")
        if self.minutes is not None and minutes > self.minutes:
            limits.append(f"{self.minutes:g} minutes (`retrain.budget_minutes`)")
        if limits:
            costs = "would take about" if is_estimate else "has taken"
            raise OverBudget(
                f"The run {costs} {minutes:.1f} minutes and {money:.2f} {self.currency}, more than"
                f" {' and '.join(limits)}; raise the budget, or lower `retrain.max_examples` or `retrain.epochs`."
            )


class CostMeter:
    """Adds this process's use to what earlier processes of the same run `spent`."""

    def __init__(
        self,
        settings: RetrainSettings,
        spent: Cost | None = None,
        *,
        seconds: Callable[[], float] = time.monotonic,
        counter: Callable[[], float | None] | None = None,
    ) -> None:
        self._settings = settings
        self._spent = spent or Cost()
        self._seconds = seconds
        self._counter = counter or read_energy_counter
        self._started = seconds()
        self._joules_at_start = self._counter()
        self._stage: tuple[str, float] | None = None
        self._stages = dict(self._spent.seconds_by_stage)
        self._peaks = dict(self._spent.peak_bytes_by_stage)
        self._highest = self._spent.peak_bytes
        self._tokens, self._examples = self._spent.tokens, self._spent.examples

    def begin_stage(self, name: str) -> None:
        self._stages = dict(self._stage_seconds())
        self._note_peak()
        restart_peak()
        self._stage = (name, self._seconds())

    def trained(self, tokens: int, examples: int) -> None:
        """Notes what the training took in, over all epochs."""
        self._tokens, self._examples = tokens, examples

    @property
    def seconds(self) -> float:
        """Of the run up to now, earlier processes included."""
        return self._spent.seconds + self._seconds() - self._started

    def read(self) -> Cost:
        """Everything up to now."""
        here = self._seconds() - self._started
        joules = self._joules()
        seconds = self.seconds
        self._note_peak()
        return Cost(
            seconds=seconds,
            peak_bytes=self._highest,
            tokens=self._tokens,
            examples=self._examples,
            energy_joules=self._spent.energy_joules + (self._settings.watts * here if joules is None else joules),
            energy_is_estimate=self._spent.energy_is_estimate or joules is None,
            money=seconds / 3600 * self._settings.price_per_hour,
            currency=self._settings.currency,
            seconds_by_stage=self._stage_seconds(),
            peak_bytes_by_stage=tuple(self._peaks.items()),
        )

    def _note_peak(self) -> None:
        peak = peak_bytes()
        self._highest = max(self._highest, peak)
        if self._stage is not None:
            name = self._stage[0]
            self._peaks[name] = max(self._peaks.get(name, 0), peak)

    def _joules(self) -> float | None:
        now = self._counter()
        return None if now is None or self._joules_at_start is None else now - self._joules_at_start

    def _stage_seconds(self) -> tuple[tuple[str, float], ...]:
        stages = dict(self._stages)
        if self._stage is not None:
            name, since = self._stage
            stages[name] = stages.get(name, 0.0) + self._seconds() - since
        return tuple(stages.items())


def read_energy_counter() -> float | None:
    """Joules that the GPU has drawn since its driver was loaded; None without NVML or a card that counts."""
    with suppress(Exception):
        import pynvml

        pynvml.nvmlInit()
        try:
            device = pynvml.nvmlDeviceGetHandleByIndex(0)
            return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(device)) / 1000
        finally:
            pynvml.nvmlShutdown()
    return None


def restart_peak() -> None:
    """Lets `peak_bytes` begin anew at what is held now, where the system can (Linux, and CUDA)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    if (cuda := _cuda()) is not None:
        cuda.reset_peak_memory_stats()


def peak_bytes() -> int:
    """The most memory this process has held since `restart_peak`: resident, or on the GPU where that is more."""
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * BYTES_PER_RSS_UNIT
    cuda = _cuda()
    return max(resident, int(cuda.max_memory_allocated()) if cuda is not None else 0)


def _cuda() -> Any:
    """torch's CUDA part where torch is imported and sees a card; on another thread it may be half imported."""
    torch = sys.modules.get("torch")
    with suppress(AttributeError):
        if torch is not None and torch.cuda.is_available():
            return torch.cuda
    return None
