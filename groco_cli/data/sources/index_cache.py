"""Shards' indexes, kept between runs: one small file for each, good for as long as the shard's size and time stay."""

import hashlib
import zipfile
from dataclasses import fields
from pathlib import Path

import numpy as np

from groco_cli import console
from groco_cli.data.sources.tar_index import ShardIndex, index_shard
from groco_cli.errors import GrocoError
from groco_cli.files import atomic_write

_FORMAT = 1  # of what is kept; a new one makes the old files worthless


def cached_index(shard: Path, folder: Path) -> ShardIndex:
    """The index of a shard, from the cache if the shard has not changed since.

    Args:
        shard: A tar file.
        folder: Where indexes are kept.

    Raises:
        GrocoError: If the shard cannot be read, or is not as it should be.
    """
    stamp = _stamp(shard)
    name = hashlib.sha256(str(shard.resolve()).encode("utf-8", "surrogatepass")).hexdigest()[:32]
    kept = folder / f"{name}.npz"
    return _read(kept, stamp) or _write(kept, stamp, index_shard(shard))


def _stamp(shard: Path) -> list[int]:
    try:
        status = shard.stat()
    except OSError as error:
        raise GrocoError(f"{shard}: cannot be read ({error.strerror or error})", "check that it is there") from error
    return [_FORMAT, status.st_size, status.st_mtime_ns]


def _read(path: Path, stamp: list[int]) -> ShardIndex | None:
    """None where there is no such file, or an old or damaged one."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            if kept["stamp"].tolist() != stamp:
                return None
            return ShardIndex(**{field.name: kept[field.name] for field in fields(ShardIndex)})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _write(path: Path, stamp: list[int], index: ShardIndex) -> ShardIndex:
    """Keep an index; where that cannot be done, it is only made again next time."""
    try:
        with atomic_write(path) as temporary:
            arrays = {field.name: getattr(index, field.name) for field in fields(ShardIndex)}
            np.savez(temporary, stamp=np.array(stamp), **arrays)
    except GrocoError as error:
        console.detail(f"the shard's index is not kept: {error.message}")
    return index
