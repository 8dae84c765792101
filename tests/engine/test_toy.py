import math

import numpy as np
import pytest
import torch

from groco_cli.engine.toy import ToyRun, ToySettings, groco_toy_loss, infonce_toy_loss, run_toy
from groco_cli.errors import GrocoError, UsageError


def naive_groco(similarities, beta):
    """Eq. 2-4 with every matrix written out, then the cross-entropy of landing in the first place."""
    positive, *negatives = similarities
    values = -np.array([positive, *sorted(negatives, reverse=True)])
    n = len(values)
    permutation = np.eye(n)
    for step in range(n):
        swap = np.eye(n)
        for i in range(step % 2, n - 1, 2):
            stay = math.atan(beta * (values[i + 1] - values[i])) / math.pi + 0.5
            swap[i : i + 2, i : i + 2] = [[stay, 1 - stay], [1 - stay, stay]]
        values = swap @ values
        permutation = swap @ permutation
    first = permutation[0]
    return -(math.log(first[0]) + sum(math.log(1 - mass) for mass in first[1:])) / n


def naive_infonce(similarities, temperature):
    weights = [math.exp(similarity / temperature) for similarity in similarities]
    return -math.log(weights[0] / sum(weights))


def naive_descent(loss, start, lr, steps, eps=1e-6):
    ways = [np.array(start)]
    for _ in range(steps):
        here = ways[-1]
        nudges = np.eye(len(here)) * eps
        gradient = [(loss(here + nudge) - loss(here - nudge)) / (2 * eps) for nudge in nudges]
        ways.append(here - lr * np.array(gradient))
    return np.array(ways)


@pytest.mark.parametrize("start", [(0.1, 0.6, 0.45, 0.3, 0.05), (0.2, -0.4, 0.5, 0.1), (-0.3, 0.3)])
def test_descends_as_a_naive_loop_with_finite_differences(start):
    settings = ToySettings(start, beta=3, temperature=0.4, lr=0.02, margin=0.3)
    result = run_toy(settings)
    for run, loss in [
        (result.groco, lambda s: naive_groco(s, settings.beta)),
        (result.infonce, lambda s: naive_infonce(s, settings.temperature)),
    ]:
        steps = min(run.steps, 12)
        expected = naive_descent(loss, start, settings.lr, steps)
        np.testing.assert_allclose(run.trajectory[: steps + 1].numpy(), expected, rtol=0, atol=1e-8)


def test_losses_equal_the_naive_ones():
    similarities = torch.tensor([0.3, -0.2, 0.8, 0.1, 0.75, -0.9], dtype=torch.float64)
    assert float(groco_toy_loss(similarities, beta=2.5)) == pytest.approx(naive_groco(similarities.tolist(), 2.5))
    assert float(infonce_toy_loss(similarities, temperature=0.2)) == pytest.approx(
        naive_infonce(similarities.tolist(), 0.2)
    )


@pytest.mark.parametrize(("beta", "moved"), [(8, -0.0007), (1, -0.0996)])
def test_groco_moves_the_farthest_negative_as_measured(beta, moved):
    assert run_toy(ToySettings(beta=beta)).groco.farthest_moved == pytest.approx(moved, abs=5e-4)


@pytest.mark.parametrize(("temperature", "moved"), [(0.5, -0.116), (0.1, -0.015)])
def test_infonce_moves_the_farthest_negative_as_measured(temperature, moved):
    assert run_toy(ToySettings(temperature=temperature)).infonce.farthest_moved == pytest.approx(moved, abs=5e-4)


def test_the_defaults_show_the_paper_s_point():
    result = run_toy(ToySettings())
    assert abs(result.groco.farthest_moved) < 0.01 * abs(result.infonce.farthest_moved)
    assert result.infonce.final[4] < -0.05 < 0 < result.groco.final[4]
    assert all(moved < -0.1 for moved in result.infonce.moved[1:])


@pytest.mark.parametrize("loss", ["groco", "infonce"])
def test_a_run_ends_with_the_step_that_reaches_the_margin(loss):
    settings = ToySettings()
    run: ToyRun = getattr(run_toy(settings), loss)
    leads = run.trajectory[:, 0] - run.trajectory[:, 1:].max(dim=1).values
    assert (leads[:-1] < settings.margin).all()
    assert settings.margin <= run.margin == float(leads[-1]) < settings.margin + 0.01
    assert run.start == list(settings.start)
    assert run.trajectory.shape == (run.steps + 1, 5)
    assert run.trajectory.dtype == torch.float64
    assert run.moved == pytest.approx([end - begin for begin, end in zip(run.start, run.final, strict=True)])


def test_the_end_depends_little_on_the_learning_rate():
    coarse, fine = run_toy(ToySettings(lr=0.01)), run_toy(ToySettings(lr=0.0025))
    assert coarse.groco.final == pytest.approx(fine.groco.final, abs=0.01)
    assert coarse.infonce.final == pytest.approx(fine.infonce.final, abs=0.01)


def test_the_order_of_the_negatives_changes_nothing():
    one = run_toy(ToySettings((0.1, 0.6, 0.45, 0.3, 0.05)))
    other = run_toy(ToySettings((0.1, 0.05, 0.45, 0.6, 0.3)))
    order = [0, 3, 2, 4, 1]
    torch.testing.assert_close(one.groco.trajectory, other.groco.trajectory[:, order])
    torch.testing.assert_close(one.infonce.trajectory, other.infonce.trajectory[:, order])
    assert one.groco.farthest_moved == pytest.approx(other.groco.farthest_moved)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"start": (0.1,)}, "--start needs one positive and at least one negative"),
        ({"start": ()}, "--start needs one positive and at least one negative"),
        ({"start": (0.1, math.nan)}, "--start must be similarities between -1 and 1"),
        ({"start": (0.1, 1.5)}, "--start must be similarities between -1 and 1"),
        ({"beta": 0}, "--beta must be positive, not 0"),
        ({"temperature": -0.5}, "--temperature must be positive, not -0.5"),
        ({"lr": math.inf}, "--lr must be positive, not inf"),
        ({"steps": 0}, "--steps must be at least 1, not 0"),
        ({"margin": -0.5}, "--margin must be more than the start's own, -0.5, not -0.5"),
        ({"margin": math.nan}, "--margin must be more than the start's own, -0.5, not nan"),
    ],
)
def test_settings_that_cannot_be_used_name_their_option(wrong, message):
    with pytest.raises(UsageError) as error:
        ToySettings(**wrong)
    assert error.value.message == message


def test_a_margin_out_of_reach_says_what_to_raise():
    with pytest.raises(GrocoError, match=r"GroCo reached a margin of -0\.467 in 5 steps, not 0\.6") as error:
        run_toy(ToySettings(steps=5))
    assert error.value.hint == "raise --steps or --lr, or lower --margin"


@pytest.mark.parametrize("wrong", [{"lr": 1e300}, {"temperature": 1e-308}])
def test_a_descent_that_diverges_says_so(wrong):
    with pytest.raises(GrocoError, match="diverged at step 1"):
        run_toy(ToySettings(**wrong))
