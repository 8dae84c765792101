"""Named sets: the embedded digits, and those that torchvision reads, a line each.

torchvision downloads what is not there, where the set's owners still offer it, and checks what it read against the
published checksums where it knows them. Only its lists of files or its arrays are taken: pictures in files are decoded
by `groco_cli.data.decoding`, as everywhere else.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from groco_cli.data.digits import digits
from groco_cli.data.sources.base import Dataset, FileSource, MemorySource, check_decodable
from groco_cli.errors import GrocoError, first_line

_Arguments = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class TorchvisionSet:
    """How torchvision calls a set.

    Args:
        reader: The class in torchvision.datasets.
        train: Arguments for each piece of what is learnt from.
        test: Likewise for what is held out; none where the set is not split.
        files: What it wants to find, below the data root.
        download: Whether torchvision can download it.
        folder: Where the reader looks, below the data root, if not there itself.
        labelled: Whether to take its labels.
        sort: Whether its files come in the disk's order, and have to be put into that of their names.
    """

    reader: str
    train: Sequence[_Arguments]
    test: Sequence[_Arguments]
    files: str
    download: bool = True
    folder: str = ""
    labelled: bool = True
    sort: bool = False


_TRAIN_OR_NOT: dict[str, Any] = {"train": [{"train": True}], "test": [{"train": False}]}


def _splits(train: str, test: str = "", **more: Any) -> dict[str, Any]:
    """Pieces by torchvision's argument `split`; several joined by a space."""
    train_pieces, test_pieces = ([{"split": split, **more} for split in part.split()] for part in (train, test))
    return {"train": train_pieces, "test": test_pieces}


# The splits are those of the usual transfer protocols: what is not for testing is for training.
TORCHVISION: dict[str, TorchvisionSet] = {
    "cifar10": TorchvisionSet(reader="CIFAR10", **_TRAIN_OR_NOT, files="cifar-10-batches-py"),
    "cifar100": TorchvisionSet(reader="CIFAR100", **_TRAIN_OR_NOT, files="cifar-100-python"),
    "stl10": TorchvisionSet(reader="STL10", **_splits("train", "test"), files="stl10_binary"),
    "stl10-unlabeled": TorchvisionSet(
        reader="STL10", **_splits("train+unlabeled"), files="stl10_binary", labelled=False
    ),
    "svhn": TorchvisionSet(reader="SVHN", **_splits("train", "test"), files="train_32x32.mat and test_32x32.mat"),
    "mnist": TorchvisionSet(reader="MNIST", **_TRAIN_OR_NOT, files="MNIST/raw"),
    "fashion-mnist": TorchvisionSet(reader="FashionMNIST", **_TRAIN_OR_NOT, files="FashionMNIST/raw"),
    "kmnist": TorchvisionSet(reader="KMNIST", **_TRAIN_OR_NOT, files="KMNIST/raw"),
    "usps": TorchvisionSet(reader="USPS", **_TRAIN_OR_NOT, files="usps.bz2 and usps.t.bz2"),
    "imagenet": TorchvisionSet(
        reader="ImageNet",
        **_splits("train", "val"),
        files="imagenet (with train, val and ILSVRC2012_devkit_t12.tar.gz)",
        download=False,
        folder="imagenet",
    ),
    "imagenette": TorchvisionSet(reader="Imagenette", **_splits("train", "val"), files="imagenette2"),
    "places365": TorchvisionSet(
        reader="Places365", **_splits("train-standard", "val", small=True), files="data_256_standard and val_256"
    ),
    "flowers102": TorchvisionSet(reader="Flowers102", **_splits("train val", "test"), files="flowers-102"),
    "food101": TorchvisionSet(reader="Food101", **_splits("train", "test"), files="food-101"),
    "oxford-iiit-pet": TorchvisionSet(reader="OxfordIIITPet", **_splits("trainval", "test"), files="oxford-iiit-pet"),
    "dtd": TorchvisionSet(reader="DTD", **_splits("train val", "test", partition=1), files="dtd/dtd"),
    "fgvc-aircraft": TorchvisionSet(reader="FGVCAircraft", **_splits("trainval", "test"), files="fgvc-aircraft-2013b"),
    "stanford-cars": TorchvisionSet(
        reader="StanfordCars", **_splits("train", "test"), files="stanford_cars", download=False
    ),
    "country211": TorchvisionSet(reader="Country211", **_splits("train valid", "test"), files="country211"),
    "gtsrb": TorchvisionSet(reader="GTSRB", **_splits("train", "test"), files="gtsrb"),
    "rendered-sst2": TorchvisionSet(reader="RenderedSST2", **_splits("train val", "test"), files="rendered-sst2"),
    "eurosat": TorchvisionSet(reader="EuroSAT", train=[{}], test=[], files="eurosat/2750"),
    "sun397": TorchvisionSet(reader="SUN397", train=[{}], test=[], files="SUN397", download=False, sort=True),
}
_PAIRS = ("samples", "_samples", "imgs")  # of file and label
_FILES = ("_image_files", "_images")
_LABELS = ("targets", "labels", "_labels")


def _embedded_digits(root: Path) -> Dataset:
    classes = tuple(str(c) for c in range(10))
    return Dataset(
        "digits (embedded)",
        MemorySource(*digits(train=True), classes, "digits"),
        MemorySource(*digits(train=False), classes, "digits test"),
    )


def torchvision_dataset(name: str, root: Path, *, download: bool = True) -> Dataset:
    """Open a set through its reader in torchvision.

    Args:
        name: One of `TORCHVISION`.
        root: Where sets are kept.
        download: Whether to fetch what is not there.

    Raises:
        GrocoError: If it is not there and cannot be downloaded, or is damaged.
    """
    entry = TORCHVISION[name]
    train, test = (
        [_read(name, entry, arguments, root, download=download) for arguments in part]
        for part in (entry.train, entry.test)
    )
    classes = _classes(name, [*train, *test]) if entry.labelled else None
    bank = _source(name, train, classes)
    if entry.sort and isinstance(bank, FileSource):
        bank = bank.subset(torch.tensor(sorted(range(len(bank)), key=bank.paths.__getitem__)))
    check_decodable(bank, name)
    return Dataset(name, bank, _source(f"{name} test", test, classes) if test else None)


NAMED: dict[str, Callable[[Path], Dataset]] = {
    "digits": _embedded_digits,
    **{name: partial(torchvision_dataset, name) for name in TORCHVISION},
}
# Their names in `groco transfer --sets`. They are common words: a folder of such a name comes first.
ALIASES = {
    "aircraft": "fgvc-aircraft",
    "cars": "stanford-cars",
    "flowers": "flowers102",
    "food": "food101",
    "pets": "oxford-iiit-pet",
}


def _read(name: str, entry: TorchvisionSet, arguments: _Arguments, root: Path, *, download: bool) -> Any:
    """A piece of a set, downloaded where it is not there and may be."""
    from torchvision import datasets

    reader = getattr(datasets, entry.reader)

    def opened(**more: Any) -> Any:
        piece = reader(root / entry.folder, **arguments, **more)
        if not hasattr(piece, "data"):  # some readers look for their lists alone
            Path(_paths(piece)[0]).stat()
        return piece

    with redirect_stdout(sys.stderr):  # standard output is for results
        try:
            return opened()
        except Exception as error:  # of half a set the readers raise whatever they trip over
            cause = error
        if not download:
            raise GrocoError(f"{name} in {root}: cannot be read ({first_line(cause)})", "fetch it again") from cause
        try:
            if entry.download:
                return opened(download=True)
            reason = f"torchvision cannot download it ({first_line(cause)})"
        except Exception as error:
            cause, reason = error, f"cannot be downloaded ({first_line(error)})"
    urls = (getattr(reader, attribute, None) for attribute in ("url", "_URL"))
    address = next((f" of {url}" for url in urls if isinstance(url, str)), "")
    raise GrocoError(
        f"{name}: not in {root}, and {reason}",
        f"put {entry.files}{address} there, or give its place with --data-root",
    ) from cause


def _source(name: str, pieces: Sequence[Any], classes: tuple[str, ...] | None) -> MemorySource | FileSource:
    """The pieces of a part, one behind the other; without labels where `classes` is None."""
    labels = None if classes is None else torch.cat([_labels(piece) for piece in pieces])
    if hasattr(pieces[0], "data"):
        return MemorySource(torch.cat([_pictures(piece.data) for piece in pieces]), labels, classes or (), name)
    return FileSource(tuple(Path(path) for piece in pieces for path in _paths(piece)), labels, classes or ())


def _pictures(data: Any) -> Tensor:
    """Arrays [n, H, W, 3], [n, 3, H, W] or, grey, [n, H, W] as uint8 [n, 3, H, W]."""
    images = torch.as_tensor(data)
    if images.ndim == 3:
        return images[:, None].expand(-1, 3, -1, -1)
    return images if images.shape[1] == 3 else images.permute(0, 3, 1, 2)


def _paths(piece: Any) -> list[Any]:
    pairs = _attribute(piece, _PAIRS)
    return [path for path, _ in pairs] if pairs is not None else list(_attribute(piece, _FILES))


def _labels(piece: Any) -> Tensor:
    pairs = _attribute(piece, _PAIRS)
    labels = [label for _, label in pairs] if pairs is not None else _attribute(piece, _LABELS)
    return torch.as_tensor(np.asarray(labels)).long()


def _attribute(piece: Any, names: Sequence[str]) -> Any:
    """The first of these that a reader has: each keeps its lists under a name of its own."""
    return next((getattr(piece, name) for name in names if hasattr(piece, name)), None)


def _classes(name: str, pieces: Sequence[Any]) -> tuple[str, ...]:
    """The classes' names, where the reader knows them, else their numbers."""
    if not hasattr(pieces[0], "classes"):
        return tuple(str(number) for number in range(1 + max(int(_labels(piece).max()) for piece in pieces)))
    (classes, *others) = ([n if isinstance(n, str) else ", ".join(n) for n in piece.classes] for piece in pieces)
    if any(other != classes for other in others):
        raise GrocoError(f"{name}: its parts have different classes", "fetch it again")
    return tuple(classes)
