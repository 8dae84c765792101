"""Relaxed comparators: the probability that two neighbours already stand in the right order.

With d = second - first and the inverse temperature β, each is a function f of both that lies in [0, 1], grows with d,
is 1/2 at 0, and has f(-d) = 1 - f(d): that symmetry is what makes every step of a network doubly stochastic. Its
slope, df/dd, is written out beside it for the backward pass of the group mass.

Sources: Petersen et al., "Differentiable sorting networks" (ICML 2021) for logistic and logistic_phi (the activation
replacement trick φ with λ = 1/4); "Monotonic differentiable sorting networks" (ICLR 2022) for the others. All are those
of the `diffsort` package.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

_LAMBDA = 0.25  # of φ, which draws differences away from 0, where a sigmoid hardly decides
_TINY = 1e-10


class Relaxation(NamedTuple):
    """A relaxed comparator.

    Args:
        value: f(d, β).
        slope: df/dd (d, β).
    """

    value: Callable[[Tensor, float], Tensor]
    slope: Callable[[Tensor, float], Tensor]


def cauchy(d: Tensor, beta: float) -> Tensor:
    """The distribution function of the Cauchy distribution: arctan(β d)/π + 1/2 (Eq. 3)."""
    return (beta * d).atan() / math.pi + 0.5


def _cauchy_slope(d: Tensor, beta: float) -> Tensor:
    return (beta / math.pi) / (1 + (beta * d).square())


def logistic(d: Tensor, beta: float) -> Tensor:
    """The sigmoid: 1 / (1 + exp(-β d))."""
    return (beta * d).sigmoid()


def _logistic_slope(d: Tensor, beta: float) -> Tensor:
    p = logistic(d, beta)
    return beta * p * (1 - p)


def logistic_phi(d: Tensor, beta: float) -> Tensor:
    """The sigmoid of β φ(d), φ(d) = d / (|d| + 1e-10)^¼."""
    return (beta * d / (d.abs() + _TINY).pow(_LAMBDA)).sigmoid()


def _logistic_phi_slope(d: Tensor, beta: float) -> Tensor:
    p, size = logistic_phi(d, beta), d.abs() + _TINY
    return beta * p * (1 - p) * (1 - _LAMBDA * d.abs() / size) / size.pow(_LAMBDA)


def gaussian(d: Tensor, beta: float) -> Tensor:
    """The distribution function of the normal distribution with standard deviation 1/β."""
    return 0.5 + 0.5 * (beta / math.sqrt(2) * d).erf()


def _gaussian_slope(d: Tensor, beta: float) -> Tensor:
    return (beta / math.sqrt(2 * math.pi)) * (-0.5 * (beta * d).square()).exp()


def reciprocal(d: Tensor, beta: float) -> Tensor:
    """A sigmoid with tails as 1/d: (β d / (2 + |β d|) + 1) / 2."""
    v = beta * d
    return 0.5 * (v / (2 + v.abs()) + 1)


def _reciprocal_slope(d: Tensor, beta: float) -> Tensor:
    return beta / (2 + (beta * d).abs()).square()


def optimal(d: Tensor, beta: float) -> Tensor:
    """The sigmoid of least error among those of slope β: a line about 0, behind it tails as 1/d."""
    v = beta * d
    tails = v.sign() * (0.25 - 1 / 16 / (v.abs() + _TINY))
    return v.clamp(-0.25, 0.25) + 0.5 + torch.where(v.abs() > 0.25, tails, 0)


def _optimal_slope(d: Tensor, beta: float) -> Tensor:
    v = (beta * d).abs()
    return beta * torch.where(v > 0.25, 1 / 16 / (v + _TINY).square(), 1)


RELAXATIONS: dict[str, Relaxation] = {
    "cauchy": Relaxation(cauchy, _cauchy_slope),
    "logistic": Relaxation(logistic, _logistic_slope),
    "logistic_phi": Relaxation(logistic_phi, _logistic_phi_slope),
    "gaussian": Relaxation(gaussian, _gaussian_slope),
    "reciprocal": Relaxation(reciprocal, _reciprocal_slope),
    "optimal": Relaxation(optimal, _optimal_slope),
}
