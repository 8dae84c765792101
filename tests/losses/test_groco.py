"""The GroCo loss against a naive loop over Eq. 1–6, and against the released code's way through `diffsort`."""

import math

import diffsort
import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from groco_cli.losses import GroCoLoss, group_ordering_loss
from groco_cli.sorting import SortingNetwork


def views_of(count: int, batch: int = 6, dim: int = 5, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, dim, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(count)]


def cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a * b).sum() / (a.norm() * b.norm())


def equation_6(distances: list[torch.Tensor], num_positives: int, beta: float) -> torch.Tensor:
    """Eq. 2–6 for one list, the permutation matrix built step by step."""
    n = len(distances)
    values, matrix = list(distances), torch.eye(n, dtype=torch.float64)
    for s in range(n):
        step = torch.eye(n, dtype=torch.float64)
        for i in range(s % 2, n - 1, 2):
            f = torch.atan(beta * (values[i + 1] - values[i])) / math.pi + 0.5
            keep = torch.zeros(n, n, dtype=torch.float64)
            swap = torch.zeros(n, n, dtype=torch.float64)
            keep[i, i] = keep[i + 1, i + 1] = 1
            swap[i, i + 1] = swap[i + 1, i] = 1
            step = step - keep + f * keep + (1 - f) * swap
        matrix = step @ matrix
        column = step @ torch.stack(values)
        values = list(column)
    loss = torch.zeros((), dtype=torch.float64)
    for i in range(n):
        positive = torch.tensor(float(i < num_positives), dtype=torch.float64)
        in_front, behind = matrix[:num_positives, i].sum(), matrix[num_positives:, i].sum()
        loss = loss + F.binary_cross_entropy(in_front, positive) + F.binary_cross_entropy(behind, 1 - positive)
    return loss / (2 * n)


def naive_paper_loss(views, *, negatives, beta, preorder, stop_gradient, positive_views):
    others = [v.detach() if stop_gradient else v for v in views]
    losses = []
    for a in range(len(views)):
        for i in range(len(views[0])):
            anchor = views[a][i]
            pos = [-cosine(anchor, others[v][i]) for v in range(positive_views) if v != a]
            neg = [-cosine(anchor, others[v][j]) for v in range(len(views)) for j in range(len(views[0])) if j != i]
            strongest = sorted(range(len(neg)), key=lambda j: neg[j].item())[:negatives]
            if preorder:
                pos = sorted(pos, key=lambda d: d.item())
            else:
                strongest = sorted(strongest)
            losses.append(equation_6([*pos, *(neg[j] for j in strongest)], len(pos), beta))
    return torch.stack(losses).mean()


def released_code_loss(views, *, negatives, beta, stop_gradient, positive_views, kind="odd_even", relaxation="cauchy"):
    """As losses/groco.py of the released code goes about it: similarities ascending, summed matrix, both BCE terms."""
    losses = []
    for anchors in views:
        pos = [
            F.cosine_similarity(anchors, v.detach() if stop_gradient else v)
            for v in views[:positive_views]
            if v is not anchors
        ]
        unit = F.normalize(anchors, dim=1)
        similarity = unit @ (unit.detach() if stop_gradient else unit).T
        similarity = similarity.masked_fill(torch.eye(len(unit), dtype=torch.bool), -torch.inf)
        pos_sorted = torch.stack(pos, dim=1).sort(dim=1).values
        neg_sorted = similarity.topk(negatives, dim=1).values.flip(1)
        lists = torch.cat([neg_sorted, pos_sorted], dim=1)
        sorter = diffsort.DiffSortNet(kind, lists.shape[1], steepness=beta, distribution=relaxation)
        sorter.sorting_network = [[m.double() for m in step] for step in sorter.sorting_network]
        matrix = sorter(lists)[1]
        is_negative = (torch.arange(lists.shape[1]) < negatives).double().expand_as(lists)
        losses.append(
            (
                F.binary_cross_entropy(matrix[:, :, negatives:].sum(2).clip(0, 1), 1 - is_negative)
                + F.binary_cross_entropy(matrix[:, :, :negatives].sum(2).clip(0, 1), is_negative)
            )
            / 2
        )
    return torch.stack(losses).mean()


def assert_same_loss_and_gradients(loss, oracle, views):
    torch.testing.assert_close(loss, oracle, atol=1e-12, rtol=1e-10)
    gradients = torch.autograd.grad(loss, views, retain_graph=True)
    for gradient, expected in zip(gradients, torch.autograd.grad(oracle, views), strict=True):
        torch.testing.assert_close(gradient, expected, atol=1e-11, rtol=1e-9)


@pytest.mark.parametrize("preorder", [True, False])
@pytest.mark.parametrize("stop_gradient", [True, False])
@pytest.mark.parametrize(("count", "negatives", "beta"), [(2, 3, 1.0), (3, 1, 0.25), (3, 4, 8.0), (4, 10, 1.0)])
def test_paper_variant_equals_a_loop_over_the_equations(count, negatives, beta, stop_gradient, preorder):
    views = views_of(count, batch=4)
    options = {"beta": beta, "preorder": preorder, "stop_gradient": stop_gradient}
    loss = GroCoLoss(num_negatives=negatives, **options)(views)
    oracle = naive_paper_loss(views, negatives=negatives, positive_views=count, **options)
    assert_same_loss_and_gradients(loss, oracle, views)


def test_multi_crop_takes_the_global_views_alone_as_positives():
    views = views_of(4, batch=4)
    loss = GroCoLoss(num_negatives=5)(views, positive_views=2)
    oracle = naive_paper_loss(views, negatives=5, beta=1.0, preorder=True, stop_gradient=True, positive_views=2)
    assert_same_loss_and_gradients(loss, oracle, views)


@pytest.mark.parametrize("relaxation", ["cauchy", "logistic", "logistic_phi", "gaussian", "reciprocal", "optimal"])
@pytest.mark.parametrize("kind", ["odd_even", "bitonic"])
def test_every_network_and_relaxation_equals_the_released_codes_way_with_diffsorts(kind, relaxation):
    views = views_of(2, batch=9)
    chosen = {"kind": kind, "relaxation": relaxation}
    loss = GroCoLoss(num_negatives=7, beta=2.0, variant="official", **chosen)(views)
    oracle = released_code_loss(views, negatives=7, beta=2.0, stop_gradient=True, positive_views=2, **chosen)
    assert_same_loss_and_gradients(loss, oracle, views)
    plain = GroCoLoss(num_negatives=7, beta=2.0)(views)
    ours = GroCoLoss(num_negatives=7, beta=2.0, **chosen)(views)
    assert torch.allclose(plain, ours, rtol=1e-6) is (chosen == {"kind": "odd_even", "relaxation": "cauchy"})


@pytest.mark.parametrize("stop_gradient", [True, False])
@pytest.mark.parametrize(("count", "positive_views"), [(2, 2), (3, 3), (4, 2)])
@pytest.mark.parametrize("negatives", [2, 5])
def test_official_variant_equals_the_released_code(count, positive_views, negatives, stop_gradient):
    views = views_of(count, batch=7)
    loss = GroCoLoss(num_negatives=negatives, variant="official", stop_gradient=stop_gradient)(views, positive_views)
    oracle = released_code_loss(
        views, negatives=negatives, beta=1.0, stop_gradient=stop_gradient, positive_views=positive_views
    )
    assert_same_loss_and_gradients(loss, oracle, views)


def test_reversing_the_list_matters_for_odd_lengths_only():
    for size, same in ((10, True), (11, False)):
        distances = torch.randn(3, size, dtype=torch.float64, generator=torch.Generator().manual_seed(size))
        forwards = group_ordering_loss(distances, 2)
        backwards = group_ordering_loss(-distances.flip(1), size - 2)
        assert torch.allclose(forwards, backwards, atol=1e-9) is same


def test_unordered_groups_keep_the_batch_order_and_give_another_loss():
    views = views_of(3)
    assert GroCoLoss(num_negatives=6)(views) != GroCoLoss(num_negatives=6, preorder=False)(views)


def test_stop_gradient_changes_the_gradient_but_not_the_loss():
    views = views_of(2)
    losses = [GroCoLoss(num_negatives=4, stop_gradient=stop)(views) for stop in (True, False)]
    torch.testing.assert_close(*losses)
    stopped, free = (torch.autograd.grad(loss, views)[0] for loss in losses)
    assert not torch.allclose(stopped, free)


def test_a_well_ordered_batch_has_a_smaller_loss_than_a_disordered_one():
    eye = torch.eye(8, dtype=torch.float64)
    aligned = GroCoLoss(num_negatives=3)([eye, eye])
    crossed = GroCoLoss(num_negatives=3)([eye, eye.roll(1, 0)])
    assert aligned < crossed


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_loss_is_float32_whatever_autocast_says(dtype):
    views = [view.detach().to(dtype) for view in views_of(2)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = GroCoLoss(num_negatives=4)(views)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, GroCoLoss(num_negatives=4)([view.float() for view in views]))


class LargestTensor(TorchDispatchMode):
    """Notes the size of the largest result of any operation, backward ones too."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def test_no_permutation_matrix_is_built_on_the_way():
    anchors, size = 16, 24
    distances = torch.randn(anchors, size, requires_grad=True)
    with LargestTensor() as seen:
        group_ordering_loss(distances, 4).sum().backward()
    assert seen.elements == anchors * size
    with LargestTensor() as matrix:
        SortingNetwork(size).sort(distances)
    assert matrix.elements == anchors * size * size


def test_a_zero_projection_gives_finite_gradients():
    views = [torch.zeros(4, 3, requires_grad=True), torch.randn(4, 3)]
    GroCoLoss(num_negatives=2)(views).backward()
    assert views[0].grad.isfinite().all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: GroCoLoss(num_negatives=0), "at least 1"),
        (lambda: GroCoLoss(variant="mine"), "paper and official"),
        (lambda: GroCoLoss(beta=-1), "beta must be positive, not -1"),
        (lambda: GroCoLoss(beta=math.nan), "beta must be positive, not nan"),
        (lambda: GroCoLoss(kind="bubble"), "unknown sorting network 'bubble'"),
        (lambda: GroCoLoss(relaxation="laplace"), "unknown relaxation 'laplace'"),
        (lambda: GroCoLoss()(views_of(2, batch=5)), "only 8 negatives in a batch of 5"),
        (lambda: GroCoLoss(variant="official")(views_of(2)), "only 5 negatives"),
        (lambda: GroCoLoss()(views_of(1)), "at least 2"),
        (lambda: GroCoLoss()(views_of(3), positive_views=1), "at least 2"),
    ],
)
def test_impossible_losses_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
