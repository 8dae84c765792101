"""Strongest negatives: the same whether found at once or block by block."""

import pytest
import torch
import torch.nn.functional as F

from groco_cli.losses import GroCoLoss
from groco_cli.losses.embeddings import embed
from groco_cli.losses.negatives import _first_places, strongest_negatives
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


@pytest.mark.parametrize("budget", [1, 2000, 2**30])
@pytest.mark.parametrize("count", [1, 4, 9, 22])
def test_of_equal_similarities_the_first_candidates_are_taken(budget, count):
    """Along the axes nearly all are equal; which were taken shows in the gradient of the candidates."""
    generator = torch.Generator().manual_seed(count)
    axes = torch.cat([torch.eye(4), -torch.eye(4)])
    views = [axes[torch.randint(8, (12,), generator=generator)].requires_grad_() for _ in range(2)]
    embeddings = embed(views, stop_gradient=False)
    found = strongest_negatives(embeddings, 0, count, budget=budget)
    (gradient,) = torch.autograd.grad(found.sum(), embeddings.others)

    unit = [view.detach() for view in views]
    expected, taken = [], torch.zeros(2, 12, 4)
    for i in range(12):
        candidates = [(v, j) for v in range(2) for j in range(12) if j != i]
        candidates.sort(key=lambda place: -(unit[0][i] @ unit[place[0]][place[1]]))  # stable
        expected.append([unit[0][i] @ unit[v][j] for v, j in candidates[:count]])
        for v, j in candidates[:count]:
            taken[v, j] += unit[0][i]  # the candidate's gradient
    torch.testing.assert_close(found, torch.tensor(expected))
    torch.testing.assert_close(gradient[1], taken[1])


def test_the_first_of_equal_ones_are_found_without_asking_whether_there_are_any():
    """The way that a GPU takes, against a stable sort; rows without ties, with some, with nothing else."""
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randn(5, 20, generator=generator), torch.randint(3, (8, 20), generator=generator).float()]
    similarities = torch.cat([*rows, torch.zeros(1, 20), torch.full((1, 20), -torch.inf)])
    for count in (1, 2, 7, 19, 20):
        expected = similarities.sort(dim=1, descending=True, stable=True).indices[:, :count].sort(dim=1).values
        least = similarities.topk(count, dim=1).values[:, -1:]
        assert torch.equal(_first_places(similarities, least, count).sort(dim=1).values, expected), count


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
