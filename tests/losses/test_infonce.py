"""InfoNCE against a naive loop over pairs of views, and against torch's cross-entropy for SimCLR's two views."""

import pytest
import torch
import torch.nn.functional as F

from groco_cli.losses import InfoNCELoss


def naive(views, *, temperature, positive_views, num_negatives=None, stop_gradient=False):
    unit = [F.normalize(view, dim=1) for view in views]
    others = [u.detach() if stop_gradient else u for u in unit]
    count, batch = len(views), len(views[0])
    pair_losses = []
    for n in range(positive_views):
        for m in range(n + 1, count):
            terms = []
            for a, b in ((n, m), (m, n)):
                for i in range(batch):
                    negatives = torch.stack(
                        [unit[a][i] @ others[v][j] for v in range(count) for j in range(batch) if j != i]
                    )
                    if num_negatives:
                        negatives = negatives.sort(descending=True).values[:num_negatives]
                    scores = torch.cat([(unit[a][i] @ others[b][i])[None], negatives]) / temperature
                    terms.append(-scores.log_softmax(dim=0)[0])
            pair_losses.append(torch.stack(terms).mean())
    return torch.stack(pair_losses).mean()


@pytest.mark.parametrize("stop_gradient", [True, False])
@pytest.mark.parametrize("num_negatives", [None, 1, 4])
@pytest.mark.parametrize(("count", "positive_views"), [(2, 2), (3, 3), (4, 2)])
def test_loss_and_gradients_equal_a_loop_over_pairs(views_of, count, positive_views, num_negatives, stop_gradient):
    views = views_of(count, batch=4)
    options = {"temperature": 0.2, "num_negatives": num_negatives, "stop_gradient": stop_gradient}
    loss = InfoNCELoss(**options)(views, positive_views)
    oracle = naive(views, positive_views=positive_views, **options)
    torch.testing.assert_close(loss, oracle)
    for gradient, expected in zip(torch.autograd.grad(loss, views), torch.autograd.grad(oracle, views), strict=True):
        torch.testing.assert_close(gradient, expected)


def test_two_views_are_simclr_s_cross_entropy(views_of):
    views = views_of(2, batch=8)
    unit = F.normalize(torch.cat(views), dim=1)
    scores = (unit @ unit.T / 0.1).fill_diagonal_(-torch.inf)
    oracle = F.cross_entropy(scores, torch.arange(16).roll(8))
    torch.testing.assert_close(InfoNCELoss(temperature=0.1)(views), oracle)


def test_it_is_computed_in_float32_under_autocast(views_of):
    views = [view.detach().bfloat16() for view in views_of(2)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert InfoNCELoss()(views).dtype == torch.float32


@pytest.mark.parametrize("arguments", [{"temperature": 0.0}, {"num_negatives": 0}])
def test_impossible_settings_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        InfoNCELoss(**arguments)


def test_too_few_negatives_or_views_are_refused(views_of):
    with pytest.raises(ValueError, match="only 10 negatives"):
        InfoNCELoss(num_negatives=11)(views_of(2, batch=6))
    with pytest.raises(ValueError, match="at least 2"):
        InfoNCELoss()(views_of(1))
