"""Strongest negatives: the same whether found at once or block by block."""

import pytest
import torch
import torch.nn.functional as F

from groco_cli.losses import GroCoLoss
from groco_cli.losses.embeddings import embed
from groco_cli.losses.negatives import strongest_negatives
from groco_cli.losses.statistics import similarity_statistics


@pytest.mark.parametrize("in_batch_order", [True, False])
@pytest.mark.parametrize("stop_gradient", [True, False])
@pytest.mark.parametrize("candidates", [slice(None), slice(1, 2)])
@pytest.mark.parametrize("budget", [1, 1000, 2000])  # one anchor at a time, a few, nearly all
def test_blocks_give_the_same_values_and_gradients(views_of, budget, candidates, stop_gradient, in_batch_order):
    views = views_of(3, batch=10)
    results = []
    for bytes_at_a_time in (budget, 2**30):
        embeddings = embed(views, stop_gradient=stop_gradient)
        found = strongest_negatives(embeddings, 1, 4, candidates, in_batch_order=in_batch_order, budget=bytes_at_a_time)
        weights = torch.arange(1.0, found.numel() + 1, dtype=found.dtype).view_as(found)
        gradients = torch.autograd.grad((found * weights).sum(), views, allow_unused=True)
        results.append((found, gradients))
    (found, gradients), (expected, expected_gradients) = results
    torch.testing.assert_close(found, expected)
    for gradient, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, wanted)


def test_they_are_the_largest_of_other_images(views_of):
    views = views_of(2, batch=6)
    unit = F.normalize(torch.stack(views), dim=-1)
    found = strongest_negatives(embed(views, stop_gradient=True), 0, 3)
    for i in range(6):
        others = sorted((unit[0, i] @ unit[v, j] for v in range(2) for j in range(6) if j != i), reverse=True)
        torch.testing.assert_close(found[i], torch.stack(others[:3]))


def test_ties_are_broken_the_same_way_every_time():
    views = [torch.ones(8, 3, dtype=torch.float64).requires_grad_() for _ in range(2)]
    gradients = []
    for _ in range(3):
        noise = [view * torch.linspace(1, 2, 8, dtype=torch.float64)[:, None] for view in views]
        gradients.append(torch.autograd.grad(GroCoLoss(num_negatives=3, stop_gradient=False)(noise), views))
    for again in gradients[1:]:
        assert all(torch.equal(a, b) for a, b in zip(gradients[0], again, strict=True))


def test_the_curve_s_similarities_are_those_of_the_first_view(views_of):
    views = views_of(3, batch=5)
    unit = F.normalize(torch.stack(views), dim=-1)
    positive, negative = similarity_statistics(views, positive_views=2, num_negatives=4)
    torch.testing.assert_close(positive.double(), (unit[0] * unit[1]).sum(-1).mean())
    strongest = [
        torch.stack([unit[0, i] @ unit[v, j] for v in range(3) for j in range(5) if j != i]).topk(4).values
        for i in range(5)
    ]
    torch.testing.assert_close(negative, torch.stack(strongest).mean())
