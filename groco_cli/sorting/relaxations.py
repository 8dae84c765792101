"""Relaxed comparators: the probability that two neighbours already stand in the right order.

Each function takes `beta * (second - first)` and returns a probability in [0, 1] that grows with it, is 1/2 at 0,
and has f(-x) = 1 - f(x): that symmetry is what makes every step of a network doubly stochastic.
"""

import math
from collections.abc import Callable

from torch import Tensor

Relaxation = Callable[[Tensor], Tensor]


def cauchy(x: Tensor) -> Tensor:
    """The distribution function of the Cauchy distribution: f(x) = arctan(x)/π + 1/2 (Eq. 3)."""
    return x.atan() / math.pi + 0.5


RELAXATIONS: dict[str, Relaxation] = {"cauchy": cauchy}
