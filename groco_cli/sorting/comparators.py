"""Sorting networks as lists of steps: which places are compared with which, and in which direction.

A step is written per place: `partner[i]` is the place that i is compared with (itself where it idles), and `sign[i]`
is +1 where i keeps the smaller of the two and -1 where it keeps the larger. Places count from 0 here, from 1 in the
paper: its first step compares (1,2), (3,4), …, which are places (0,1), (2,3), ….
"""

from collections.abc import Callable
from typing import NamedTuple


class Step(NamedTuple):
    """Comparisons that run at the same time."""

    partner: tuple[int, ...]
    sign: tuple[int, ...]


def step(size: int, pairs: list[tuple[int, int]]) -> Step:
    """The step that leaves the smaller element of each pair in its first place, the larger in its second."""
    partner, sign = list(range(size)), [1] * size
    for low, high in pairs:
        partner[low], partner[high] = high, low
        sign[high] = -1
    return Step(tuple(partner), tuple(sign))


def odd_even(size: int) -> list[Step]:
    """Odd-even transposition sort: `size` steps of neighbours, from odd and even places in turn (Figure 3)."""
    return [step(size, [(i, i + 1) for i in range(s % 2, size - 1, 2)]) for s in range(size)]


NETWORKS: dict[str, Callable[[int], list[Step]]] = {"odd_even": odd_even}
