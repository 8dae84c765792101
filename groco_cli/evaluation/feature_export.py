"""Features for use elsewhere: a safetensors file that any library reads, with labels and names beside them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groco_cli.data.sources import Source
from groco_cli.evaluation.tensor_file import write_tensors
from groco_cli.files import atomic_write

KEY = "groco"  # of the file's metadata


def write_features(path: Path, features: Tensor, source: Source, facts: Mapping[str, Any]) -> None:
    r"""Write the features of a source to a file.

    It holds `features` [n, D], `labels` int64 [n] where the source has any, and `names`: uint8, what each picture is
    called (a file's path, a shard's path and key), UTF-8 with a zero byte between any two. Names are no metadata, since
    safetensors takes at most 100 MB of those.

    Args:
        path: The file.
        features: [n, D], in the order of the source.
        source: The pictures.
        facts: What the features are, kept as JSON under the metadata's key `groco`, the classes' names beside them.

    Raises:
        GrocoError: If it cannot be written.
    """
    names = "\0".join(source.name_of(number) for number in range(len(source)))
    encoded = bytearray(names.encode("utf-8", "surrogateescape"))  # what Python made of a path that is not UTF-8
    tensors = {"features": features, "names": torch.frombuffer(encoded, dtype=torch.uint8)}
    if source.labels is not None:
        tensors["labels"] = source.labels
    with atomic_write(path) as temporary:
        write_tensors(temporary, tensors, {KEY: json.dumps({**facts, "classes": source.classes})})
