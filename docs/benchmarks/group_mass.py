"""The sorting part, forward and backward, against `diffsort`'s permutation matrix."""

import statistics
import time
from collections.abc import Callable

import diffsort
import torch
from torch import Tensor

from groco_cli.sorting import SortingNetwork


def seconds(mass: Callable[[Tensor], Tensor], x: Tensor, weights: Tensor) -> float:
    """Median of ten of forward and backward, behind two to warm up."""
    times = []
    for _ in range(12):
        x.grad = None
        begun = time.perf_counter()
        (mass(x) * weights).sum().backward()
        times.append(time.perf_counter() - begun)
    return statistics.median(times[2:])


if __name__ == "__main__":
    for size in (11, 32, 64):
        x, weights = torch.randn(2048, size, requires_grad=True), torch.rand(size)
        network = SortingNetwork(size)
        matrix = diffsort.DiffSortNet("odd_even", size, steepness=1.0, distribution="cauchy")
        ours = seconds(lambda x, network=network: network.group_mass(x, 1), x, weights)
        theirs = seconds(lambda x, matrix=matrix: matrix(x)[1][:, :, :1].sum(dim=2), x, weights)
        ratio = f"{theirs / ours:.0f} times as fast"
        print(f"n = {size}: diffsort {theirs * 1e3:.1f} ms, groco {ours * 1e3:.1f} ms: {ratio}")
