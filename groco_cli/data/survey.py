"""What is in a source: how many pictures, of which classes, how large, and which of them are broken.

Every picture's file is opened and its head read. That tells its size, and a file that is no picture; one that is cut
off is only found by decoding it, which is many times slower and may be left to some of them.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from groco_cli.data.decoding import BadImageError, format_of
from groco_cli.data.pool import dead_workers_explained, decoding_workers, worker_loader
from groco_cli.data.sources import MemorySource, Source, evenly_spread

QUANTILES = {"min": 0.0, "p5": 0.05, "median": 0.5, "p95": 0.95, "max": 1.0}
_BATCH = 64


@dataclass(frozen=True)
class Broken:
    """A picture that cannot be decoded.

    Args:
        number: Its number in the source.
        name: Its path, or "shard.tar:key".
        reason: What the decoder said.
    """

    number: int
    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What was found; the arrays are of the pictures whose head can be read, in their order.

    Args:
        images: How many pictures there are, broken ones among them.
        classes: The classes' names; empty where there are no labels.
        class_sizes: Images of each class, int64 [classes].
        heights: Of the upright pictures, pixels, int64 [readable].
        widths: Likewise.
        file_sizes: Bytes, int64 [readable]; None for pictures in memory.
        formats: How many files there are of each, by Pillow's name for it.
        decoded: How many pictures were decoded whole, or could not be.
        broken: Those that cannot be, in their order.
    """

    images: int
    classes: tuple[str, ...]
    class_sizes: NDArray[np.int64]
    heights: NDArray[np.int64]
    widths: NDArray[np.int64]
    file_sizes: NDArray[np.int64] | None
    formats: dict[str, int]
    decoded: int
    broken: tuple[Broken, ...]

    def quantiles(self) -> dict[str, dict[str, int]]:
        """What varies (width, height, file_size, class_size), from the smallest to the largest, as `QUANTILES` says."""
        measured = {
            "width": self.widths,
            "height": self.heights,
            "file_size": self.file_sizes,
            "class_size": self.class_sizes,
        }
        return {name: _quantiles(values) for name, values in measured.items() if values is not None and len(values)}


def survey(
    source: Source,
    *,
    decode: int | None = None,
    workers: int | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> Survey:
    """Look at every picture of a source.

    Memory grows by some thirty bytes a picture.

    Args:
        source: The pictures.
        decode: How many of them to decode whole, evenly spread; None for all.
        workers: Processes that look; None for one a core where there is much to look at.
        advance: Called with how many more pictures were looked at.

    Raises:
        GrocoError: If a worker process dies.
    """
    count = len(source)
    labels = np.empty(0, np.int64) if source.labels is None else source.labels.numpy()
    if isinstance(source, MemorySource):
        advance(count)
        height, width = source.images.shape[-2:]
        found = _Found(np.full(count, height), np.full(count, width), None, Counter(), count, ())
    else:
        found = _look_at_files(source, count if decode is None else decode, workers, advance)
    return Survey(
        images=count,
        classes=source.classes,
        class_sizes=np.bincount(labels, minlength=len(source.classes)),
        heights=found.heights,
        widths=found.widths,
        file_sizes=found.file_sizes,
        formats=dict(found.formats.most_common()),
        decoded=found.decoded,
        broken=found.broken,
    )


class _Found(NamedTuple):
    heights: NDArray[np.int64]
    widths: NDArray[np.int64]
    file_sizes: NDArray[np.int64] | None
    formats: Counter[str]
    decoded: int
    broken: tuple[Broken, ...]


class _Seen(NamedTuple):
    """What a worker saw of a batch of pictures: height, width and bytes of those whose head can be read, [k, 3]."""

    images: int
    sides: torch.Tensor
    formats: Counter[str]
    broken: list[Broken]


@dataclass
class _Look(Dataset[_Seen]):
    """Looks at pictures, and decodes those that are to be."""

    source: Source
    to_decode: NDArray[np.bool_]

    def __getitems__(self, numbers: Sequence[int]) -> _Seen:
        sides, formats, broken = [], Counter[str](), []
        for number in numbers:
            try:
                picture = self.source.open(number)
                height, width = picture.size
                content = picture.content
                sides.append((height, width, len(content)))
                formats[format_of(content) or "unknown"] += 1
                if self.to_decode[number]:
                    picture.pixels()
            except BadImageError as error:
                broken.append(Broken(number, error.name, error.reason))
        return _Seen(len(numbers), torch.tensor(sides, dtype=torch.int64).view(-1, 3), formats, broken)


def _look_at_files(source: Source, decode: int, workers: int | None, advance: Callable[[int], None]) -> _Found:
    count = len(source)
    to_decode = np.zeros(count, np.bool_)
    to_decode[evenly_spread(count, decode).numpy()] = True
    sides, formats, broken = [], Counter[str](), []
    for seen in _looked_at(_Look(source, to_decode), count, decoding_workers(count) if workers is None else workers):
        sides.append(seen.sides.numpy())
        formats += seen.formats
        broken += seen.broken
        advance(seen.images)
    heights, widths, file_sizes = np.concatenate(sides).T
    return _Found(heights, widths, file_sizes, formats, int(to_decode.sum()), tuple(broken))


def _looked_at(look: _Look, count: int, workers: int) -> Iterator[_Seen]:
    batches = [range(start, min(start + _BATCH, count)) for start in range(0, count, _BATCH)]
    with dead_workers_explained():
        yield from worker_loader(look, batches, workers, torch.device("cpu"))


def _quantiles(values: NDArray[np.int64]) -> dict[str, int]:
    """Each is one of the values."""
    found = np.quantile(values, list(QUANTILES.values()), method="inverted_cdf")
    return dict(zip(QUANTILES, found.tolist(), strict=True))
