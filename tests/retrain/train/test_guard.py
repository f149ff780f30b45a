from __future__ import annotations

import math

import pytest

from nocap.errors import RunError
from retrain.train.guard import WINDOW_STEPS, LossGuard


def test_a_falling_and_noisy_loss_passes():
    guard = LossGuard()
    for step in range(100):
        guard.check(step, 5.0 / (1 + step) + 0.5 * (step % 3), 1.0)


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (2.0, math.nan)])
def test_a_loss_or_gradient_that_is_no_number_stops_at_once_and_names_the_step(loss, norm):
    with pytest.raises(RunError, match=r"step 3.*learning_rate"):
        LossGuard().check(3, loss, norm)


def test_a_leap_far_above_the_recent_losses_stops():
    guard = LossGuard()
    for step in range(WINDOW_STEPS):
        guard.check(step, 1.0)
    guard.check(WINDOW_STEPS, 2.9)
    guard.check(WINDOW_STEPS + 1, 3.1)
    guard.check(WINDOW_STEPS + 2, 3.1)
    with pytest.raises(RunError, match=r"leapt from about 1\.00 to 3\.20"):
        guard.check(WINDOW_STEPS + 3, 3.2)


def test_one_odd_batch_is_no_leap():
    guard = LossGuard()
    for step in range(200):
        guard.check(step, 9.0 if step % 40 == 39 else 1.0)


def test_the_first_steps_are_never_called_a_leap():
    guard = LossGuard()
    guard.check(1, 0.1)
    guard.check(2, 9.0)
