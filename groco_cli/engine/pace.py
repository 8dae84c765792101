"""How fast a stretch of training goes, and how much of the time it waits for data."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from groco_cli import devices

T = TypeVar("T")


@dataclass(frozen=True)
class Pace:
    """The figures of a stretch of training.

    Args:
        loss: Mean loss.
        images_per_second: Images, not views.
        waiting: Share of the time spent waiting for data, in [0, 1].
        gpu_memory: Most of the GPU's memory in use at a time since the run began, GB; None on other devices.
    """

    loss: float
    images_per_second: float
    waiting: float
    gpu_memory: float | None = None

    def __str__(self) -> str:
        line = f"loss {self.loss:.4f}  {self.images_per_second:,.0f} images/s  waiting {self.waiting:.0%}"
        return line if self.gpu_memory is None else f"{line}  {self.gpu_memory:.1f} GB"


class Stopwatch:
    """Measures from its creation on; losses stay on their device until they are read.

    Args:
        batch_size: Images a step.
        device: Whose memory is asked for.
    """

    def __init__(self, batch_size: int, device: torch.device) -> None:
        self._batch_size, self._device = batch_size, device
        self._begun = time.perf_counter()
        self._waited = 0.0
        self._steps = 0
        self._loss: Tensor | float = 0.0

    def waiting(self, batches: Iterable[T]) -> Iterator[T]:
        """Pass batches on, counting the time until each is there."""
        iterator = iter(batches)
        while True:
            begun = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self._waited += time.perf_counter() - begun
            yield batch

    def done(self, loss: Tensor) -> None:
        """A step was done with this loss."""
        self._steps += 1
        self._loss = self._loss + loss

    def read(self) -> Pace:
        """The figures so far; waits for the device."""
        loss = float(torch.as_tensor(self._loss)) / max(1, self._steps)
        seconds = time.perf_counter() - self._begun
        peak = devices.peak_memory(self._device)
        memory = None if peak is None else peak / 1e9
        return Pace(loss, self._steps * self._batch_size / seconds, self._waited / seconds, memory)
