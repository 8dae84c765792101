"""What a source of images is, and the two plainest: pictures in memory, and pictures in files.

A source counts its images from 0 in an order that never changes; an image's number is its identity everywhere else
(the views drawn of it, the features written of it). Sources hold no open files, so they may be copied to workers.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import torch
from torch import Tensor

from groco_cli.data.decoding import BadImageError, encode_png, read
from groco_cli.data.sources.fingerprints import common_folder, file_stamp, fingerprint_of, lost_folder, names_below
from groco_cli.errors import GrocoError

IMAGE_ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".gif"})
TRAIN = "train"
HELD_OUT = ("val", "test", "validation")
"""What a held-out part may be called; of several, the first here is taken."""


class Picture(Protocol):
    """A picture whose size is known before its pixels are asked for; both raise `BadImageError` where it is bad."""

    @property
    def content(self) -> bytes:
        """Its file, as it is where there is one."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""

    def pixels(self, shrink: int = 1) -> Tensor:
        """The pixels, uint8 [3, H, W]; up to `shrink` times smaller where that is faster."""


class Source(ABC):
    """Images, each with a label where there are any.

    Attributes:
        labels: Numbers of the classes, int64 [n], or None.
        classes: The classes' names, in the order of the labels.
    """

    labels: Tensor | None
    classes: tuple[str, ...]

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def open(self, index: int) -> Picture:
        """A picture, its pixels not decoded yet; raises `BadImageError` where its file cannot be read."""

    @abstractmethod
    def name_of(self, index: int) -> str:
        """What to call the picture in an error or a report."""

    @abstractmethod
    def subset(self, numbers: Tensor) -> Self:
        """Some of the images, in the order asked for; `numbers` is int64 [k]."""

    def fingerprint(self) -> str:
        """A hash that changes with the pictures or their order; reads every file where a source knows nothing quicker.

        Raises:
            GrocoError: If a picture's file cannot be read.
        """
        return fingerprint_of(self.open(index).content for index in range(len(self)))

    def inventory(self) -> str:
        """A hash of the pictures' names in their order, the same wherever they lie; "" where they have none.

        It opens no file, and does not look for any: seconds for a million, where `fingerprint` asks the disk for each.
        """
        return ""

    def lost(self) -> str:
        """The folder that the pictures lay in, where all are gone from it; else ""."""
        return ""

    def load(self, index: int) -> Tensor:
        """A picture's pixels, uint8 [3, H, W]; raises `BadImageError` where it cannot be decoded."""
        return self.open(index).pixels()


@dataclass(frozen=True)
class Decoded:
    """A picture whose pixels are there, uint8 [3, H, W]."""

    image: Tensor

    @property
    def content(self) -> bytes:
        """The picture as a PNG file."""
        return encode_png(self.image)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.image.shape[1:]
        return height, width

    def pixels(self, shrink: int = 1) -> Tensor:
        """The pixels, as they are."""
        return self.image


@dataclass(frozen=True)
class MemorySource(Source):
    """Pictures of one size, all in memory.

    Args:
        images: uint8 [n, 3, H, W].
        labels: int64 [n], or None.
        classes: The classes' names, in the order of the labels.
        name: What the pictures are called, by their number behind it.
        numbers: Those numbers, int64 [n]; None to count from 0.
    """

    images: Tensor
    labels: Tensor | None
    classes: tuple[str, ...]
    name: str = "image"
    numbers: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    def open(self, index: int) -> Picture:
        """A picture."""
        return Decoded(self.images[index])

    def name_of(self, index: int) -> str:
        """The set's name and the picture's number in it."""
        return f"{self.name} {index if self.numbers is None else int(self.numbers[index])}"

    def subset(self, numbers: Tensor) -> Self:
        """Some of the pictures, in the order asked for; they keep their names."""
        kept = numbers if self.numbers is None else self.numbers[numbers]
        return type(self)(self.images[numbers], labels_of(self, numbers), self.classes, self.name, kept)

    def fingerprint(self) -> str:
        """A hash of the pixels."""
        return fingerprint_of([str(tuple(self.images.shape)).encode(), self.images.contiguous().numpy().data])

    def inventory(self) -> str:
        """A hash of the set's name, and of the pictures' numbers in it."""
        numbers = torch.arange(len(self)) if self.numbers is None else self.numbers
        return fingerprint_of([self.name.encode(), numbers.contiguous().numpy().data])


@dataclass(frozen=True)
class FileSource(Source):
    """Pictures in files.

    Args:
        paths: The files, in a fixed order.
        labels: int64 [n], or None.
        classes: The classes' names, in the order of the labels.
    """

    paths: tuple[Path, ...]
    labels: Tensor | None
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def open(self, index: int) -> Picture:
        """A picture; raises `BadImageError` where its file cannot be read."""
        return read(self.paths[index])

    def name_of(self, index: int) -> str:
        """The file's path."""
        return str(self.paths[index])

    def subset(self, numbers: Tensor) -> Self:
        """Some of the pictures, in the order asked for."""
        return type(self)(tuple(self.paths[i] for i in numbers.tolist()), labels_of(self, numbers), self.classes)

    def fingerprint(self) -> str:
        """A hash of the files' paths, sizes and times."""
        return fingerprint_of(map(file_stamp, self.paths))

    def inventory(self) -> str:
        """A hash of the files' paths below the folder that holds them all."""
        return fingerprint_of([names_below(common_folder(self.paths), self.paths)])

    def lost(self) -> str:
        """The folder that held the files, where all are gone; else ""."""
        return lost_folder(self.paths)


@dataclass(frozen=True)
class Dataset:
    """What `--data` names.

    Args:
        name: For people: a name, or the folder.
        train: What is learnt from, and the bank of k-NN.
        test: What is held out as queries; None where the set has no such part.
    """

    name: str
    train: Source
    test: Source | None


def default_root(given: Path | str | None = None) -> Path:
    """Where named sets, remote shards and shards' indexes are kept: what `--data-root` says, else the user's cache."""
    return Path(given or "~/.cache/groco").expanduser()


def pick(source: Source, numbers: Tensor) -> Source:
    """Some images of a source, in the order asked for.

    Args:
        source: The images.
        numbers: Which of them, int64 [k].
    """
    return source.subset(numbers)


def first(source: Source, count: int) -> Source:
    """The first `count` images of a source, all of them where it has fewer or `count` is 0."""
    return source.subset(torch.arange(count)) if 0 < count < len(source) else source


def thinned(source: Source, count: int) -> Source:
    """So many images in place of all: of sets in memory the first, of all else some that are evenly spread.

    Sets that are kept in memory (CIFAR, MNIST, …) were published in mixed order; files and shards often come class by
    class, and the first of them would show a few classes only.

    Args:
        source: The images.
        count: How many to keep; 0 for all.
    """
    if isinstance(source, MemorySource) or not 0 < count < len(source):
        return first(source, count)
    return source.subset(evenly_spread(len(source), count))


def evenly_spread(count: int, wanted: int) -> Tensor:
    """Numbers in [0, count), rising and evenly spread, int64 [wanted]; all of them where no fewer are wanted."""
    wanted = min(count, wanted)
    return torch.arange(wanted) * count // max(1, wanted)


def labels_of(source: Source, numbers: Tensor) -> Tensor | None:
    """The labels of some images; None where there are none."""
    return None if source.labels is None else source.labels[numbers]


def held_out_part(parts: Sequence[str]) -> str | None:
    """The part to hold out, of those that a set has."""
    return next((name for name in HELD_OUT if name in parts), None)


def check_decodable(source: Source, data: object, tries: int = 16) -> None:
    """Fail early where it is plain that nothing can be decoded; single bad images are met when they are read.

    Args:
        source: The images, at least one.
        data: What `--data` said.
        tries: How many to look at.

    Raises:
        GrocoError: If none of the first can be decoded.
    """
    tries = min(tries, len(source))
    for index in range(tries):
        try:
            source.load(index)
        except BadImageError as error:
            reason = error.reason
        else:
            return
    raise GrocoError(
        f"{data}: no decodable image among the first {tries} ({source.name_of(0)}: {reason})",
        "check that the files are whole",
    )
