"""MoCo v3's loss against its published algorithm, and what every loss does with targets."""

import pytest
import torch
import torch.nn.functional as F

from groco_cli.losses import GroCoLoss, InfoNCELoss, MoCoLoss, TripletLoss


def keys_of(views: list[torch.Tensor]) -> list[torch.Tensor]:
    return [(3 * view.detach()).cos() for view in views]


def ctr(queries: torch.Tensor, keys: torch.Tensor, temperature: float) -> torch.Tensor:
    """Algorithm 1 of the paper."""
    logits = F.normalize(queries, dim=1) @ F.normalize(keys, dim=1).T
    labels = torch.arange(len(queries))
    return 2 * temperature * F.cross_entropy(logits / temperature, labels)


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_two_views_are_the_published_symmetric_loss(views_of, temperature):
    views = views_of(2, batch=7)
    keys = keys_of(views)
    loss = MoCoLoss(temperature=temperature)(views, targets=keys)
    oracle = ctr(views[0], keys[1], temperature) + ctr(views[1], keys[0], temperature)
    torch.testing.assert_close(loss, oracle)
    for gradient, expected in zip(torch.autograd.grad(loss, views), torch.autograd.grad(oracle, views), strict=True):
        torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize(("count", "positive_views"), [(3, 3), (4, 2)])
def test_more_views_are_averaged_over_pairs_with_a_global_one(views_of, count, positive_views):
    views = views_of(count)
    keys = keys_of(views)
    pairs = [
        ctr(views[a], keys[b], 0.2) + ctr(views[b], keys[a], 0.2)
        for b in range(count)
        for a in range(positive_views)
        if a < b
    ]
    torch.testing.assert_close(MoCoLoss()(views, positive_views, keys), torch.stack(pairs).mean())


def test_only_the_strongest_negatives_count_where_asked(views_of):
    views = views_of(2, batch=5)
    keys = keys_of(views)
    terms = []
    for anchors, others in ((views[0], keys[1]), (views[1], keys[0])):
        similarities = F.normalize(anchors, dim=1) @ F.normalize(others, dim=1).T
        for i, row in enumerate(similarities):
            hardest = row[torch.arange(5) != i].sort(descending=True).values[:2]
            terms.append(-(torch.cat([row[i : i + 1], hardest]) / 0.2).log_softmax(dim=0)[0])
    loss = MoCoLoss(num_negatives=2)(views, targets=keys)
    torch.testing.assert_close(loss, 4 * 0.2 * torch.stack(terms).mean())


LOSSES = [
    GroCoLoss(num_negatives=4),
    GroCoLoss(num_negatives=4, variant="official"),
    InfoNCELoss(stop_gradient=True),
    TripletLoss(num_negatives=4),
    MoCoLoss(),
]


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize(("count", "positive_views"), [(2, 2), (4, 2)])
def test_targets_that_are_the_views_change_nothing(views_of, loss, count, positive_views):
    views = views_of(count)
    with_targets, without = loss(views, positive_views, [view.detach() for view in views]), loss(views, positive_views)
    assert torch.equal(with_targets, without)
    pairs = zip(torch.autograd.grad(with_targets, views), torch.autograd.grad(without, views), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_anchors_are_compared_with_targets_alone(views_of, loss):
    """With targets that all lie apart from the anchors' own images, moving an anchor changes its own term only."""
    views = views_of(2)
    keys = keys_of(views)
    before = loss(views, targets=keys)
    moved = [view.clone() for view in views]
    moved[0][2] = -moved[0][2]
    assert loss(moved, targets=keys) != before
    gradient = torch.autograd.grad(loss(moved, targets=keys), moved, retain_graph=True)[0]
    unmoved = torch.autograd.grad(loss(views, targets=keys), views)[0]
    others = [i for i in range(len(unmoved)) if i != 2]
    torch.testing.assert_close(gradient[others], unmoved[others])


def test_targets_for_some_views_only_are_refused(views_of):
    views = views_of(3)
    with pytest.raises(ValueError, match="2 targets for 3 views"):
        GroCoLoss(num_negatives=2)(views, targets=views[:2])


@pytest.mark.parametrize("arguments", [{"temperature": 0.0}, {"num_negatives": 0}])
def test_impossible_settings_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        MoCoLoss(**arguments)
