"""The mass of each element in the first k places, without the permutation matrix.

The loss asks for 1ₖᵀP, the first k rows of P summed (Eq. 6). With P = P_n … P_1,

    1ₖᵀ P = ((1ₖᵀ P_n) P_(n-1)) … P_1:

run the network forward once on the values, keep each step's probabilities, and pass one row vector back through them.
That takes O(n) numbers a step where the matrix takes O(n²), and gives its column sums exactly.

The gradient is one more run each way. Let m be the mass and g = ∂L/∂m. Since m = r P_1 for the row vector r behind the
first step, ∂L/∂r = P_1 g (P_s is symmetric): g passes through the network forwards, just as the values did, and at
each step

    ∂L/∂p = (g_first - g_second) (r_first - r_second),

r being the row vector behind the step, as it was kept. The values' own gradient h starts at zero behind the last step
and passes backwards, P_s h, each step adding what p depends on: with d = second - first,

    ∂L/∂p += (h_second - h_first) d,    ∂L/∂d = ∂L/∂p f'(d),    h_second += ∂L/∂d,    h_first -= ∂L/∂d.

Everything is laid out with the anchors last, [n, A], so that a place is a row and a step works on whole rows.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from groco_cli.sorting.comparators import steps_of
from groco_cli.sorting.relaxations import RELAXATIONS

Places = slice | list[int]


def group_mass(x: Tensor, k: int, kind: str, relaxation: str, beta: float) -> Tensor:
    """For each input element, the probability that it lands in the first k places.

    Args:
        x: float32 or float64 [..., n].
        k: Number of places, 0 ≤ k ≤ n.
        kind: Of network; see `comparators`.
        relaxation: Of the comparators; see `relaxations`.
        beta: Inverse temperature.

    Returns:
        [..., n]; differentiable once.
    """
    rows = x.reshape(-1, x.shape[-1]).T
    mass: Tensor = _GroupMass.apply(rows, k, kind, relaxation, beta)
    return mass.T.reshape(x.shape)


def group_mass_eager(x: Tensor, k: int, kind: str, relaxation: str, beta: float) -> Tensor:
    """`group_mass` as its definition reads, differentiated by autograd as often as asked."""
    probability = RELAXATIONS[relaxation].value
    values = list(x.unbind(-1))
    steps = []
    for pairs in steps_of(kind, len(values)):
        for first, second in zip(*pairs, strict=True):
            p = probability(values[second] - values[first], beta)
            steps.append((first, second, p))
            values[first], values[second] = _mix(values[first], values[second], p)
    mass = [torch.full_like(values[0], float(place < k)) for place in range(len(values))]
    for first, second, p in reversed(steps):
        mass[first], mass[second] = _mix(mass[first], mass[second], p)
    return torch.stack(mass, dim=-1)


def _mix(first: Tensor, second: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    move = (1 - p) * (second - first)
    return first + move, second - move


class _GroupMass(torch.autograd.Function):
    """The derivation above, line by line, in place on whole rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, k: int, kind: str, relaxation: str, beta: float) -> Tensor:
        ctx.steps = [(_places(first), _places(second)) for first, second in steps_of(kind, len(rows))]
        ctx.slope, ctx.beta = RELAXATIONS[relaxation].slope, beta
        values = rows.clone(memory_format=torch.contiguous_format)  # [n, A]
        differences, probabilities, spreads = [], [], []
        for first, second in ctx.steps:
            difference = values[second] - values[first]
            p = RELAXATIONS[relaxation].value(difference, beta)
            move = (1 - p) * difference
            values[first] += move
            values[second] -= move
            differences.append(difference)
            probabilities.append(p)
        mass = torch.zeros_like(values)
        mass[:k] = 1
        for (first, second), p in zip(reversed(ctx.steps), reversed(probabilities), strict=True):
            spread = mass[first] - mass[second]
            move = (1 - p) * spread
            mass[first] -= move
            mass[second] += move
            spreads.append(spread)
        ctx.save_for_backward(*differences, *probabilities, *reversed(spreads))
        return mass

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        saved, count = ctx.saved_tensors, len(ctx.steps)
        differences, probabilities, spreads = saved[:count], saved[count : 2 * count], saved[2 * count :]
        g = gradient.clone(memory_format=torch.contiguous_format)
        of_probability = []
        for (first, second), p, spread in zip(ctx.steps, probabilities, spreads, strict=True):
            apart = g[first] - g[second]
            of_probability.append(apart * spread)
            move = apart.mul_(1 - p)
            g[first] -= move
            g[second] += move
        h = torch.zeros_like(g)
        for i in reversed(range(count)):
            (first, second), difference = ctx.steps[i], differences[i]
            apart = h[second] - h[first]
            of_difference = (of_probability[i].addcmul_(apart, difference)).mul_(ctx.slope(difference, ctx.beta))
            move = apart.mul_(1 - probabilities[i]).sub_(of_difference)
            h[first] += move
            h[second] -= move
        return h, None, None, None, None


def _places(places: tuple[int, ...]) -> Places:
    """As a slice where they are evenly spaced, which a tensor can be indexed by without a copy."""
    if len(places) == 1:
        return slice(places[0], places[0] + 1)
    stride = places[1] - places[0]
    even = stride > 0 and places == tuple(range(places[0], places[-1] + 1, stride))
    return slice(places[0], places[-1] + 1, stride) if even else list(places)
