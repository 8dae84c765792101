"""Any source as WebDataset shards: a few large files in place of many small ones."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.data import Dataset

from groco_cli import console
from groco_cli.data.decoding import BadImageError, encode_png, format_of
from groco_cli.data.pool import dead_workers_explained, decoding_workers, worker_loader
from groco_cli.data.sources.base import Source
from groco_cli.data.sources.shards import CLASSES
from groco_cli.data.workers import BadImage
from groco_cli.errors import GrocoError, UsageError
from groco_cli.files import atomic_write

_SUFFIXES = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}
_BATCH = 16  # files that a worker sends at a time


def write_shards(
    source: Source,
    out: Path,
    images_per_shard: int = 1000,
    *,
    on_bad_image: str = "error",
    workers: int | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> list[Path]:
    """Write the images of a source to shards, in their order, with their labels.

    JPEG, PNG and WebP files are copied byte by byte, others become PNG. Beside the shards, `classes.txt` has the
    classes' names. Each shard appears once it is whole. An image's key is its number in the source.

    Args:
        source: The images.
        out: The folder for the shards; it may not hold any yet.
        images_per_shard: Images in each but the last.
        on_bad_image: "error", or "skip" to warn of bad ones and leave them out.
        workers: Processes that read, and decode once to see that a file is whole; None for one a core.
        advance: Called with how many more images were read.

    Returns:
        The shards, `000000.tar` and so on.

    Raises:
        UsageError: If there are shards already, or no image would go into one.
        GrocoError: If an image cannot be read, or the folder not be written to.
    """
    if images_per_shard < 1:
        raise UsageError(f"{images_per_shard} images per shard are too few", "write at least one")
    if any(out.glob("*.tar")):
        raise UsageError(f"{out} holds shards already", "name another folder")
    if source.labels is not None:
        with atomic_write(out / CLASSES) as temporary:
            temporary.write_text("".join(f"{name}\n" for name in source.classes), encoding="utf-8")
    paths: list[Path] = []
    samples = _samples(source, on_bad_image, decoding_workers(len(source)) if workers is None else workers, advance)
    for first in samples:
        path = out / f"{len(paths):06}.tar"
        _write(chain([first], islice(samples, images_per_shard - 1)), source, path)
        paths.append(path)
    return paths


class _File(NamedTuple):
    """What goes into a shard for an image."""

    number: int
    suffix: str
    content: bytes


class _Read(NamedTuple):
    """What a worker read of a batch of images, in their order."""

    files: list[_File | BadImage]


@dataclass
class _Files(Dataset[_Read]):
    """Reads images for a shard."""

    source: Source

    def __getitems__(self, numbers: Sequence[int]) -> _Read:
        return _Read([self._file(number) for number in numbers])

    def _file(self, number: int) -> _File | BadImage:
        try:
            picture = self.source.open(number)
            content, image = picture.content, picture.pixels()  # a damaged one is better met here than in training
        except BadImageError as error:
            return BadImage(error.name, error.reason)
        suffix = _SUFFIXES.get(format_of(content))
        return _File(number, suffix, content) if suffix else _File(number, "png", encode_png(image))


def _samples(source: Source, on_bad_image: str, workers: int, advance: Callable[[int], None]) -> Iterator[_File]:
    """What goes into the shards, in order."""
    batches = [range(start, min(start + _BATCH, len(source))) for start in range(0, len(source), _BATCH)]
    with dead_workers_explained():
        for read in worker_loader(_Files(source), batches, workers, torch.device("cpu")):
            for file in read.files:
                if isinstance(file, _File):
                    yield file
                elif on_bad_image == "skip":
                    console.warn(f"left out {file.name}: {file.reason}")
                else:
                    raise GrocoError(
                        f"cannot decode {file.name}: {file.reason}",
                        "replace the file or move it away, or type --on-bad-image skip",
                    )
            advance(len(read.files))


def _write(files: Iterable[_File], source: Source, path: Path) -> None:
    from webdataset.writer import TarWriter

    with (
        atomic_write(path) as temporary,
        temporary.open("wb") as shard,
        TarWriter(shard, encoder=False, mtime=0) as tar,
    ):
        for file in files:
            sample: dict[str, str | bytes] = {"__key__": f"{file.number:09}", file.suffix: file.content}
            if source.labels is not None:
                sample["cls"] = str(int(source.labels[file.number])).encode()
            tar.write(sample)
