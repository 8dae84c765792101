"""Work shared by the processes of torch.distributed, where a launcher has started it; else this one does it all."""

from typing import TypeVar

import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def number() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if _together() else 0


def count() -> int:
    """How many processes there are."""
    return dist.get_world_size() if _together() else 1


def share_of(total: int) -> range:
    """This process's part of so many things in a row: neighbours, no thing twice, parts as even as can be."""
    return range(total * number() // count(), total * (number() + 1) // count())


def sum_over(tensor: Tensor) -> Tensor:
    """Add up a tensor over all processes, in place."""
    if _together():
        dist.all_reduce(tensor)
    return tensor


def from_first(value: T) -> T:
    """What the first process gives, in every process."""
    if not _together():
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def wait() -> None:
    """Go on once every process has come here."""
    if _together():
        dist.barrier()


def _together() -> bool:
    return dist.is_available() and dist.is_initialized()
