"""A list of image files: `.txt` with one path a line, `.csv` or `.tsv` with the columns path[,label[,split]].

Paths are relative to the manifest. Quotes are as in any CSV file (RFC 4180). The first line is a header if one of its
cells says "path"; the columns may then come in any order, and others are passed over.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from groco_cli import console
from groco_cli.data.sources.base import HELD_OUT, TRAIN, Dataset, FileSource, check_decodable, held_out_part
from groco_cli.data.sources.labels import MOST_CLASSES, NO_NAME, NO_NUMBER, aligned, number_classes
from groco_cli.errors import GrocoError, UsageError
from groco_cli.wording import counted

MANIFEST_ENDINGS = (".txt", ".csv", ".tsv")
_COLUMNS = ("path", "label", "split")


@dataclass(frozen=True)
class _Row:
    line: int
    path: Path
    label: str
    split: str


def manifest_dataset(manifest: Path) -> Dataset:
    """Open the images that a manifest lists.

    Args:
        manifest: A file that ends in .txt, .csv or .tsv.

    Raises:
        UsageError: If it is no such list.
        GrocoError: If it cannot be read, an image is missing, a label or split is missing on some lines only, or no
            image can be decoded.
    """
    rows = _rows(manifest)
    _check_files(rows, manifest)
    numeric = _labels_are_numbers(rows, manifest)
    bank, *held_out = (_source(part, manifest, numeric=numeric) for part in _parts(rows, manifest))
    check_decodable(bank, manifest)
    return Dataset(str(manifest), bank, aligned(held_out[0], bank, manifest) if held_out else None)


def _rows(manifest: Path) -> list[_Row]:
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as file:
            if manifest.suffix.lower() == ".txt":
                cells = [(number, [line.strip()]) for number, line in enumerate(file, 1)]
            else:
                delimiter = "\t" if manifest.suffix.lower() == ".tsv" else ","
                reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True, strict=True)
                cells = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except OSError as error:
        raise GrocoError(
            f"{manifest}: cannot be read ({error.strerror or error})", "give a list that you may read"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{manifest} is no list of images: {error}", "write it as UTF-8 text") from error
    cells = [(line, row) for line, row in cells if any(row)]
    columns: Sequence[str] = _COLUMNS
    if manifest.suffix.lower() != ".txt" and cells and "path" in map(str.lower, cells[0][1]):
        columns = [name.lower() for name in cells.pop(0)[1]]
    if not cells:
        raise UsageError(f"{manifest}: no image in it", "write one path a line")
    _refuse([line for line, row in cells if len(row) > len(columns)], "more columns than path, label, split", manifest)
    named = [(line, dict(zip(columns, row, strict=False))) for line, row in cells]
    _refuse([line for line, row in named if not row.get("path")], "no path", manifest)
    return [
        _Row(line, manifest.parent / row["path"], row.get("label", ""), row.get("split", "").lower())
        for line, row in named
    ]


def _check_files(rows: Sequence[_Row], manifest: Path) -> None:
    missing = [row for row in rows if not row.path.is_file()]
    if missing:
        shown = ", ".join(f"{row.path} (line {row.line})" for row in missing[:3])
        raise GrocoError(
            f"{manifest}: {len(missing):,} of {len(rows):,} images are missing: {shown}{', …' * (len(missing) > 3)}",
            "paths are relative to the manifest",
        )


def _parts(rows: Sequence[_Row], manifest: Path) -> list[list[_Row]]:
    """The rows of train and, where a column says so, of what is held out."""
    if not any(row.split for row in rows):
        return [list(rows)]
    splits: dict[str, list[_Row]] = {}
    for row in rows:
        splits.setdefault(row.split, []).append(row)
    _refuse([row.line for row in splits.get("", [])], "no split, others have one", manifest)
    strange = [row.line for row in rows if row.split not in (TRAIN, *HELD_OUT)]
    _refuse(strange, f"a split that is none of {', '.join((TRAIN, *HELD_OUT))}", manifest)
    if TRAIN not in splits:
        raise UsageError(f"{manifest}: no line has the split {TRAIN}", "leave the column out to train on all")
    test = held_out_part(list(splits))
    for name in splits.keys() - {TRAIN, test}:
        console.note(f"{manifest}: {test} is held out; {name} ({counted(len(splits[name]), 'image')}) is not used")
    return [splits[name] for name in (TRAIN, test) if name]


def _source(rows: Sequence[_Row], manifest: Path, *, numeric: bool) -> FileSource:
    source = FileSource(tuple(row.path for row in rows), None, ())
    labels = number_classes(
        np.array([int(row.label) if numeric and row.label else NO_NUMBER for row in rows]),
        np.array([NO_NAME if numeric else row.label for row in rows]),
        data=manifest,
        name_of=source.name_of,
    )
    return FileSource(source.paths, *labels)


def _labels_are_numbers(rows: Sequence[_Row], manifest: Path) -> bool:
    """Whether all labels are whole numbers, which then are the classes' numbers; otherwise they are names."""
    if any(row.label for row in rows):
        _refuse([row.line for row in rows if not row.label], "no label, others have one", manifest)
    if not all(row.label.isascii() and row.label.isdigit() for row in rows):
        return False
    _refuse([row.line for row in rows if int(row.label[:20]) >= MOST_CLASSES], "a label beyond reason", manifest)
    return True


def _refuse(lines: Sequence[int], what: str, manifest: Path) -> None:
    """Name the lines that something is wrong with, if any."""
    if lines:
        shown = ", ".join(str(line) for line in lines[:5])
        raise UsageError(
            f"{manifest}: {what} (line{'s' * (len(lines) > 1)} {shown}{', …' * (len(lines) > 5)}; "
            f"{len(lines):,} in all)",
            "a line is path, or path,label, or path,label,split",
        )
