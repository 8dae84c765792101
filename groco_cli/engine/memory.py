"""What to type where a step does not fit into the memory, a GPU's or the machine's."""

from collections.abc import Iterator
from contextlib import contextmanager

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
        GrocoError: In place of torch's or Python's error.
    """
    try:
        yield
    except (MemoryError, OSError, RuntimeError) as error:
        if not devices.out_of_memory(error):
            raise
        images = settings.optim.batch_size // processes.world
        on_gpu = processes.device.type == "cuda"
        memory = f"the memory of {devices.describe(processes.device)}" if on_gpu else "this machine's memory"
        at_once = settings.optim.micro_batch or images
        smaller = [f"--micro-batch {at_once // 2}"] * (at_once > 1) + ["a smaller --batch-size"]
        # A run that was begun keeps its batch when it is resumed; the number of its GPUs may change.
        remedies = [f"begin a new run with {' or '.join(smaller)}"] + ["type more --gpus"] * on_gpu
        raise GrocoError(
            f"a step on {images} images does not fit into {memory}",
            f"{', '.join(remedies)}, or stop what else uses it",
        ) from error
