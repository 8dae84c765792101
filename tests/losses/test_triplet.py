"""The triplet loss against a naive loop."""

import math

import pytest
import torch
import torch.nn.functional as F

from groco_cli.losses import TripletLoss


def naive(views, *, margin, num_negatives, positive_views, stop_gradient):
    unit = [F.normalize(view, dim=1) for view in views]
    others = [u.detach() if stop_gradient else u for u in unit]
    count, batch = len(views), len(views[0])
    per_anchor = []
    for a in range(count):
        for i in range(batch):
            positives = [-(unit[a][i] @ others[v][i]) for v in range(positive_views) if v != a]
            negatives = [-(unit[a][i] @ others[v][j]) for v in range(count) for j in range(batch) if j != i]
            negatives = sorted(negatives, key=lambda d: d.item())[:num_negatives]
            terms = [
                p - n if math.isinf(margin) else (p - n + margin).clamp(min=0) for p in positives for n in negatives
            ]
            per_anchor.append(torch.stack(terms).mean())
    return torch.stack(per_anchor).mean()


@pytest.mark.parametrize("margin", [0.0, 0.8, 1.6, math.inf])
@pytest.mark.parametrize("stop_gradient", [True, False])
@pytest.mark.parametrize(("count", "positive_views"), [(2, 2), (4, 4), (4, 2)])
def test_loss_and_gradients_equal_a_loop_over_triplets(views_of, count, positive_views, stop_gradient, margin):
    views = views_of(count, batch=5)
    options = {"margin": margin, "num_negatives": 6, "stop_gradient": stop_gradient}
    loss = TripletLoss(**options)(views, positive_views)
    oracle = naive(views, positive_views=positive_views, **options)
    torch.testing.assert_close(loss, oracle)
    for gradient, expected in zip(torch.autograd.grad(loss, views), torch.autograd.grad(oracle, views), strict=True):
        torch.testing.assert_close(gradient, expected)


def test_without_a_hinge_well_placed_triplets_still_count():
    eye = torch.eye(8, dtype=torch.float64)
    assert TripletLoss(margin=0.8, num_negatives=3)([eye, eye]) == 0
    assert TripletLoss(margin=math.inf, num_negatives=3)([eye, eye]) == -1


@pytest.mark.parametrize("arguments", [{"margin": -0.1}, {"margin": math.nan}, {"num_negatives": 0}])
def test_impossible_settings_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        TripletLoss(**arguments)
