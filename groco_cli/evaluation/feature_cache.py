"""Features kept on disk: extracted once, by however many processes there are, and memory-mapped from then on.

One safetensors file for each encoder, set of pictures and way of showing them, called after a hash of all three: a
changed checkpoint or folder is another file. A file takes its name once every row is in it and flushed to disk.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groco_cli import __version__, console
from groco_cli.data.sources import Source, pick
from groco_cli.data.transforms import EvaluationTransform
from groco_cli.distributed import collectives
from groco_cli.errors import GrocoError, UsageError
from groco_cli.evaluation.feature_file import DTYPES, read_features, write_rows, written_together
from groco_cli.evaluation.features import evaluation_transform, extract_features, feature_batches
from groco_cli.evaluation.fingerprint import check_same_in_all, encoder_hash
from groco_cli.files import check_writable, remove_leftovers
from groco_cli.models import Encoder

_FORMAT = 2  # of what is kept; a new one makes the old files worthless
_NAME = 32  # letters of the hash that a file is called by
_TEMPORARY = f".{'[0-9a-f]' * _NAME}-*.safetensors"
_DAY = 86400.0  # seconds


def choose_cache(given: Path | None, no_cache: bool, root: Path) -> Path | None:
    """Where a command keeps features: what `--cache` says, or `features` below the data root.

    A data root that cannot be written to is no mistake: then nothing is kept, and stderr says so. A folder of `--cache`
    may be read-only too, as long as all that is wanted is in it.

    Args:
        given: The value of `--cache`.
        no_cache: Whether `--no-cache` was typed.
        root: The data root.

    Returns:
        The folder, the same in every process; None to keep features in memory alone.

    Raises:
        UsageError: If both options were given.
    """
    if given and no_cache:
        raise UsageError("--cache and --no-cache exclude each other", "leave one out")
    if given or no_cache:
        return given
    folder: Path | None = root / "features"
    if collectives.rank() == 0:
        try:
            check_writable(root / "features/any.safetensors")
        except GrocoError:
            console.note(f"features   in memory alone: {folder} cannot be written to, --cache takes another place")
            folder = None
    return collectives.from_first(folder)


def check_dtype(dtype: str) -> None:
    """Check what `--cache-dtype` says.

    Raises:
        UsageError: If features cannot be kept in it.
    """
    if dtype not in DTYPES:
        raise UsageError(f"--cache-dtype {dtype}: no such type", f"type --cache-dtype {' or '.join(DTYPES)}")


def plain_features(
    encoder: Encoder,
    source: Source,
    *,
    cache: Path | None,
    dtype: str = "fp32",
    device: torch.device,
    workers: int,
    on_bad_image: str = "error",
    found: Callable[[Path], None] = lambda path: None,
    advance: Callable[[int], None] = lambda count: None,
) -> Tensor:
    """Features as `extract_features` gives them, by way of the cache where there is one.

    Args:
        encoder: The encoder.
        source: The images.
        cache: Where features are kept; None to keep them in memory alone.
        dtype: What they are kept in: "fp32" or "fp16".
        device: Where to compute.
        workers: Processes that decode.
        on_bad_image: As of `extract_features`. With "skip" cache and dtype are passed by: an image that could not be
            read this time may be readable the next.
        found: As of `features_once`.
        advance: As of `features_once`.

    Returns:
        [n, feature_dim] on the CPU, in the order of the source; memory-mapped where it is on disk.

    Raises:
        GrocoError: As of both.
    """
    if on_bad_image == "skip":
        return extract_features(
            encoder, source, device=device, workers=workers, on_bad_image=on_bad_image, advance=advance
        )
    return cached_features(
        encoder,
        source,
        evaluation_transform(encoder.metadata),
        folder=cache,
        device=device,
        workers=workers,
        dtype=dtype,
        found=found,
        advance=advance,
    )


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
    found: Callable[[Path], None] = lambda path: None,
    advance: Callable[[int], None] = lambda count: None,
) -> Tensor:
    """Features of every image of a source as a transform shows it, from the disk if they were extracted before.

    Args:
        encoder: The encoder.
        source: The images.
        transform: How they are shown.
        folder: As of `features_once`.
        device: Where to compute.
        workers: Processes that decode.
        precision: Of the forward pass: "fp32", "bf16" or "fp16".
        dtype: As of `features_once`.
        found: As of `features_once`.
        advance: As of `features_once`.

    Returns:
        As `features_once`.

    Raises:
        GrocoError: If an image cannot be decoded, or as of `features_once`.
    """

    def batches(own: range) -> Iterator[Tensor]:
        part = pick(source, torch.arange(own.start, own.stop)) if collectives.world_size() > 1 else source
        extracted = feature_batches(encoder, part, transform, device=device, workers=workers, precision=precision)
        return (features for _, features in extracted)

    return features_once(
        encoder,
        source,
        batches,
        shown=asdict(transform) | {"precision": precision},
        folder=folder,
        device=device,
        dtype=dtype,
        found=found,
        advance=advance,
    )


def features_once(
    encoder: Encoder,
    source: Source,
    batches: Callable[[range], Iterator[Tensor]],
    *,
    shown: Mapping[str, Any],
    folder: Path | None,
    device: torch.device,
    dtype: str = "fp32",
    found: Callable[[Path], None] = lambda path: None,
    advance: Callable[[int], None] = lambda count: None,
) -> Tensor:
    """Features of every image of a source, extracted now, or read from the disk if they were extracted before.

    Under torch.distributed each process extracts its part of the images, all are given all features, and what one
    fails with is raised in all.

    Args:
        encoder: The encoder.
        source: The images.
        batches: Extracts the features of some neighbouring images, batch by batch in their order, each [b, D].
        shown: All else that the features depend on, as JSON has it.
        folder: Where features are kept, the same for every process; None to keep them in memory alone.
        device: Where to compute.
        dtype: What features are kept in: "fp32" or "fp16".
        found: Called with the file, where features were kept before.
        advance: Called with the number of images done by about all processes, batch by batch; at once with all where
            they were kept.

    Returns:
        [n, feature_dim] of that dtype on the CPU, in the order of the source; memory-mapped where it is on disk.

    Raises:
        GrocoError: If a feature is not finite or does not fit the dtype, the processes have different encoders, or the
            folder cannot be written to or has not the room.
    """
    check_same_in_all(encoder)
    own = collectives.share_of(len(source))

    def rows() -> Iterator[tuple[int, Tensor]]:
        """Each batch of this process's part: its first row, and its features."""
        done = own.start
        for features in batches(own) if own else ():
            kept = as_kept(features, dtype)
            yield done, kept
            done += len(kept)
            advance(len(kept) * collectives.world_size())

    if folder is None:
        part = torch.zeros(len(own), encoder.feature_dim, dtype=DTYPES[dtype])
        with collectives.failing_together():
            for row, kept in rows():
                part[row - own.start : row - own.start + len(kept)] = kept
        return collectives.all_rows(part, len(source), device)
    with collectives.failing_together():  # to look at all files is work for one
        key = "" if collectives.rank() else feature_key(encoder, source, shown, dtype=dtype)
    key = collectives.from_first(key)
    path = folder / f"{key[:_NAME]}.safetensors"
    if collectives.from_first(read_features(path, key) is None):
        with collectives.failing_together():
            _remove_leftovers(folder)
        shape = (len(source), encoder.feature_dim)
        with written_together(path, key, shape, dtype) as (temporary, start):
            write_rows(rows(), temporary, start)
    else:
        found(path)
        advance(len(source))
    with collectives.failing_together():
        features = read_features(path, key)
        if features is None:
            raise GrocoError(
                f"{path} cannot be read back", "give --cache a folder that every process sees, or --no-cache"
            )
    return features


def as_kept(features: Tensor, dtype: str) -> Tensor:
    """Features [b, D] in what they are kept in, "fp32" or "fp16".

    Raises:
        GrocoError: If one is too large for it, or so small that nothing of it would be left.
    """
    kept = features.to(DTYPES[dtype])
    if not kept.isfinite().all():
        raise GrocoError("a feature is too large for fp16", "type --cache-dtype fp32")
    if (features.any(dim=1) & ~kept.any(dim=1)).any():
        raise GrocoError("a feature is too small for fp16", "type --cache-dtype fp32")
    return kept


def feature_key(encoder: Encoder, source: Source, shown: Mapping[str, Any], *, dtype: str) -> str:
    """A hash of all that features depend on: the encoder's weights and structure, the pictures, how they are shown.

    The weights themselves count, not their file: the same encoder in another container has the same features.
    """
    parts = {
        "format": _FORMAT,
        "groco": __version__,
        "encoder": encoder_hash(encoder),
        "data": source.fingerprint(),
        "shown": shown,
        "dtype": dtype,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _remove_leftovers(folder: Path) -> None:
    """Delete what extractions left behind that were killed a day ago or more; younger files may still be written."""
    if collectives.rank() == 0:
        remove_leftovers(folder, like=_TEMPORARY, older=_DAY)
