"""What to type where a step does not fit into a GPU's memory."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from groco_cli import devices
from groco_cli.engine.processes import Processes
from groco_cli.engine.settings import PretrainSettings
from groco_cli.errors import GrocoError


@contextmanager
def memory_explained(settings: PretrainSettings, processes: Processes) -> Iterator[None]:
    """Say in one line that a step is too large, and what makes it smaller.

    Args:
        settings: The run's.
        processes: Whose part of a batch a step takes.

    Raises:
        GrocoError: In place of torch's error.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        share = settings.optim.batch_size // processes.world
        at_once = settings.optim.micro_batch or share
        smaller = ["a smaller --batch-size", "more --gpus"]
        if at_once > 1:
            smaller.insert(0, f"--micro-batch {at_once // 2}")
        raise GrocoError(
            f"a step on {share} images does not fit into the memory of {devices.describe(processes.device)}",
            f"type {', '.join(smaller[:-1])}, or {smaller[-1]}; or stop what else uses it",
        ) from error
