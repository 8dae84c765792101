"""Where images come from: a folder, a named set, or the embedded digits; all behind one small protocol.

A source counts its images from 0 in an order that never changes; an image's number is its identity everywhere else
(the views drawn of it, the features written of it).
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from groco_cli.data.decoding import BadImageError, decode
from groco_cli.data.digits import digits
from groco_cli.errors import GrocoError, UsageError, did_you_mean

IMAGE_ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".gif"})
TRAIN_FOLDERS = ("train",)
TEST_FOLDERS = ("val", "test", "validation")


class Source(Protocol):
    """Images, each with a label where there are any."""

    @property
    def labels(self) -> Tensor | None:
        """Numbers of the classes, int64 [n]."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes' names, in the order of the labels."""

    def __len__(self) -> int: ...

    def load(self, index: int) -> Tensor:
        """The picture, uint8 [3, H, W]."""


@dataclass(frozen=True)
class MemorySource:
    """Pictures of one size, all in memory.

    Args:
        images: uint8 [n, 3, H, W].
        labels: int64 [n], or None.
        classes: The classes' names, in the order of the labels.
    """

    images: Tensor
    labels: Tensor | None
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def load(self, index: int) -> Tensor:
        """The picture, uint8 [3, H, W]."""
        return self.images[index]


@dataclass(frozen=True)
class FileSource:
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

    def load(self, index: int) -> Tensor:
        """The picture, uint8 [3, H, W]; raises `BadImageError` where it cannot be decoded."""
        return decode(self.paths[index])


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


def data_root(given: str) -> Path:
    """Where named sets are kept: what `--data-root` says, else the user's cache."""
    return Path(given or "~/.cache/groco").expanduser()


def open_dataset(data: str, root: Path) -> Dataset:
    """Open what `--data` names.

    Args:
        data: "digits", "cifar10", "cifar100", or the path of a folder of images: flat, or one sub-folder a class, or
            `train` and `val` (or `test`) folders of either kind.
        root: Where named sets are kept; they are downloaded to it where absent.

    Raises:
        UsageError: If there is neither such a set nor such a folder.
        GrocoError: If there is no image in it that can be decoded, or a set cannot be downloaded.
    """
    if data in NAMED:
        return NAMED[data](root)
    try:
        folder = Path(data).expanduser()
        is_folder, exists = folder.is_dir(), folder.exists()
    except (OSError, RuntimeError) as error:  # no way into a folder above it; no such ~user; a name too long
        raise UsageError(f"--data {data}: cannot be opened ({error})", "give a folder that you may read") from error
    if is_folder:
        return _folder_dataset(folder)
    if exists:
        raise UsageError(f"--data {data} is a file", "give the folder that holds the images")
    hint = did_you_mean(data, NAMED) or f"give a folder of images, or one of {', '.join(NAMED)}"
    raise UsageError(f"--data {data}: no such folder or data set", hint)


def pick(source: Source, numbers: Tensor) -> Source:
    """Some images of a source, in the order asked for.

    Args:
        source: The images.
        numbers: Which of them, int64 [n].
    """
    labels = None if source.labels is None else source.labels[numbers]
    if isinstance(source, MemorySource):
        return MemorySource(source.images[numbers], labels, source.classes)
    assert isinstance(source, FileSource)
    return FileSource(tuple(source.paths[i] for i in numbers.tolist()), labels, source.classes)


def first(source: Source, count: int) -> Source:
    """The first `count` images of a source, all of them where it has fewer or `count` is 0."""
    return pick(source, torch.arange(count)) if 0 < count < len(source) else source


def _embedded_digits(root: Path) -> Dataset:
    classes = tuple(str(c) for c in range(10))
    return Dataset(
        "digits (embedded)",
        MemorySource(*digits(train=True), classes),
        MemorySource(*digits(train=False), classes),
    )


def _cifar(name: str, root: Path) -> Dataset:
    """CIFAR through torchvision, which opens only files whose checksums are those of the published set."""
    from torchvision.datasets import CIFAR10, CIFAR100

    reader = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]
    try:
        with redirect_stdout(sys.stderr):
            parts = [reader(root, train=train, download=True) for train in (True, False)]
    except (OSError, RuntimeError) as error:
        raise GrocoError(
            f"--data {name}: not in {root}, and cannot be downloaded ({error})",
            f"put the folder {reader.base_folder} of {reader.url} there, or give its place with --data-root",
        ) from error
    train, test = (
        MemorySource(
            torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(),
            torch.tensor(part.targets),
            tuple(part.classes),
        )
        for part in parts
    )
    return Dataset(name, train, test)


NAMED: dict[str, Callable[[Path], Dataset]] = {
    "digits": _embedded_digits,
    "cifar10": lambda root: _cifar("cifar10", root),
    "cifar100": lambda root: _cifar("cifar100", root),
}


def _folder_dataset(folder: Path) -> Dataset:
    train = next((folder / name for name in TRAIN_FOLDERS if (folder / name).is_dir()), None)
    test = next((folder / name for name in TEST_FOLDERS if (folder / name).is_dir()), None)
    if train is None or test is None:
        return Dataset(str(folder), _folder_source(train or folder), None)
    bank, queries = _folder_source(train), _folder_source(test)
    if queries.labels is not None and bank.classes != queries.classes:
        queries = _relabelled(queries, bank, test)
    return Dataset(str(folder), bank, queries)


def _folder_source(folder: Path) -> FileSource:
    """One sub-folder a class where every image lies in a sub-folder, else unlabelled."""
    try:
        paths = tuple(_image_files(folder))
    except OSError as error:
        raise GrocoError(f"--data {folder}: cannot be read ({error.strerror or error})") from error
    if not paths:
        raise GrocoError(
            f"--data {folder}: no image in it", f"it should hold files ending in {', '.join(sorted(IMAGE_ENDINGS))}"
        )
    _check_decodable(paths, folder)
    of_class = [path.relative_to(folder).parts[0] if path.parent != folder else None for path in paths]
    if None in of_class:
        return FileSource(paths, None, ())
    classes = tuple(sorted({name for name in of_class if name is not None}))
    number = {name: i for i, name in enumerate(classes)}
    return FileSource(paths, torch.tensor([number[name] for name in of_class if name]), classes)


def _image_files(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """All image files below a folder in sorted order, through links too, but never in a circle."""
    real = folder.resolve()
    if real in above:
        return
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _image_files(Path(entry.path), above | {real})
        elif Path(entry.name).suffix.lower() in IMAGE_ENDINGS:
            yield Path(entry.path)


def _check_decodable(paths: Sequence[Path], folder: Path, tries: int = 16) -> None:
    """Fail early where it is plain that nothing can be decoded; single bad files are met when they are read."""
    for path in paths[:tries]:
        try:
            decode(path)
        except BadImageError as error:
            reason = error.reason
        else:
            return
    raise GrocoError(
        f"--data {folder}: no decodable image among the first {min(tries, len(paths))} ({paths[0].name}: {reason})",
        "check that the files are whole",
    )


def _relabelled(queries: FileSource, bank: FileSource, folder: Path) -> FileSource:
    """The queries with the bank's numbering of the classes."""
    assert queries.labels is not None
    number = {name: i for i, name in enumerate(bank.classes)}
    unknown = [name for name in queries.classes if name not in number]
    if unknown:
        raise GrocoError(
            f"--data {folder}: class{'es' * (len(unknown) > 1)} {', '.join(unknown[:5])} not among those of the "
            "training images",
            "give both folders the same class sub-folders",
        )
    labels = torch.tensor([number[queries.classes[label]] for label in queries.labels.tolist()])
    return FileSource(queries.paths, labels, bank.classes)
