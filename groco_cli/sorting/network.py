"""The differentiable sorting network: soft sort, permutation matrix and group mass (section 3.3.1, Eq. 2–4).

One step compares pairs of places. With p the probability that a pair already stands in order, every quantity that
passes through the step is mixed in the same way,

    first' = p first + (1 - p) second,    second' = (1 - p) first + p second,

because the step's permutation matrix P_s is symmetric: P_s x sorts the values a little further (Eq. 2), P_s P_(s-1)…
builds the permutation matrix (Eq. 4). The loss needs neither; see `groco_cli.sorting.group_mass`.
"""

import torch
from torch import Tensor

from groco_cli.sorting.comparators import NETWORKS, steps_of
from groco_cli.sorting.forms import form_for
from groco_cli.sorting.group_mass import group_mass_eager
from groco_cli.sorting.relaxations import RELAXATIONS


class SortingNetwork:
    """A sorting network whose conditional swaps are relaxed, in non-descending order.

    Equal values: p is 1/2, so they share both places evenly. NaN, and infinite values, whose mixture with others is not
    a number, spoil their own list and no other.

    Args:
        size: Number of elements n to sort, at least 2.
        kind: "odd_even" (n steps, the paper's) or "bitonic" (about (log₂ n)²/2 steps).
        relaxation: "cauchy" (Eq. 3, the paper's), "logistic", "logistic_phi", "gaussian", "reciprocal" or "optimal".
        beta: Inverse temperature β > 0; the hard sort as β → ∞.

    Raises:
        ValueError: For a size below 2, a β that is not positive, an unknown kind or relaxation.

    Source: Petersen et al., "Differentiable sorting networks" (ICML 2021) and "Monotonic differentiable sorting
    networks" (ICLR 2022).
    """

    def __init__(self, size: int, kind: str = "odd_even", relaxation: str = "cauchy", beta: float = 1.0) -> None:
        if size < 2:
            raise ValueError(f"a sorting network needs at least 2 elements, not {size}")
        if not beta > 0:
            raise ValueError(f"the inverse temperature beta must be positive, not {beta}")
        if kind not in NETWORKS:
            raise ValueError(f"unknown sorting network {kind!r}; there are {', '.join(NETWORKS)}")
        if relaxation not in RELAXATIONS:
            raise ValueError(f"unknown relaxation {relaxation!r}; there are {', '.join(RELAXATIONS)}")
        self.size, self.kind, self.relaxation, self.beta = size, kind, relaxation, beta

    def __repr__(self) -> str:
        return f"SortingNetwork({self.size}, {self.kind!r}, {self.relaxation!r}, beta={self.beta})"

    def sort(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Sort softly, and say how: the relaxed permutation matrix, doubly stochastic.

        Args:
            x: Values to sort, [A, n] (or any leading shape); half precision is computed in float32.

        Returns:
            The softly sorted values [A, n] and P [A, n, n] with `sorted = P @ x`; P[:, j, i] is the probability that
            input element i lands in place j.
        """
        values = self._checked(x)
        matrix = torch.eye(self.size, dtype=values.dtype, device=x.device).expand(*values.shape, self.size)
        probability = RELAXATIONS[self.relaxation].value
        for first, second in steps_of(self.kind, self.size):
            low, high = values[..., first], values[..., second]
            p = probability(high - low, self.beta)
            values = _mixed(values, p, first, second, dim=-1)
            matrix = _mixed(matrix, p.unsqueeze(-1), first, second, dim=-2)
        return values, matrix

    def group_mass(self, x: Tensor, k: int) -> Tensor:
        """For each input element, the probability that it lands in the first k places: the column sums 1ₖᵀP.

        Exact, in O(n) numbers a step; nothing of size n² an anchor is kept beyond the steps' probabilities. On a GPU
        that Triton runs on, one kernel forward and one backward.

        Args:
            x: Values to sort, [A, n] (or any leading shape); half precision is computed in float32.
            k: Number of places at the front, 0 ≤ k ≤ n.

        Returns:
            Probabilities [A, n], in the order of the input; they sum to k.
        """
        values, places = self._checked(x), self._checked_places(k)
        return form_for(values.device)(values, places, self.kind, self.relaxation, self.beta)

    def group_mass_eager(self, x: Tensor, k: int) -> Tensor:
        """`group_mass` by autograd alone: the simple form that the fast one is checked against."""
        return group_mass_eager(self._checked(x), self._checked_places(k), self.kind, self.relaxation, self.beta)

    def _checked(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.size:
            raise ValueError(f"the network sorts {self.size} elements, the input has {x.shape[-1]}")
        return x if x.dtype == torch.float64 else x.float()

    def _checked_places(self, k: int) -> int:
        if not 0 <= k <= self.size:
            raise ValueError(f"k must be between 0 and the network's size {self.size}, not {k}")
        return k


def _mixed(values: Tensor, p: Tensor, first: tuple[int, ...], second: tuple[int, ...], dim: int) -> Tensor:
    at = (torch.tensor(places, device=values.device) for places in (first, second))
    first_at, second_at = at
    low, high = values.index_select(dim, first_at), values.index_select(dim, second_at)
    move = (1 - p) * (high - low)
    return values.index_copy(dim, first_at, low + move).index_copy(dim, second_at, high - move)
