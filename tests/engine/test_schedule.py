"""The learning rate against the released code's formula, written per fraction of an epoch."""

import math

import pytest

from groco_cli.engine.schedule import learning_rate


@pytest.mark.parametrize(("epochs", "warmup", "per_epoch"), [(100, 1, 13), (200, 10, 7), (5, 0, 4)])
def test_every_step_equals_the_released_schedule(epochs, warmup, per_epoch):
    for step in range(epochs * per_epoch):
        epoch = step / per_epoch
        if epoch < warmup:
            expected = epoch / warmup * 24.0
        else:
            expected = 24.0 * 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup)))
        rate = learning_rate(step, peak=24.0, warmup_steps=warmup * per_epoch, total_steps=epochs * per_epoch)
        assert rate == pytest.approx(expected, abs=1e-12)


def test_a_run_that_is_all_warm_up_never_divides_by_zero():
    rates = [learning_rate(step, peak=1.0, warmup_steps=4, total_steps=4) for step in range(4)]
    assert rates == [0.0, 0.25, 0.5, 0.75]
