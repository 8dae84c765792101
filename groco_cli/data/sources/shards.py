"""WebDataset shards: tar files of pictures, by pattern or by folder, read in any order.

Patterns are webdataset's: braces (`path-{000000..000639}.tar`), several joined by `::`; globs too. A pattern behind
`val=` (or `test=`) gives the held-out part. Every sample has its number, so shards are split over workers, processes
and epochs exactly as files are; a picture is read by its place in its shard, which an index tells.
"""

import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from groco_cli import console
from groco_cli.data.decoding import BadImageError, Encoded
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
from groco_cli.data.sources.fingerprints import file_stamp, fingerprint_of, lost_folder
from groco_cli.data.sources.folders import parts_of
from groco_cli.data.sources.index_cache import cached_index
from groco_cli.data.sources.labels import aligned, number_classes
from groco_cli.data.sources.remote import is_url, local_shards
from groco_cli.data.sources.tar_index import ShardIndex
from groco_cli.errors import GrocoError, UsageError

_PART = re.compile(rf"({'|'.join((TRAIN, *HELD_OUT))})=")
CLASSES = "classes.txt"
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


@dataclass(frozen=True)
class ShardSource(Source):
    """Pictures in tar files.

    Args:
        paths: The shards.
        indexes: The samples of each.
        places: Which shard, and which sample of it, int64 [n, 2].
        labels: int64 [n], or None.
        classes: The classes' names, in the order of the labels.
    """

    paths: tuple[Path, ...]
    indexes: tuple[ShardIndex, ...]
    places: NDArray[np.int64]
    labels: Tensor | None
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.places)

    def open(self, index: int) -> Picture:
        """A picture; raises `BadImageError` where the shard cannot be read."""
        shard, sample = self.places[index]
        offset, size = int(self.indexes[shard].offsets[sample]), int(self.indexes[shard].sizes[sample])
        try:
            # Opened anew each time: that takes microseconds, and no handle has to survive a fork or a pickle.
            with self.paths[shard].open("rb", buffering=0) as file:
                file.seek(offset)
                content: bytes = file.read(size)
        except OSError as error:
            raise BadImageError(self.name_of(index), error.strerror or str(error)) from error
        if len(content) < size:
            raise BadImageError(self.name_of(index), "the shard ends before it")
        return Encoded(content, self.name_of(index))

    def name_of(self, index: int) -> str:
        """The shard's path and the sample's key."""
        shard, sample = self.places[index]
        return f"{self.paths[shard]}:{self.indexes[shard].keys[sample].decode(errors='replace')}"

    def subset(self, numbers: Tensor) -> Self:
        """Some of the pictures, in the order asked for."""
        return type(self)(
            self.paths, self.indexes, self.places[numbers.numpy()], labels_of(self, numbers), self.classes
        )

    def fingerprint(self) -> str:
        """A hash of the shards' paths, sizes and times, and of which samples are taken."""
        return fingerprint_of([*map(file_stamp, self.paths), np.ascontiguousarray(self.places).data])

    def inventory(self) -> str:
        """A hash of the samples' keys in each shard, and of which are taken."""
        keys = (np.ascontiguousarray(index.keys).view(np.uint8).data for index in self.indexes)
        return fingerprint_of([*keys, np.ascontiguousarray(self.places).data])

    def lost(self) -> str:
        """The folder that held the shards, where all are gone; else ""."""
        return lost_folder(self.paths)


def is_pattern(data: str) -> bool:
    """Whether `--data` can only mean shards: several patterns, a part, a URL or a command."""
    return "::" in data or _PART.match(data) is not None or is_url(data)


def located_patterns(data: str) -> str:
    """Patterns of shards, the paths among them absolute."""
    marks = [match[0] if (match := _PART.match(pattern)) else "" for pattern in data.split("::")]
    return "::".join(m + absolute(p.removeprefix(m)) for m, p in zip(marks, data.split("::"), strict=True))


def absolute(place: str) -> str:
    """A path or pattern from the root on; a URL, or what begins with a brace or a variable, as it is."""
    return place if is_url(place) or place.startswith(("{", "$")) else str(Path(place).expanduser().absolute())


def shard_dataset(data: str, root: Path) -> Dataset:
    """Open the shards that patterns name.

    Args:
        data: Patterns joined by `::`, each a path or URL with braces or globs, `train=` or `val=` in front or not.
        root: Where indexes and fetched shards are kept.

    Raises:
        UsageError: If a pattern is none, or there is no such shard.
        GrocoError: If a shard cannot be fetched or read, or is not as it should be.
    """
    parts: dict[str, list[str]] = {}
    for pattern in data.split("::"):
        match = _PART.match(pattern)
        part, pattern = (match[1], pattern[match.end() :]) if match else (TRAIN, pattern)
        parts.setdefault(part, []).extend(_expanded(pattern, data))
    if TRAIN not in parts:
        raise UsageError(f"{data}: no shard to train on", "give a pattern without val= or test= too")
    if len(parts) > 2:
        raise UsageError(f"{data}: {', '.join(parts)} are too many parts", "give train and one held-out part")
    _check_once([place for places in parts.values() for place in places], data)
    return _dataset(data, parts, root)


def is_shard_folder(folder: Path) -> bool:
    """Whether a folder, or the `train` folder in it, holds tar files and no other but texts beside them."""
    endings = {path.suffix.lower() for path in _visible(parts_of(folder)[0])}
    return bool(endings & {".tar", ".gz", ".tgz"}) and endings <= {".tar", ".gz", ".tgz", ".txt", ".json", ".md"}


def folder_of_shards(folder: Path, root: Path) -> Dataset:
    """Open all shards of a folder, or those of its `train` and `val` folders.

    Where both lie in one folder, a shard is held out if its name has the word val, test or validation in it.

    Raises:
        GrocoError: As `shard_dataset`.
    """
    train, test = parts_of(folder)
    shards = _shards_in(train)
    if test:
        return _dataset(str(folder), {TRAIN: shards, test.name: _shards_in(test)}, root)
    parts: dict[str, list[str]] = {}
    for shard in shards:
        words = re.split(r"[^a-z]+", Path(shard).stem.lower())
        parts.setdefault(held_out_part(words) or TRAIN, []).append(shard)
    return _dataset(str(folder), parts if TRAIN in parts else {TRAIN: shards}, root)


def _dataset(data: str, parts: dict[str, list[str]], root: Path) -> Dataset:
    bank = _source(parts[TRAIN], data, root)
    held_out = held_out_part(list(parts))
    for part in parts.keys() - {TRAIN, held_out}:
        console.note(f"{data}: {held_out} is held out; the shards of {part} are not used")
    return Dataset(data, bank, aligned(_source(parts[held_out], data, root), bank, data) if held_out else None)


def _source(places: Sequence[str], data: str, root: Path) -> ShardSource:
    paths = local_shards(places, data, root)
    _check_there(paths, data)
    indexes = []
    with console.Bar("indexing shards", len(paths)) as bar:
        for path in paths:
            indexes.append(cached_index(path, root / "index"))
            bar.advance()
    counts = [len(index) for index in indexes]
    shard = np.repeat(np.arange(len(paths)), counts)
    sample = np.concatenate([np.arange(count) for count in counts])
    source = ShardSource(tuple(paths), tuple(indexes), np.stack([shard, sample], axis=1), None, ())
    check_decodable(source, data)
    labels, classes = number_classes(
        np.concatenate([index.numbers for index in indexes]),
        np.concatenate([np.char.decode(index.names, "utf-8", "replace") for index in indexes]),
        data=data,
        name_of=source.name_of,
    )
    return ShardSource(source.paths, source.indexes, source.places, labels, _class_names(paths, classes))


def _class_names(paths: Sequence[Path], classes: tuple[str, ...]) -> tuple[str, ...]:
    """The names in `classes.txt` beside the shards, a line each, for classes that have only numbers."""
    listed = paths[0].parent / CLASSES
    if not listed.is_file() or classes != tuple(str(number) for number in range(len(classes))):
        return classes
    try:
        names = tuple(listed.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise GrocoError(f"{listed}: cannot be read ({error})", "write a name a line, as UTF-8") from error
    if len(names) < len(classes) or len(set(names)) < len(names):
        raise GrocoError(
            f"{listed}: {len(set(names)):,} names, but labels up to {len(classes) - 1}",
            "give every class a name of its own, a line each, or remove the file",
        )
    return names


def _expanded(pattern: str, data: str) -> list[str]:
    """The shards that a pattern names, in its order; those of a glob sorted."""
    from webdataset.shardlists import expand_urls

    try:
        expanded = expand_urls(pattern)
    except (ValueError, AssertionError) as error:  # an open {, an unset ${VARIABLE}
        raise UsageError(f"{data}: {pattern} cannot be expanded ({error})", "quote it, close every {") from error
    places: list[str] = []
    for place in expanded:
        path = str(Path(place).expanduser())
        if is_url(place):
            found = [place]
        elif glob.has_magic(path) and not Path(path).exists():
            found = sorted(glob.glob(path))  # noqa: PTH207 (Path.glob wants a relative one)
        else:
            found = [path]
        if not found:
            raise UsageError(f"{data}: no file fits {place}", "check the pattern; quote it against the shell")
        places += found
    return places


def _check_once(places: Sequence[str], data: str) -> None:
    twice = [place for place, after in pairwise(sorted(places)) if place == after]
    if twice:
        raise UsageError(f"{data}: shard {twice[0]} is named twice", "name every shard once")


def _check_there(paths: Sequence[Path], data: str) -> None:
    missing = [path for path in paths if not path.is_file()]
    if missing:
        shown = ", ".join(map(str, missing[:3]))
        raise UsageError(
            f"{data}: {len(missing):,} of {len(paths):,} shards are missing: {shown}{', …' * (len(missing) > 3)}",
            "check the pattern; quote it against the shell",
        )


def _shards_in(folder: Path) -> list[str]:
    files = sorted(_visible(folder))
    compressed = [path for path in files if path.name.lower().endswith(_COMPRESSED)]
    if compressed:
        raise GrocoError(f"{compressed[0]}: compressed shards cannot be read", "decompress them to plain .tar files")
    shards = [str(path) for path in files if path.suffix.lower() == ".tar"]
    if not shards:
        raise GrocoError(f"{folder}: no shard in it", "it should hold files ending in .tar")
    return shards


def _visible(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise GrocoError(
            f"{folder}: cannot be read ({error.strerror or error})", "give a folder that you may read"
        ) from error
