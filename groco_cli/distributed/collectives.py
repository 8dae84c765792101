"""Work shared by the processes of torch.distributed, where a launcher has started it; else this one does it all."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from groco_cli.errors import GrocoError

T = TypeVar("T")
_BLOCK = 65536  # rows that processes hand each other at once
_by_itself = False


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if _together() else 0


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if _together() else 1


def share_of(total: int) -> range:
    """This process's part of so many things in a row: neighbours, no thing twice, parts as even as can be."""
    return range(total * rank() // world_size(), total * (rank() + 1) // world_size())


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


def from_all(value: T) -> list[T]:
    """What each process gives, in every process."""
    values = [value] * world_size()
    if _together():
        dist.all_gather_object(values, value)
    return values


def all_rows(part: Tensor, total: int, device: torch.device) -> Tensor:
    """All rows, in every process, of which each has its part (`share_of`).

    Args:
        part: This process's rows, [own, ...].
        total: How many rows there are in all.
        device: Where processes can add up: NCCL knows no other memory than the GPUs'.

    Returns:
        [total, ...], where the part was.
    """
    if not _together():
        return part
    own, rows = share_of(total), torch.zeros(total, *part.shape[1:], dtype=part.dtype)
    rows[own.start : own.stop] = part
    for block in torch.split(rows, _BLOCK):
        block.copy_(sum_over(block.to(device)))
    return rows


@contextmanager
def failing_together() -> Iterator[None]:
    """Raise what one process's part of the work ended with in all of them, so that none waits for that one."""
    own: tuple[str, str] | None = None
    try:
        yield
    except GrocoError as error:
        if not _together():
            raise
        own = error.message, error.hint
    for trouble in filter(None, from_all(own)):
        raise GrocoError(*trouble)


@contextmanager
def alone() -> Iterator[None]:
    """In here this process works as one that was started by itself: the others have something else to do."""
    global _by_itself
    before, _by_itself = _by_itself, True
    try:
        yield
    finally:
        _by_itself = before


def wait() -> None:
    """Go on once every process has come here."""
    if _together():
        dist.barrier()


def _together() -> bool:
    return dist.is_available() and dist.is_initialized() and not _by_itself
