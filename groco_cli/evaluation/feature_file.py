"""A safetensors file of features: read where it lies, written by every process together, whole or not there."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from groco_cli.distributed import collectives
from groco_cli.errors import GrocoError
from groco_cli.evaluation.tensor_file import header
from groco_cli.files import atomic_write, cannot_write

DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
_NAME, _KEY = "features", "key"


def read_features(path: Path, key: str) -> Tensor | None:
    """The features [n, D] of a key, memory-mapped; None where there is no such file, or a damaged one."""
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get(_KEY) != key:
                return None
            features: Tensor = file.get_tensor(_NAME)
    except (OSError, SafetensorError):
        return None
    return features


@contextmanager
def written_together(path: Path, key: str, shape: tuple[int, int], dtype: str) -> Iterator[tuple[Path, int]]:
    """A file that every process writes its rows to; it takes its name once all are done.

    The first process makes it and names it. Whatever goes wrong, here or in the block, goes wrong in all of them: else
    the others would wait.

    Args:
        path: The file.
        key: What it will be known again by.
        shape: [n, D].
        dtype: "fp32" or "fp16".

    Yields:
        Its temporary place, and where in it the rows begin, bytes.

    Raises:
        GrocoError: If it cannot be written, or there is no room for it.
    """
    head = header({_NAME: (DTYPES[dtype], shape)}, {_KEY: key})
    with collectives.failing_together(), ExitStack() as open_file:
        temporary = path
        with collectives.failing_together(), _telling_place(path):
            if collectives.rank() == 0:
                temporary = open_file.enter_context(atomic_write(path))
                temporary.write_bytes(head)
                _check_room(path.parent, shape[0] * shape[1] * DTYPES[dtype].itemsize)
        with collectives.failing_together(), _telling_place(path):
            yield collectives.from_first(temporary), len(head)


@contextmanager
def _telling_place(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error


def _check_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise GrocoError(
            f"{folder} has room for {free / 1e9:.1f} GB, the features take {size / 1e9:.1f} GB",
            "type --no-cache, or --cache with another place",
        )


def write_rows(batches: Iterator[tuple[int, Tensor]], path: Path, start: int) -> None:
    """Write one process's rows to their places.

    Args:
        batches: Neighbouring rows [b, D], the number of their first in front.
        path: The temporary place.
        start: Where in it the rows begin, bytes.
    """
    # Not through a memory map: where the disk is full, that kills the process.
    with path.open("r+b") as file:
        for row, kept in batches:
            file.seek(start + row * kept.shape[1] * kept.itemsize)
            file.write(kept.contiguous().numpy().data)
