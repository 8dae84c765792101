"""Counter-based randomness: a draw is a function of what it is for, not of how many draws came before it.

A sample's views thus never depend on the batch, worker or process that makes them, nor on where a run was resumed.
The idea is that of Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011); the hash is SplitMix64's
(Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014; constants of Stafford's Mix13).
"""

import numpy as np
from numpy.typing import NDArray

_Words = NDArray[np.uint64]
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio, made odd: SplitMix64's step
_MASK = (1 << 64) - 1


def uniforms(
    count: int, *, seed: int, epoch: int, view: int | NDArray[np.int64], samples: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Uniform draws, each a pure function of (seed, epoch, view, sample, position).

    Each sample has its own SplitMix64 sequence, which starts at a hash of its key; a shorter `count` gives the
    beginning of the same sequence.

    Args:
        count: Draws a sample.
        seed: The run's seed; like `epoch` and `view` any integer, of which the lower 64 bits count.
        epoch: Number of the epoch.
        view: Number of the view, or [B] of them.
        samples: [B] numbers of the samples.

    Returns:
        [B, count] in [0, 1), multiples of 2^-53.
    """
    state = np.zeros(len(samples), np.uint64)
    for part in (seed, epoch, view, samples):
        word = np.uint64(part & _MASK) if isinstance(part, int) else part.astype(np.uint64)
        state = _mix((state ^ word) + _GOLDEN)
    steps = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
    words = _mix(state[:, None] + steps)  # [B, count]
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(words: _Words) -> _Words:
    """SplitMix64's finaliser: a bijection of 64-bit words that scatters neighbours; sums and products wrap."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
