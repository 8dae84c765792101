"""The differentiable sorting network: soft sort, permutation matrix and group mass (section 3.3.1, Eq. 2–4).

One step compares each place with its partner. With p the probability that the two already stand in order, every
quantity that passes through the step is mixed in the same way,

    mix(v)[i] = p[i] v[i] + (1 - p[i]) v[partner[i]],

because the step's permutation matrix P_s is symmetric: P_s x sorts the values a little further (Eq. 2), P_s P_(s-1)…
builds the permutation matrix (Eq. 4), and a row vector passes through it the other way, v P_s.

That last is why the loss never needs the matrix. It asks for 1ₖᵀP, the first k rows summed, and

    1ₖᵀ P = ((1ₖᵀ P_n) P_(n-1)) … P_1:

run the network forward once, keep each step's probabilities, and pass one row vector back through them. That takes
O(n) numbers a step instead of O(n²), and gives exactly the column sums of the matrix form.
"""

from functools import lru_cache

import torch
from torch import Tensor

from groco_cli.sorting.comparators import NETWORKS
from groco_cli.sorting.relaxations import RELAXATIONS


class SortingNetwork:
    """A sorting network whose conditional swaps are relaxed, in non-descending order.

    Args:
        size: Number of elements n to sort, at least 2.
        kind: "odd_even" (n steps, the paper's).
        relaxation: "cauchy" (Eq. 3, the paper's).
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
        """Sort softly, and say how: the relaxed permutation matrix, of doubly stochastic [n, n].

        Args:
            x: Values to sort, [A, n] (or any leading shape); half precision is computed in float32.

        Returns:
            The softly sorted values [A, n] and P [A, n, n] with `sorted = P @ x`; P[:, j, i] is the probability that
            input element i lands in place j.
        """
        values, probabilities = self._run(x)
        matrix = torch.eye(self.size, dtype=values.dtype, device=x.device).expand(*values.shape, self.size)
        for p, (partner, _) in zip(probabilities, self._steps(values), strict=True):
            matrix = _mix(matrix, p.unsqueeze(-1), partner, dim=-2)
        return values, matrix

    def group_mass(self, x: Tensor, k: int) -> Tensor:
        """For each input element, the probability that it lands in the first k places: the column sums 1ₖᵀP.

        Args:
            x: Values to sort, [A, n] (or any leading shape); half precision is computed in float32.
            k: Number of places at the front, 0 ≤ k ≤ n.

        Returns:
            Probabilities [A, n], in the order of the input; they sum to k.
        """
        if not 0 <= k <= self.size:
            raise ValueError(f"k must be between 0 and the network's size {self.size}, not {k}")
        values, probabilities = self._run(x)
        mass = (torch.arange(self.size, device=x.device) < k).to(values.dtype).expand_as(values)
        for p, (partner, _) in zip(reversed(probabilities), reversed(self._steps(values)), strict=True):
            mass = _mix(mass, p, partner, dim=-1)
        return mass

    def _run(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The softly sorted values, and each step's probabilities of standing in order, per place."""
        if x.shape[-1] != self.size:
            raise ValueError(f"the network sorts {self.size} elements, the input has {x.shape[-1]}")
        values = x if x.dtype == torch.float64 else x.float()
        relax = RELAXATIONS[self.relaxation]
        probabilities = []
        for partner, sign in self._steps(values):
            p = relax(self.beta * sign * (values.index_select(-1, partner) - values))
            values = _mix(values, p, partner, dim=-1)
            probabilities.append(p)
        return values, probabilities

    def _steps(self, values: Tensor) -> list[tuple[Tensor, Tensor]]:
        return _steps_on(self.kind, self.size, values.device, values.dtype)


def _mix(values: Tensor, p: Tensor, partner: Tensor, dim: int) -> Tensor:
    other = values.index_select(dim, partner)
    return other + p * (values - other)


@lru_cache(maxsize=64)
def _steps_on(kind: str, size: int, device: torch.device, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    """The network's steps as tensors (partner [n] int64, sign [n]) on a device."""
    with torch.inference_mode(False):  # they are kept, and must serve training too
        return [
            (torch.tensor(s.partner, device=device), torch.tensor(s.sign, dtype=dtype, device=device))
            for s in NETWORKS[kind](size)
        ]
