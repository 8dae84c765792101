"""Sorting networks as lists of steps: which places are compared, and which of the two keeps the smaller element.

Places count from 0 here, from 1 in the paper: its first step compares (1,2), (3,4), …; here (0,1), (2,3), ….
"""

from collections.abc import Callable
from functools import lru_cache

Step = list[tuple[int, int]]  # pairs (place of the smaller, place of the larger), each place in one pair at most


def odd_even(size: int) -> list[Step]:
    """Odd-even transposition sort: `size` steps of neighbours, from odd and even places in turn (Figure 3)."""
    return [[(i, i + 1) for i in range(s % 2, size - 1, 2)] for s in range(size)]


def bitonic(size: int) -> list[Step]:
    """Bitonic sort (Batcher, 1968): about (log₂ size)²/2 steps.

    For a size that is no power of two, the network of the next power is built and its first wires are left out with all
    their comparisons, as in `diffsort`.
    """
    blocks = (size - 1).bit_length()
    left_out = 2**blocks - size
    steps = []
    for block in range(blocks):
        for stride in (2**i for i in range(block, -1, -1)):
            step = []
            for wire in range(left_out, 2**blocks - stride):
                if wire // stride % 2 == 0:
                    pair = (wire - left_out, wire + stride - left_out)
                    descending = wire // 2 ** (block + 1) % 2 == 1
                    step.append(pair[::-1] if descending else pair)
            steps.append(step)
    return steps


NETWORKS: dict[str, Callable[[int], list[Step]]] = {"odd_even": odd_even, "bitonic": bitonic}


@lru_cache(maxsize=256)
def steps_of(kind: str, size: int) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
    """A network's steps, each as (places of the smaller elements, places of the larger), empty ones left out."""
    return tuple(tuple(zip(*step, strict=True)) for step in NETWORKS[kind](size) if step)  # type: ignore[misc]
