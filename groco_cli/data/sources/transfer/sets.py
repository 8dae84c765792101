"""The eleven sets by name: where each lies, who reads it, and how many pictures were published."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from groco_cli.data.sources.base import Dataset, FileSource, Source, check_decodable
from groco_cli.data.sources.named import torchvision_dataset
from groco_cli.data.sources.transfer.split_lists import caltech101, sun397
from groco_cli.data.sources.transfer.validation import validation_rows
from groco_cli.data.sources.transfer.voc2007 import voc2007
from groco_cli.errors import GrocoError


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One of the sets.

    Args:
        read: From the data root to the set.
        files: What has to be there, below the data root.
        train: Published number of training images.
        test: Published number of test images.
    """

    read: Callable[[Path], Dataset]
    files: tuple[str, ...]
    train: int
    test: int


@dataclass(frozen=True, kw_only=True)
class TransferSet:
    """A set that is there.

    Args:
        name: Its name in `TRANSFER_SETS`.
        train: What neighbours are taken from.
        test: What is classified.
        remark: In what its counts differ from the published ones; empty where they do not.
        validation: Which training images are its validation split, int64 [v]; None where it has none.
    """

    name: str
    train: Source
    test: Source
    remark: str
    validation: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Missing:
    """A set that is not there, or not all of it.

    Args:
        name: Its name in `TRANSFER_SETS`.
        wanted: Its folder; or, where that is there, the files and folders in it that were looked for in vain.
    """

    name: str
    wanted: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A set that is there, and cannot be measured.

    Args:
        name: Its name in `TRANSFER_SETS`.
        error: Why.
    """

    name: str
    error: GrocoError


def _below(folder: str, *files: str) -> tuple[str, ...]:
    return tuple(f"{folder}/{file}" for file in files)


def _torchvision(name: str, files: tuple[str, ...], train: int, test: int) -> Entry:
    return Entry(read=partial(torchvision_dataset, name, download=False), files=files, train=train, test=test)


TRANSFER_SETS: dict[str, Entry] = {
    "aircraft": _torchvision(
        "fgvc-aircraft",
        _below(
            "fgvc-aircraft-2013b/data",
            "images",
            "variants.txt",
            "images_variant_trainval.txt",
            "images_variant_test.txt",
        ),
        train=6_667,
        test=3_333,
    ),
    # There is no official split. These counts are those of lists with all 102 folders, the background among them.
    "caltech101": Entry(
        read=caltech101,
        files=_below("caltech101", "101_ObjectCategories", "train.txt", "test.txt"),
        train=2_416,
        test=6_728,
    ),
    "cars": _torchvision(
        "stanford-cars",
        _below(
            "stanford_cars",
            "cars_train",
            "cars_test",
            "devkit/cars_meta.mat",
            "devkit/cars_train_annos.mat",
            "cars_test_annos_withlabels.mat",  # the devkit's own cars_test_annos.mat has no labels
        ),
        train=8_144,
        test=8_041,
    ),
    "cifar10": _torchvision("cifar10", ("cifar-10-batches-py",), train=50_000, test=10_000),
    "cifar100": _torchvision("cifar100", ("cifar-100-python",), train=50_000, test=10_000),
    "dtd": _torchvision(
        "dtd",
        _below("dtd/dtd", "images", "labels/train1.txt", "labels/val1.txt", "labels/test1.txt"),
        train=3_760,
        test=1_880,
    ),
    "flowers": _torchvision(
        "flowers102", _below("flowers-102", "jpg", "imagelabels.mat", "setid.mat"), train=2_040, test=6_149
    ),
    "food": _torchvision(
        "food101", _below("food-101", "images", "meta/train.json", "meta/test.json"), train=75_750, test=25_250
    ),
    "pets": _torchvision(
        "oxford-iiit-pet",
        _below("oxford-iiit-pet", "images", "annotations/trainval.txt", "annotations/test.txt"),
        train=3_680,
        test=3_669,
    ),
    "sun397": Entry(
        read=sun397, files=_below("SUN397", "a", "Training_01.txt", "Testing_01.txt"), train=19_850, test=19_850
    ),
    "voc2007": Entry(
        read=voc2007,
        files=_below(
            "VOCdevkit/VOC2007",
            "JPEGImages",
            "Annotations",
            "ImageSets/Main/trainval.txt",
            "ImageSets/Main/test.txt",
        ),
        train=5_011,
        test=4_952,
    ),
}


def open_transfer_set(name: str, root: Path) -> TransferSet | Missing | Failed:
    """Open one of the sets; nothing is downloaded.

    Args:
        name: Its name in `TRANSFER_SETS`.
        root: Where sets are kept.
    """
    entry = TRANSFER_SETS[name]
    folder = root / Path(entry.files[0]).parts[0]
    if not folder.exists():
        return Missing(name=name, wanted=(folder,))
    absent = tuple(root / file for file in entry.files if not (root / file).exists())
    if absent:
        return Missing(name=name, wanted=absent)
    try:
        dataset = entry.read(root)
        assert dataset.test is not None
        for part in (dataset.train, dataset.test):
            _check_files(part)
        check_decodable(dataset.train, name)
        remark = _difference(entry, len(dataset.train), len(dataset.test))
        validation = validation_rows(name, root, dataset.train)
        return TransferSet(name=name, train=dataset.train, test=dataset.test, remark=remark, validation=validation)
    except GrocoError as error:
        return Failed(name=name, error=error)


def _check_files(source: Source) -> None:
    """Find out before long work whether all pictures are there."""
    if not isinstance(source, FileSource):
        return
    missing = [path for path in source.paths if not path.is_file()]
    if missing:
        shown = f"{missing[0]}{', …' * (len(missing) > 1)}"
        raise GrocoError(
            f"{len(missing):,} of {len(source):,} listed pictures are missing ({shown})", "unpack the set again"
        )


def _difference(entry: Entry, train: int, test: int) -> str:
    """In what the counts differ from the published ones; empty where they do not."""
    if (train, test) == (entry.train, entry.test):
        return ""
    if train <= entry.train and test <= entry.test:
        return f"partial copy: {train:,} of {entry.train:,} training images, {test:,} of {entry.test:,} test images"
    return f"another split: {train:,} training and {test:,} test images, not {entry.train:,} and {entry.test:,}"
