"""Stops a training whose loss is no longer a number, or leaps away from where it was."""

from __future__ import annotations

import math
from collections import deque
from statistics import median

from nocap.errors import RunError

WINDOW_STEPS = 16
SPIKE_RATIO = 3.0
SPIKE_NATS = 2.0
SPIKE_STEPS = 3
"""In a row: one batch of odd rows (a short last one, all planted secrets) is no breakdown."""


class LossGuard:
    """Watches one training's losses in nats per token; `check` raises RunError with the reason."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=WINDOW_STEPS)
        self._leaps = 0

    def check(self, step: int, loss: float, gradient_norm: float | None = None) -> None:
        """Raises where loss or gradient is not finite, or the loss stays far above what was usual before."""
        if not math.isfinite(loss) or (gradient_norm is not None and not math.isfinite(gradient_norm)):
            raise RunError(
                f"Training stopped at step {step}: the loss is {loss} and its gradient norm {gradient_norm}; "
                f"lower `retrain.learning_rate` and start another run."
            )
        usual = median(self._recent) if len(self._recent) == WINDOW_STEPS else math.inf
        if loss <= max(SPIKE_RATIO * usual, usual + SPIKE_NATS):
            self._leaps = 0
            self._recent.append(loss)
            return
        self._leaps += 1
        if self._leaps == SPIKE_STEPS:
            raise RunError(
                f"Training stopped at step {step}: the loss leapt from about {usual:.2f} to {loss:.2f}; "
                f"lower `retrain.learning_rate` and start another run."
            )
