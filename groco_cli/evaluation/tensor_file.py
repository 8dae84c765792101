"""A safetensors file of features, which may fill half the memory, written without a copy of them.

safetensors' own `save`, which checkpoints are written with, makes the whole file in memory first. Its `save_file`
raises an error of its own where the disk is full, and writes to a temporary file of its own, which stays where the
process is killed.

Source of the format: the README of huggingface/safetensors.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors to a file.

    Args:
        path: Where to; written straight, so give a temporary path (`files.atomic_write`).
        tensors: Dense, on any device, by name.
        metadata: Texts to keep with them.

    Raises:
        OSError: If it cannot be written.
    """
    # The widest first, as safetensors has them: then each begins at a multiple of its numbers' size.
    widest_first = dict(sorted(tensors.items(), key=lambda named: -named[1].itemsize))
    with path.open("wb") as file:
        file.write(header({name: (tensor.dtype, tensor.shape) for name, tensor in widest_first.items()}, metadata))
        for tensor in widest_first.values():
            file.write(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)


def header(tensors: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], metadata: Mapping[str, str]) -> bytes:
    """What such a file begins with: the length of a JSON object, little-endian, and that; the numbers come behind it.

    Args:
        tensors: Type and shape of each, in the order in which they follow.
        metadata: Texts to keep with them.
    """
    entries: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + math.prod(shape) * dtype.itemsize
        entries[name] = {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)  # the numbers begin at a multiple of eight
    return len(text).to_bytes(8, "little") + text
