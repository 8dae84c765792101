"""Features kept on disk: extracted once, by however many processes there are, and memory-mapped from then on.

One safetensors file for each encoder, set of pictures and way of showing them, called after a hash of all three: a
changed checkpoint or folder is another file. A file takes its name once every row is in it and flushed to disk.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from groco_cli import __version__
from groco_cli.data.sources import Source, pick
from groco_cli.data.transforms import EvaluationTransform
from groco_cli.errors import GrocoError
from groco_cli.evaluation import processes
from groco_cli.evaluation.features import feature_batches
from groco_cli.files import atomic_write
from groco_cli.models import Encoder

DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
_SAFETENSORS = {"fp32": "F32", "fp16": "F16"}
_FORMAT = 1  # of what is kept; a new one makes the old files worthless
_NAME, _KEY = "features", "key"


def cached_features(
    encoder: Encoder,
    source: Source,
    transform: EvaluationTransform,
    *,
    folder: Path | None,
    device: torch.device,
    workers: int,
    precision: str = "fp32",
    dtype: str = "fp32",
    advance: Callable[[int], None] = lambda count: None,
) -> Tensor:
    """Features of every image of a source, from the disk if they were extracted before.

    Under torch.distributed each process extracts its part of the images, and all are given all features.

    Args:
        encoder: The encoder.
        source: The images.
        transform: How they are shown.
        folder: Where features are kept, the same for every process; None to keep them in memory alone.
        device: Where to compute.
        workers: Processes that decode.
        precision: Of the forward pass: "fp32", "bf16" or "fp16".
        dtype: What features are kept in: "fp32" or "fp16".
        advance: Called with the number of images done by about all processes, batch by batch; at once with all where
            they were kept.

    Returns:
        [n, feature_dim] of that dtype on the CPU, in the order of the source; memory-mapped where it is on disk.

    Raises:
        GrocoError: If an image cannot be decoded, a feature is not finite or too large for the dtype, or the folder
            cannot be written to.
    """
    own = processes.share_of(len(source))
    part = pick(source, torch.arange(own.start, own.stop))

    def batches() -> Iterator[tuple[int, Tensor]]:
        """Each batch of this process's part: its first row, and its features."""
        extracted = feature_batches(encoder, part, transform, device=device, workers=workers, precision=precision)
        for numbers, features in extracted if own else ():
            kept = features.to(DTYPES[dtype])
            if not kept.isfinite().all():
                raise GrocoError("a feature is too large for fp16", "type --cache-dtype fp32")
            yield own.start + int(numbers[0]), kept
            advance(len(kept) * processes.count())

    shape = (len(source), encoder.feature_dim)
    if folder is None:
        rows = torch.zeros(len(own), encoder.feature_dim, dtype=DTYPES[dtype])
        for row, kept in batches():
            rows[row - own.start : row - own.start + len(kept)] = kept
        return processes.gathered(rows, len(source), device)
    key = feature_key(encoder, source, transform, precision=precision, dtype=dtype)
    path = folder / f"{key[:32]}.safetensors"
    if processes.from_first(_read(path, key) is None):
        with _written_together(path, key, shape, dtype) as (temporary, start):
            _write_rows(batches(), temporary, start)
    else:
        advance(len(source))
    features = _read(path, key)
    if features is None:
        raise GrocoError(f"{path} cannot be read back", "give --cache a folder that every process sees, or --no-cache")
    return features


def feature_key(encoder: Encoder, source: Source, transform: EvaluationTransform, *, precision: str, dtype: str) -> str:
    """A hash of all that features depend on: the encoder's weights and structure, the pictures, how they are shown.

    The weights themselves count, not their file: the same encoder in another container has the same features.
    """
    parts = {
        "format": _FORMAT,
        "groco": __version__,
        "encoder": encoder_hash(encoder),
        "data": source.fingerprint(),
        "transform": asdict(transform),
        "precision": precision,
        "dtype": dtype,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def encoder_hash(encoder: Encoder) -> str:
    """A hash of an encoder's weights and structure."""
    digest = hashlib.sha256(str(encoder.backbone).encode())
    for name, tensor in encoder.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read(path: Path, key: str) -> Tensor | None:
    """None where there is no such file, or a damaged one."""
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get(_KEY) != key:
                return None
            features: Tensor = file.get_tensor(_NAME)
    except (OSError, SafetensorError):
        return None
    return features


@contextmanager
def _written_together(path: Path, key: str, shape: tuple[int, int], dtype: str) -> Iterator[tuple[Path, int]]:
    """A file that every process writes its rows to; it takes its name once all are done.

    Yields:
        Its temporary place, and where in it the rows begin.
    """
    head = _head(key, shape, dtype)
    if processes.number() == 0:
        with atomic_write(path) as temporary:
            temporary.write_bytes(head)
            yield processes.from_first(temporary), len(head)
            processes.wait()
    else:
        yield processes.from_first(path), len(head)
        processes.wait()
    processes.wait()  # until it has its name


def _head(key: str, shape: tuple[int, int], dtype: str) -> bytes:
    """What a safetensors file of one tensor begins with: the length of the JSON behind it, little-endian, and that.

    Written here because safetensors itself wants the whole tensor in memory.
    """
    size = shape[0] * shape[1] * DTYPES[dtype].itemsize
    entry = {"dtype": _SAFETENSORS[dtype], "shape": shape, "data_offsets": [0, size]}
    text = json.dumps({"__metadata__": {_KEY: key}, _NAME: entry}).encode()
    text += b" " * (-len(text) % 8)  # rows lie at multiples of eight
    return len(text).to_bytes(8, "little") + text


def _write_rows(batches: Iterator[tuple[int, Tensor]], path: Path, start: int) -> None:
    # Not through a memory map: where the disk is full, that kills the process.
    with path.open("r+b") as file:
        for row, kept in batches:
            file.seek(start + row * kept.shape[1] * kept.itemsize)
            file.write(kept.contiguous().numpy().data)
