"""Every relaxation and network against `diffsort`, and against what a comparator has to be."""

import diffsort
import pytest
import torch

from groco_cli.sorting import SortingNetwork
from groco_cli.sorting.comparators import NETWORKS
from groco_cli.sorting.relaxations import RELAXATIONS

SIZES = [*range(2, 20), 31, 32, 33]


def diffsort_of(x: torch.Tensor, kind: str, relaxation: str, beta: float) -> tuple[torch.Tensor, torch.Tensor]:
    oracle = diffsort.DiffSortNet(kind, x.shape[1], steepness=beta, art_lambda=0.25, distribution=relaxation)
    oracle.sorting_network = [[matrix.double() for matrix in step] for step in oracle.sorting_network]
    values, matrix = oracle(x)
    return values, matrix.transpose(1, 2)


def lists(size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(size)
    return torch.randn(3, size, dtype=torch.float64, generator=generator).requires_grad_()


@pytest.mark.parametrize("relaxation", RELAXATIONS)
@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("size", SIZES)
def test_sort_mass_and_gradients_equal_diffsort(size, kind, relaxation):
    x, k = lists(size), max(1, size // 3)
    beta = 2.0  # diffsort keeps 1/beta in float32 for the gaussian's gradient: a power of two is exact there
    network = SortingNetwork(size, kind, relaxation, beta)
    values, matrix = network.sort(x)
    oracle_values, oracle_matrix = diffsort_of(x, kind, relaxation, beta)
    torch.testing.assert_close(values, oracle_values, atol=1e-10, rtol=0)
    torch.testing.assert_close(matrix, oracle_matrix, atol=1e-10, rtol=0)
    weights = torch.linspace(-1, 2, size, dtype=torch.float64)
    masses = [network.group_mass(x, k), network.group_mass_eager(x, k), oracle_matrix[:, :k].sum(dim=1)]
    gradients = [torch.autograd.grad((mass * weights).sum(), x, retain_graph=True)[0] for mass in masses]
    for mass, gradient in zip(masses[:2], gradients[:2], strict=True):
        torch.testing.assert_close(mass, masses[2], atol=1e-10, rtol=0)
        torch.testing.assert_close(gradient, gradients[2], atol=1e-10, rtol=0)


@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_slopes_are_the_derivatives_and_values_are_probabilities(relaxation):
    value, slope = RELAXATIONS[relaxation]
    d = torch.linspace(-3, 3, 1201, dtype=torch.float64).requires_grad_()
    for beta in (0.3, 1.0, 7.0):
        p = value(d, beta)
        (derivative,) = torch.autograd.grad(p.sum(), d)
        off_the_corner = d.detach().abs() > 1e-3  # logistic_phi is steep beyond float64's finite differences at 0
        torch.testing.assert_close(slope(d.detach(), beta)[off_the_corner], derivative[off_the_corner])
        torch.testing.assert_close(value(-d, beta), 1 - p)
        assert (p >= 0).all()
        assert (p <= 1).all()
        assert (p.diff() >= 0).all()


@pytest.mark.parametrize("relaxation", RELAXATIONS)
@pytest.mark.parametrize("kind", NETWORKS)
def test_the_backward_pass_is_right(kind, relaxation):
    network = SortingNetwork(6, kind, relaxation, 1.5)
    assert torch.autograd.gradcheck(lambda x: network.group_mass(x, 2), lists(6))


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("size", SIZES)
def test_a_large_beta_is_the_network_s_hard_sort(size, kind):
    x = lists(size).detach()
    values, _ = SortingNetwork(size, kind, beta=1e9).sort(x)
    torch.testing.assert_close(values, x.sort(dim=1).values, atol=1e-6, rtol=0)


def test_bitonic_networks_have_fewer_steps():
    assert [len(NETWORKS["bitonic"](size)) for size in (2, 4, 8, 16, 32)] == [1, 3, 6, 10, 15]
    assert len(NETWORKS["odd_even"](32)) == 32


def test_equal_values_share_their_places_evenly():
    x = torch.zeros(1, 2, dtype=torch.float64)
    for relaxation in RELAXATIONS:
        torch.testing.assert_close(SortingNetwork(2, relaxation=relaxation).group_mass(x, 1), torch.full_like(x, 0.5))


@pytest.mark.parametrize("odd", [torch.nan, torch.inf, -torch.inf])
def test_what_is_no_number_spoils_its_own_list_alone(odd):
    x = torch.tensor([[0.1, odd, 0.3], [0.1, 0.2, 0.3]])
    mass = SortingNetwork(3).group_mass(x, 1)
    assert mass[0].isnan().any()
    assert mass[1].isfinite().all()
