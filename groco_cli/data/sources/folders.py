"""A folder of images: flat, or one sub-folder a class, or `train` and `val` folders of either kind."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from groco_cli import console
from groco_cli.data.sources.base import (
    HELD_OUT,
    IMAGE_ENDINGS,
    TRAIN,
    Dataset,
    FileSource,
    check_decodable,
    held_out_part,
)
from groco_cli.data.sources.labels import NO_NUMBER, aligned, number_classes
from groco_cli.distributed.collectives import rank
from groco_cli.errors import GrocoError
from groco_cli.files import is_run


def parts_of(folder: Path) -> tuple[Path, Path | None]:
    """The folder of the training images, and that of the held-out ones where both are there.

    Args:
        folder: A folder that may hold `train`, and `val`, `test` or `validation`.
    """
    train = folder / TRAIN
    held_out = held_out_part([name for name in HELD_OUT if (folder / name).is_dir()])
    if not train.is_dir():
        return folder, None
    return train, folder / held_out if held_out else None


def becomes_image(path: Path, folder: Path) -> bool:
    """Whether a picture that is written there would be one of a folder's images.

    Args:
        path: The picture's file.
        folder: A folder of images.
    """
    return any(path.resolve().is_relative_to(part.resolve()) for part in parts_of(folder) if part)


def folder_dataset(folder: Path) -> Dataset:
    """Open a folder of images; folders of groco's own runs in it are left out, and named on stderr.

    Raises:
        GrocoError: If it cannot be read, holds no image that can be decoded, is a run's folder itself, or the held-out
            images show other classes.
    """
    train, test = parts_of(folder)
    bank = _folder_source(train)
    return Dataset(str(folder), bank, aligned(_folder_source(test), bank, test) if test else None)


def _folder_source(folder: Path) -> FileSource:
    """One sub-folder a class where every image lies in a sub-folder, else unlabelled."""
    runs: list[Path] = []
    try:
        if is_run(folder):
            raise GrocoError(f"{folder} is a groco run's folder", "give a folder of images that is apart from it")
        paths = tuple(_image_files(folder, runs))
    except OSError as error:
        raise GrocoError(
            f"{folder}: cannot be read ({error.strerror or error})", "give a folder that you may read"
        ) from error
    if runs and rank() == 0:
        more = f" and {len(runs) - 1:,} more" * (len(runs) > 1)
        console.note(f"{folder}: left out {runs[0].relative_to(folder)}{more}, written by groco pretrain")
    if not paths:
        raise GrocoError(
            f"{folder}: no image in it", f"it should hold files ending in {', '.join(sorted(IMAGE_ENDINGS))}"
        )
    source = FileSource(paths, None, ())
    check_decodable(source, folder)
    if any(path.parent == folder for path in paths):
        return source
    names = np.array([path.relative_to(folder).parts[0] for path in paths])
    numbers = np.full(len(paths), NO_NUMBER)
    return FileSource(paths, *number_classes(numbers, names, data=folder, name_of=source.name_of))


def _image_files(folder: Path, runs: list[Path], above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """All image files below a folder in sorted order, through links too, but never in a circle; adds to the `runs`."""
    real = folder.resolve()
    if real in above:
        return
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        if entry.name.startswith("."):
            continue
        if entry.is_dir() and is_run(Path(entry.path)):
            runs.append(Path(entry.path))
        elif entry.is_dir():
            yield from _image_files(Path(entry.path), runs, above | {real})
        elif Path(entry.name).suffix.lower() in IMAGE_ENDINGS:
            yield Path(entry.path)
