"""The processes that decode: how many, what they are asked for, and what is said when one dies."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader

from groco_cli import devices
from groco_cli.errors import GrocoError, first_line

_FEW = 500  # images that are decoded sooner than processes are started


def decoding_workers(images: int) -> int:
    """Worker processes where none are asked for and nothing but decoding is to be done: a core each, none for few."""
    return 0 if images <= _FEW else min(16, devices.usable_cores())


class Requests:
    """A batch sampler whose batches are laid down anew for each epoch, and made only as they are needed."""

    def __init__(self) -> None:
        self.now: Iterator[Any] = iter(())

    def __iter__(self) -> Iterator[Any]:
        return self.now


def worker_loader(
    dataset: Any, batches: Any, workers: int, device: torch.device, *, persistent: bool = False
) -> "DataLoader[Any]":
    """A DataLoader over a data set of `groco_cli.data.workers`, which makes whole batches itself.

    Args:
        dataset: Its `__getitems__` is given a batch of `batches`.
        batches: What to ask for, batch by batch.
        workers: Processes; 0 to work in this one.
        device: Where batches go; beside a GPU they are put into pinned memory.
        persistent: Whether the workers stay for the next epoch.
    """
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=_as_it_is,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        persistent_workers=persistent and workers > 0,
        worker_init_fn=leave_signals_to_the_main_process,
        generator=torch.Generator(),  # else each new iterator draws one of the numbers that the networks draw from
    )


@contextmanager
def dead_workers_explained() -> Iterator[None]:
    """The death of a worker as an error of one line; torch raises it wherever this process happens to be.

    Raises:
        GrocoError: If a worker died.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise GrocoError(
            f"a process that decodes images died ({first_line(error)})",
            "often memory runs out: type fewer --workers, or give the machine more shared memory (/dev/shm)",
        ) from error


def leave_signals_to_the_main_process(worker: int) -> None:
    """Be ended by the main process alone, which still wants its batches to finish a step.

    A terminal's Ctrl-C goes to every process of a group, and so does a SIGTERM of `timeout` or a service manager.
    Nothing is ignored that the main process sends: it ends its workers by SIGTERM.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # which alone says who sent it, and macOS has not
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_the_main_process_says, daemon=True).start()


def _end_when_the_main_process_says() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


def _as_it_is(batch: Any) -> Any:
    """Collates nothing: the data set did."""
    return batch
