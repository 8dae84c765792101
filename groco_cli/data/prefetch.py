"""The next batch is brought to a GPU, and finished there, while it computes on the present one."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def ahead(batches: Iterable[T], finish: Callable[[T], list[Tensor]], device: torch.device) -> Iterator[list[Tensor]]:
    """Finish each batch; on a GPU one batch ahead, on a stream of its own.

    Args:
        batches: What comes from the workers, in pinned memory.
        finish: Copies a batch to the device without waiting, and does the rest there.
        device: Where to.

    Yields:
        The finished batches, in order.
    """
    if device.type != "cuda":
        yield from map(finish, batches)
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    coming: list[Tensor] | None = None
    for batch in batches:
        with torch.cuda.stream(stream):
            started = finish(batch)
        if coming is not None:
            yield coming
        coming = _handed_over(started, stream, device)
    if coming is not None:
        yield coming


def _handed_over(tensors: list[Tensor], stream: torch.cuda.Stream, device: torch.device) -> list[Tensor]:
    """Make the stream that computes wait for these, and keep their memory until it is done with them."""
    computing = torch.cuda.current_stream(device)
    computing.wait_stream(stream)
    for tensor in tensors:
        tensor.record_stream(computing)
    return tensors
