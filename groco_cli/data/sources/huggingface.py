"""A Hugging Face data set on disk: a folder written by `datasets`' `save_to_disk`.

The pictures' bytes are taken as they were stored and decoded by `groco_cli.data.decoding`. Nothing of a folder is run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from torch import Tensor

from groco_cli.data.decoding import BadImageError, Encoded, read
from groco_cli.data.sources.base import (
    HELD_OUT,
    TRAIN,
    Dataset,
    Picture,
    Source,
    check_decodable,
    held_out_part,
    labels_of,
)
from groco_cli.data.sources.fingerprints import file_stamp, fingerprint_of
from groco_cli.data.sources.labels import NO_NAME, NO_NUMBER, Labels, aligned, number_classes
from groco_cli.errors import GrocoError, first_line

_MARKS = ("dataset_dict.json", "dataset_info.json")


@dataclass(frozen=True)
class HuggingFaceSource(Source):
    """Pictures in a data set of the `datasets` package.

    Args:
        rows: A `datasets.Dataset` whose pictures are not decoded.
        column: The one that holds them.
        labels: int64 [n], or None.
        classes: The classes' names, in the order of the labels.
        name: What the pictures are called, by their number behind it.
        numbers: Those numbers, int64 [n]; None to count from 0.
    """

    rows: Any
    column: str
    labels: Tensor | None
    classes: tuple[str, ...]
    name: str
    numbers: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def open(self, index: int) -> Picture:
        """A picture; raises `BadImageError` where none is stored, or its file cannot be read."""
        stored = self.rows[index][self.column]
        if stored is None or (stored["bytes"] is None and stored["path"] is None):
            raise BadImageError(self.name_of(index), "no picture is stored")
        if stored["bytes"] is None:
            return read(Path(stored["path"]))
        return Encoded(stored["bytes"], self.name_of(index))

    def name_of(self, index: int) -> str:
        """The set's name and the row's number in it."""
        return f"{self.name} {index if self.numbers is None else int(self.numbers[index])}"

    def subset(self, numbers: Tensor) -> Self:
        """Some of the pictures, in the order asked for; they keep their names."""
        return type(self)(
            self.rows.select(numbers.tolist()),
            self.column,
            labels_of(self, numbers),
            self.classes,
            self.name,
            numbers if self.numbers is None else self.numbers[numbers],
        )

    def fingerprint(self) -> str:
        """A hash of `datasets`' own fingerprint of the rows, the column, and the files' paths, sizes and times.

        Where pictures lie outside the data set's files, each is read.
        """
        stored = self.rows.data.column(self.column).chunks
        if any(chunk.field("bytes").null_count for chunk in stored):
            return super().fingerprint()
        files = (Path(file["filename"]) for file in self.rows.cache_files)
        return fingerprint_of([self.rows._fingerprint.encode(), self.column.encode(), *map(file_stamp, files)])


def is_huggingface(folder: Path) -> bool:
    """Whether `datasets` wrote this folder."""
    return any((folder / mark).is_file() for mark in _MARKS)


def huggingface_dataset(folder: Path) -> Dataset:
    """Open a folder that `datasets` wrote: its split train, and validation, val or test where it has one.

    Raises:
        GrocoError: If the package is not installed, the folder is damaged, or it is not plain which column to take.
    """
    parts = _load(folder)
    if TRAIN not in parts:
        raise GrocoError(f"{folder}: no split train, only {', '.join(parts)}", "save it with a split train")
    bank = _source(parts[TRAIN], folder, TRAIN)
    check_decodable(bank, folder)
    held_out = held_out_part([name for name in HELD_OUT if name in parts])
    test = aligned(_source(parts[held_out], folder, held_out), bank, folder) if held_out else None
    return Dataset(str(folder), bank, test)


def _load(folder: Path) -> Mapping[str, Any]:
    """The splits by name; a set without splits is all for training."""
    try:
        import datasets
    except ImportError as error:
        raise GrocoError(
            f"{folder} is a Hugging Face data set, and the package datasets is not installed",
            "pip install 'groco[hf]'",
        ) from error
    try:
        loaded = datasets.load_from_disk(str(folder))
    except Exception as error:  # of a damaged folder it raises whatever it trips over
        raise GrocoError(
            f"{folder}: cannot be read ({first_line(error)})", "save it again with save_to_disk"
        ) from error
    return loaded if isinstance(loaded, datasets.DatasetDict) else {TRAIN: loaded}


def _source(rows: Any, folder: Path, split: str) -> HuggingFaceSource:
    import datasets

    pictures = _columns(rows, datasets.Image)
    if not len(rows) or not pictures:
        raise GrocoError(f"{folder}: no picture in {split}", "it should have a column of kind Image")
    column = _only(pictures, "image", folder)
    undecoded = rows.with_format(None).cast_column(column, datasets.Image(decode=False))
    name = f"{folder} {split}"
    return HuggingFaceSource(undecoded, column, *_labels(rows, folder, name), name)


def _labels(rows: Any, folder: Path, name: str) -> Labels:
    import datasets

    columns = _columns(rows, datasets.ClassLabel)
    if not columns:
        return None, ()
    column = _only(columns, "label", folder)
    numbers = np.array([NO_NUMBER if label is None else label for label in rows.with_format(None)[column]], np.int64)
    classes = tuple(rows.features[column].names)
    labels, _ = number_classes(
        numbers, np.full(len(numbers), NO_NAME), data=folder, name_of=lambda index: f"{name} {index}"
    )
    return labels, () if labels is None else classes


def _columns(rows: Any, kind: type) -> list[str]:
    return [name for name, feature in rows.features.items() if isinstance(feature, kind)]


def _only(columns: Sequence[str], usual: str, folder: Path) -> str:
    """The one column of its kind, or the one with the usual name."""
    if len(columns) > 1 and usual not in columns:
        raise GrocoError(
            f"{folder}: columns {', '.join(columns)} could each be the {usual}",
            f"rename one to {usual} and save it again",
        )
    return usual if usual in columns else columns[0]
