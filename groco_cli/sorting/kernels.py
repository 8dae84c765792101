"""The two Triton kernels of the fused group mass, and its relaxations; the derivation is in `group_mass`.

A lane holds a place: a program keeps a few whole lists in registers, [lists, places] with n padded to a power of two,
and a step is one exchange with the partners' lanes. Mixing is symmetric,

    first' = first + (1 - p) (second - first),    second' = second + (1 - p) (first - second),

so both ends of a pair do the same with what the other holds, and their signs matter only where d = second - first does.

Of the forward pass only the differences d are kept. The backward pass computes p from them again, and passes the mass
backwards once more together with the values' gradient, so that the spreads need not be kept either.

Differences lie in memory as [programs, steps, lists, pairs]. The smaller's end of a pair writes, both ends read, so a
barrier stands between writing and reading.
"""

import math

import triton
import triton.language as tl
from triton.language.extra import libdevice

_INVERSE_PI = tl.constexpr(1 / math.pi)
_HALF_ROOT = tl.constexpr(1 / math.sqrt(2))
_NORMAL_PEAK = tl.constexpr(1 / math.sqrt(2 * math.pi))
_TINY = tl.constexpr(1e-10)


@triton.jit
def cauchy(d, beta):
    """See `relaxations`, also for the others."""
    return libdevice.atan(beta * d) * _INVERSE_PI + 0.5


@triton.jit
def _cauchy_slope(d, beta):
    v = beta * d
    return beta * _INVERSE_PI / (1 + v * v)


@triton.jit
def logistic(d, beta):
    """1 / (1 + exp(-β d))."""
    return tl.sigmoid(beta * d)


@triton.jit
def _logistic_slope(d, beta):
    p = tl.sigmoid(beta * d)
    return beta * p * (1 - p)


@triton.jit
def logistic_phi(d, beta):
    """The sigmoid of β φ(d); its power ¼ is two square roots."""
    return tl.sigmoid(beta * d / tl.sqrt(tl.sqrt(tl.abs(d) + _TINY)))


@triton.jit
def _logistic_phi_slope(d, beta):
    p, size = logistic_phi(d, beta), tl.abs(d) + _TINY
    return beta * p * (1 - p) * (1 - 0.25 * tl.abs(d) / size) / tl.sqrt(tl.sqrt(size))


@triton.jit
def gaussian(d, beta):
    """The normal distribution function."""
    return 0.5 + 0.5 * tl.erf(beta * _HALF_ROOT * d)


@triton.jit
def _gaussian_slope(d, beta):
    v = beta * d
    return beta * _NORMAL_PEAK * tl.exp(-0.5 * v * v)


@triton.jit
def reciprocal(d, beta):
    """(β d / (2 + |β d|) + 1) / 2."""
    v = beta * d
    return 0.5 * (v / (2 + tl.abs(v)) + 1)


@triton.jit
def _reciprocal_slope(d, beta):
    root = 2 + tl.abs(beta * d)
    return beta / (root * root)


@triton.jit
def optimal(d, beta):
    """A line about 0, behind it tails as 1/d; NaN stays on the line, and NaN."""
    v = beta * d
    tail = 0.5 - 0.0625 / (tl.abs(v) + _TINY)
    return tl.where(tl.abs(v) > 0.25, tl.where(v > 0, tail, -tail), v) + 0.5


@triton.jit
def _optimal_slope(d, beta):
    size = tl.abs(beta * d)
    reach = size + _TINY
    return beta * tl.where(size > 0.25, 0.0625 / (reach * reach), 1.0)


# f(d, β) and df/dd (d, β), by the names of `relaxations.RELAXATIONS`.
RELAXATIONS = {
    "cauchy": (cauchy, _cauchy_slope),
    "logistic": (logistic, _logistic_slope),
    "logistic_phi": (logistic_phi, _logistic_phi_slope),
    "gaussian": (gaussian, _gaussian_slope),
    "reciprocal": (reciprocal, _reciprocal_slope),
    "optimal": (optimal, _optimal_slope),
}


@triton.jit
def _pairing(steps_ptr, step, lists: tl.constexpr, places: tl.constexpr):
    row = steps_ptr + step * 3 * places + tl.arange(0, places)[None, :]
    partner = tl.broadcast_to(tl.load(row), [lists, places])
    return partner, tl.load(row + places), tl.load(row + 2 * places)


@triton.jit
def _mixed(x, other, p, sign):
    # An idle place, sign 0, is passed by: adding 0 times its own infinity would make it NaN.
    return tl.where(sign != 0, x + (1 - p) * (other - x), x)


@triton.jit
def _in_front(k, like, places: tl.constexpr):
    return tl.zeros_like(like) + tl.where(tl.arange(0, places)[None, :] < k, 1.0, 0.0).to(like.dtype)


@triton.jit(do_not_specialize=["anchors", "k"])
def forward(
    values_ptr,
    mass_ptr,
    differences_ptr,
    steps_ptr,
    anchors,
    k,
    beta: tl.float64,
    size: tl.constexpr,
    steps: tl.constexpr,
    lists: tl.constexpr,
    places: tl.constexpr,
    probability: tl.constexpr,
):
    """Masses [anchors, size] of the values, and the differences of every step.

    `steps_ptr` holds [steps, 3, places]: each place's partner, its sign (+1 keeps the smaller, -1 the larger, 0 is
    idle), and the number of its pair.
    """
    pairs: tl.constexpr = size // 2
    program = tl.program_id(0).to(tl.int64)
    row = tl.arange(0, lists)[:, None]
    place = tl.arange(0, places)[None, :]
    at = (program * lists + row) * size + place
    real = (program * lists + row < anchors) & (place < size)
    kept = differences_ptr + program * steps * lists * pairs + row * pairs

    x = tl.load(values_ptr + at, mask=real, other=0.0)
    beta = tl.full([1, 1], beta, x.dtype)  # as exact as the values
    for step in range(steps):
        partner, sign, pair = _pairing(steps_ptr, step, lists, places)
        other = tl.gather(x, partner, axis=1)
        d = (other - x) * sign
        tl.store(kept + step * lists * pairs + pair, d, mask=sign > 0)
        x = _mixed(x, other, probability(d, beta), sign)

    tl.debug_barrier()
    mass = _in_front(k, x, places)
    for behind in range(steps):
        step = steps - 1 - behind
        partner, sign, pair = _pairing(steps_ptr, step, lists, places)
        d = tl.load(kept + step * lists * pairs + pair)
        mass = _mixed(mass, tl.gather(mass, partner, axis=1), probability(d, beta), sign)
    tl.store(mass_ptr + at, mass, mask=real)


@triton.jit(do_not_specialize=["anchors", "k"])
def backward(
    gradient_ptr,
    values_gradient_ptr,
    differences_ptr,
    apart_ptr,
    steps_ptr,
    anchors,
    k,
    beta: tl.float64,
    size: tl.constexpr,
    steps: tl.constexpr,
    lists: tl.constexpr,
    places: tl.constexpr,
    probability: tl.constexpr,
    slope: tl.constexpr,
):
    """The values' gradient from the masses'; `apart_ptr` is scratch, laid out as the differences."""
    pairs: tl.constexpr = size // 2
    program = tl.program_id(0).to(tl.int64)
    row = tl.arange(0, lists)[:, None]
    place = tl.arange(0, places)[None, :]
    at = (program * lists + row) * size + place
    real = (program * lists + row < anchors) & (place < size)
    kept = program * steps * lists * pairs + row * pairs

    g = tl.load(gradient_ptr + at, mask=real, other=0.0)
    beta = tl.full([1, 1], beta, g.dtype)
    for step in range(steps):
        partner, sign, pair = _pairing(steps_ptr, step, lists, places)
        d = tl.load(differences_ptr + kept + step * lists * pairs + pair)
        other = tl.gather(g, partner, axis=1)
        tl.store(apart_ptr + kept + step * lists * pairs + pair, g - other, mask=sign > 0)
        g = _mixed(g, other, probability(d, beta), sign)

    tl.debug_barrier()
    mass = _in_front(k, g, places)
    h = tl.zeros_like(g)
    for behind in range(steps):
        step = steps - 1 - behind
        partner, sign, pair = _pairing(steps_ptr, step, lists, places)
        d = tl.load(differences_ptr + kept + step * lists * pairs + pair)
        apart = tl.load(apart_ptr + kept + step * lists * pairs + pair)
        p = probability(d, beta)
        other_mass, other_h = tl.gather(mass, partner, axis=1), tl.gather(h, partner, axis=1)
        of_probability = sign * (apart * (mass - other_mass) + (other_h - h) * d)
        h = _mixed(h, other_h, p, sign) - sign * of_probability * slope(d, beta)
        mass = _mixed(mass, other_mass, p, sign)
    tl.store(values_gradient_ptr + at, h, mask=real)
