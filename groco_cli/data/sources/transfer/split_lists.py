"""Sets that torchvision does not split: Caltech101 and SUN397, by lists of files.

Each line of a list is a picture's path, and its folder is its class. Caltech101's lists give the class's number behind
the path ("yin_yang/image_0059.jpg 101"), which says the same; SUN397's begin with a slash and the class's first letter
("/a/access/indoor/sun_aaa.jpg").
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import torch

from groco_cli.data.sources.base import Dataset, FileSource
from groco_cli.errors import GrocoError

_Listed = Sequence[tuple[PurePosixPath, str]]
"""Pictures below a set's folder, each with the name of its class."""


def caltech101(root: Path) -> Dataset:
    """Caltech101 by `caltech101/train.txt` and `test.txt`; its background is a class where they list it.

    Raises:
        GrocoError: If a list cannot be read, or the two do not fit together.
    """
    folder = root / "caltech101"
    train, test = (_listed(folder / f"{part}.txt") for part in ("train", "test"))
    return _dataset("caltech101", folder, folder / "101_ObjectCategories", train, test)


def sun397(root: Path) -> Dataset:
    """SUN397 by the first of its ten published partitions.

    Raises:
        GrocoError: If a list cannot be read, or the two do not fit together.
    """
    folder = root / "SUN397"
    train, test = (_listed(folder / f"{part}_01.txt", letter=True) for part in ("Training", "Testing"))
    return _dataset("sun397", folder, folder, train, test)


def _listed(path: Path, *, letter: bool = False) -> _Listed:
    """The pictures that a list names.

    Args:
        path: The list; lines may end as on Windows.
        letter: Whether classes lie in folders of their first letter.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise GrocoError(f"{path}: cannot be read ({error})", "fetch it again") from error
    pictures: list[tuple[PurePosixPath, str]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        picture = PurePosixPath(line.split()[0].lstrip("/"))
        folders = picture.parent.parts[1 if letter else 0 :]
        if not folders or ".." in picture.parts:
            raise GrocoError(
                f"{path}, line {number}: {line.strip()[:80]!r} is no picture in a folder of its class",
                "write CLASS/PICTURE.jpg, or fetch the list again",
            )
        pictures.append((picture, "/".join(folders)))
    if not pictures:
        raise GrocoError(f"{path}: no picture in it", "fetch it again")
    return pictures


def _dataset(name: str, lists: Path, folder: Path, train: _Listed, test: _Listed) -> Dataset:
    both = {picture for picture, _ in train} & {picture for picture, _ in test}
    if both:
        raise GrocoError(
            f"{lists}: {len(both):,} of the training pictures are for testing too ({min(both)})",
            "take both lists from one split",
        )
    classes = tuple(sorted({label for _, label in train}))
    unknown = sorted({label for _, label in test} - set(classes))
    if unknown:
        raise GrocoError(
            f"{lists}: no training picture of {', '.join(unknown[:3])}{', …' * (len(unknown) > 3)}, only of testing",
            "take both lists from one split",
        )
    numbers = {label: number for number, label in enumerate(classes)}

    def source(listed: _Listed) -> FileSource:
        labels = torch.tensor([numbers[label] for _, label in listed])
        return FileSource(tuple(folder / picture for picture, _ in listed), labels, classes)

    return Dataset(name, source(train), source(test))
