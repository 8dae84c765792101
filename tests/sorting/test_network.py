"""The sorting network against PyPI's `diffsort`, and against what a sorting network has to be."""

import diffsort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groco_cli.sorting import SortingNetwork

SIZES = range(2, 34)


def diffsort_of(x: torch.Tensor, beta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Softly sorted values and P from diffsort, whose matrix is indexed [element, place]: ours, transposed."""
    oracle = diffsort.DiffSortNet("odd_even", x.shape[1], steepness=beta, distribution="cauchy")
    oracle.sorting_network = [[matrix.to(x.dtype) for matrix in step] for step in oracle.sorting_network]
    values, matrix = oracle(x)
    return values, matrix.transpose(1, 2)


def random_lists(size: int, count: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(size)
    return torch.randn(count, size, dtype=torch.float64, generator=generator).requires_grad_()


@pytest.mark.parametrize("size", SIZES)
def test_sort_equals_diffsort(size):
    x = random_lists(size)
    values, matrix = SortingNetwork(size, beta=1.7).sort(x)
    oracle_values, oracle_matrix = diffsort_of(x, 1.7)
    torch.testing.assert_close(values, oracle_values, atol=1e-10, rtol=0)
    torch.testing.assert_close(matrix, oracle_matrix, atol=1e-10, rtol=0)
    torch.testing.assert_close((matrix @ x.unsqueeze(-1)).squeeze(-1), values, atol=1e-10, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_group_mass_and_its_gradient_equal_the_summed_matrix_of_diffsort(size):
    x = random_lists(size)
    weights = torch.linspace(-1, 2, size, dtype=torch.float64)
    for k in {1, size // 2, size - 1}:
        mass = SortingNetwork(size, beta=0.9).group_mass(x, k)
        oracle = diffsort_of(x, 0.9)[1][:, :k].sum(dim=1)
        torch.testing.assert_close(mass, oracle, atol=1e-10, rtol=0)
        (gradient,) = torch.autograd.grad((mass * weights).sum(), x)
        (oracle_gradient,) = torch.autograd.grad((oracle * weights).sum(), x)
        torch.testing.assert_close(gradient, oracle_gradient, atol=1e-10, rtol=0)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.floats(-100, 100), min_size=2, max_size=12),
    st.floats(0.01, 100),
)
def test_the_matrix_is_doubly_stochastic_and_masses_sum_to_k(numbers, beta):
    x = torch.tensor([numbers], dtype=torch.float64)
    network = SortingNetwork(len(numbers), beta=beta)
    _, matrix = network.sort(x)
    ones = torch.ones_like(x)
    torch.testing.assert_close(matrix.sum(dim=1), ones)
    torch.testing.assert_close(matrix.sum(dim=2), ones)
    assert (matrix >= -1e-12).all()
    k = len(numbers) // 2
    torch.testing.assert_close(network.group_mass(x, k).sum(dim=1), torch.full((1,), float(k), dtype=torch.float64))


@pytest.mark.parametrize("size", [2, 3, 10, 11])
def test_a_large_beta_sorts_hard(size):
    x = random_lists(size).detach()
    values, matrix = SortingNetwork(size, beta=1e9).sort(x)
    torch.testing.assert_close(values, x.sort(dim=1).values, atol=1e-6, rtol=0)
    torch.testing.assert_close(matrix.argmax(dim=2), x.argsort(dim=1))


@pytest.mark.parametrize("size", [2, 5, 6])
def test_gradients_of_sort_and_group_mass_are_right(size):
    network = SortingNetwork(size, beta=2.0)
    x = random_lists(size, count=2)
    assert torch.autograd.gradcheck(lambda v: network.sort(v)[0], x)
    assert torch.autograd.gradcheck(lambda v: network.group_mass(v, 1), x)


def test_two_elements_swap_with_the_probability_of_equation_3():
    x = torch.tensor([[0.3, -0.2]], dtype=torch.float64)
    f = torch.atan(torch.tensor(2.0 * (-0.2 - 0.3), dtype=torch.float64)) / torch.pi + 0.5  # stay in order
    _, matrix = SortingNetwork(2, beta=2.0).sort(x)
    torch.testing.assert_close(matrix[0], torch.stack([torch.stack([f, 1 - f]), torch.stack([1 - f, f])]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    x = random_lists(11).detach().to(dtype)
    mass = SortingNetwork(11).group_mass(x, 3)
    assert mass.dtype == torch.float32
    torch.testing.assert_close(mass, SortingNetwork(11).group_mass(x.float(), 3))


def test_any_leading_shape_is_sorted_along_the_last_axis():
    x = random_lists(5, count=12).detach()
    network = SortingNetwork(5)
    torch.testing.assert_close(network.group_mass(x.view(3, 4, 5), 2), network.group_mass(x, 2).view(3, 4, 5))
    torch.testing.assert_close(network.sort(x.view(3, 4, 5))[1], network.sort(x)[1].view(3, 4, 5, 5))


def test_a_first_use_in_inference_mode_does_not_spoil_training():
    size = 29  # no other test has this size on float32, so the steps are made here
    with torch.inference_mode():
        SortingNetwork(size).group_mass(torch.randn(2, size), 3)
    x = torch.randn(2, size, requires_grad=True)
    SortingNetwork(size).group_mass(x, 3).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 1}, "at least 2"),
        ({"size": 4, "beta": 0.0}, "positive"),
        ({"size": 4, "kind": "bubble"}, "odd_even"),
        ({"size": 4, "relaxation": "step"}, "cauchy"),
    ],
)
def test_impossible_networks_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SortingNetwork(**arguments)


def test_lists_and_group_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="sorts 4 elements"):
        SortingNetwork(4).sort(torch.zeros(1, 5))
    with pytest.raises(ValueError, match="between 0 and"):
        SortingNetwork(4).group_mass(torch.zeros(1, 4), 5)
