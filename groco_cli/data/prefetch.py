"""The next batch is brought to a GPU, and finished there, while it computes on the present one."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Prefetcher:
    """Finishes batches; on a GPU one batch ahead, on a stream of its own.

    That stream is kept: memory that torch has once given to a stream is not taken back for another.

    Args:
        device: Where batches go.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def ahead(self, batches: Iterable[T], finish: Callable[[T], list[Tensor]]) -> Iterator[list[Tensor]]:
        """Finish each batch.

        Args:
            batches: What comes from the workers, in pinned memory.
            finish: Copies a batch to the device without waiting, and does the rest there.

        Yields:
            The finished batches, in order.
        """
        if self._stream is None:
            yield from map(finish, batches)
            return
        coming: list[Tensor] | None = None
        for batch in batches:
            with torch.cuda.stream(self._stream):
                started = finish(batch)
            if coming is not None:
                yield coming
            coming = self._handed_over(started, self._stream)
        if coming is not None:
            yield coming

    def _handed_over(self, tensors: list[Tensor], stream: torch.cuda.Stream) -> list[Tensor]:
        """Make the stream that computes wait for these, and keep their memory until it is done with them."""
        computing = torch.cuda.current_stream(self._device)
        computing.wait_stream(stream)
        for tensor in tensors:
            tensor.record_stream(computing)
        return tensors
