"""Pascal VOC2007 as a set of pictures that show several classes: trainval and test, from the objects' annotations.

A class stands to a picture as in the ground truth of VOC2007's classification task: shown, where at least one object of
it is not marked difficult; difficult, where all are; else absent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from xml.etree import ElementTree

import torch
from torch import Tensor

from groco_cli.data.sources.base import Dataset, FileSource, labels_of
from groco_cli.errors import GrocoError

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


@dataclass(frozen=True)
class ObjectSource(FileSource):
    """Pictures in files, each with any number of classes.

    Args:
        shown: Which classes each plainly shows, bool [n, classes].
        difficult: Which it shows in difficult objects alone, bool [n, classes].
    """

    shown: Tensor
    difficult: Tensor

    def subset(self, numbers: Tensor) -> Self:
        """Some of the pictures, in the order asked for."""
        paths = tuple(self.paths[i] for i in numbers.tolist())
        return type(self)(paths, labels_of(self, numbers), self.classes, self.shown[numbers], self.difficult[numbers])


def voc2007(root: Path) -> Dataset:
    """Open VOCdevkit/VOC2007.

    Raises:
        GrocoError: If a list or an annotation cannot be read, or is not as it should be.
    """
    folder = root / "VOCdevkit/VOC2007"
    return Dataset("voc2007", _source(folder, "trainval"), _source(folder, "test"))


def _source(folder: Path, part: str) -> ObjectSource:
    names = _listed(folder / f"ImageSets/Main/{part}.txt")
    shown = torch.zeros(len(names), len(CLASSES), dtype=torch.bool)
    difficult = torch.zeros_like(shown)
    for row, name in enumerate(names):
        for label, is_difficult in _objects(folder / f"Annotations/{name}.xml"):
            (difficult if is_difficult else shown)[row, label] = True
    paths = tuple(folder / f"JPEGImages/{name}.jpg" for name in names)
    return ObjectSource(paths, None, CLASSES, shown, difficult & ~shown)


def _listed(path: Path) -> Sequence[str]:
    try:
        names = [line.split()[0] for line in path.read_text(encoding="ascii").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise GrocoError(f"{path}: cannot be read ({error})", "fetch it again") from error
    if not names:
        raise GrocoError(f"{path}: no picture in it", "fetch it again")
    return names


def _objects(path: Path) -> list[tuple[int, bool]]:
    """The class of each object in a picture, and whether it is marked difficult."""
    try:
        annotation = ElementTree.parse(path).getroot()
        return [
            (CLASSES.index((thing.findtext("name") or "").strip()), int(thing.findtext("difficult") or 0) == 1)
            for thing in annotation.findall("object")  # its direct children: parts of an object have names too
        ]
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise GrocoError(f"{path}: cannot be read ({error})", "fetch it again") from error
