"""Stops a training whose loss is no longer a number, or leaps away from where it was."""

from __future__ import annotations

import math
from collections import deque
from statistics import median

from nocap.errors import RunError

WINDOW_STEPS = 16
SPIKE_RATIO = 3.0
SPIKE_NATS = 2.0


class LossGuard:
    """Watches one training's losses in nats per token; `check` raises RunError with the reason."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=WINDOW_STEPS)

    def check(self, step: int, loss: float, gradient_norm: float | None = None) -> None:
        """Raises where loss or gradient is not finite, or the loss is far above the last steps' median."""
        if not math.isfinite(loss) or (gradient_norm is not None and not math.isfinite(gradient_norm)):
            raise RunError(
                f"Training stopped at step {step}: the loss is {loss} and its gradient norm {gradient_norm}; "
                f"lower `retrain.learning_rate` and start another run."
            )
        if len(self._recent) == WINDOW_STEPS:
            usual = median(self._recent)
            if loss > max(SPIKE_RATIO * usual, usual + SPIKE_NATS):
                raise RunError(
                    f"Training stopped at step {step}: the loss leapt from about {usual:.2f} to {loss:.2f}; "
                    f"lower `retrain.learning_rate` and start another run."
                )
        self._recent.append(loss)
