"""Where the pictures of a WebDataset shard lie: one pass over the headers of a tar file, for random access afterwards.

A member belongs to the sample named by its path up to the first dot of its last part (webdataset's rule); what follows
the dot says what it is. Hidden files, `__meta__` ones and names without a dot are passed over, as webdataset does.
Nothing is ever extracted; all the same a member that climbs out of the shard, or a link, is refused: no writer of
shards makes them.
"""

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
from numpy.typing import NDArray

from groco_cli.data.sources.shard_labels import LABEL_READERS, UNLABELLED, Label
from groco_cli.errors import GrocoError

_KINDS = ("jpg", "jpeg", "png", "webp")
IMAGE_SUFFIXES = frozenset([*_KINDS, *(f"image.{kind}" for kind in _KINDS)])
_KEY = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)", re.DOTALL)
_LARGEST_LABEL = 1 << 20  # bytes
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


@dataclass(frozen=True, kw_only=True)
class ShardIndex:
    """The samples of a shard, in the order in which their first members lie.

    Args:
        keys: Their names, UTF-8 [n].
        offsets: Where their pictures begin, bytes, int64 [n].
        sizes: The pictures' lengths, bytes, int64 [n].
        numbers: Labels, int64 [n]; NO_NUMBER where none is given.
        names: The classes' names, UTF-8 [n]; empty where none is given.
    """

    keys: NDArray[np.bytes_]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    numbers: NDArray[np.int64]
    names: NDArray[np.bytes_]

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class _Member:
    """Where a file lies in the tar, and what is in it if that is a label."""

    offset: int
    size: int
    content: bytes = b""


def index_shard(path: Path) -> ShardIndex:
    """Read a shard's headers and labels.

    Raises:
        GrocoError: If it is compressed, empty, damaged or cut off; if a member climbs out of it or is a link; if a
            sample has no picture, two, two of a name, or a label that cannot be read.
    """
    try:
        with path.open("rb") as file:
            _check_kind(file, path)
            samples = _samples(file, path)
    except OSError as error:
        raise GrocoError(f"{path}: cannot be read ({error.strerror or error})", "check that you may read it") from error
    except GrocoError:
        raise
    except Exception as error:  # of a damaged tar Python's reader raises whatever it trips over
        raise _damaged(path, str(error) or type(error).__name__) from error
    if not samples:
        raise GrocoError(f"{path}: no sample in it", "a sample is KEY.jpg with KEY.cls or KEY.json")
    pictures = [_picture(key, members, path) for key, members in samples.items()]
    labels = [_label(key, members, path) for key, members in samples.items()]
    return ShardIndex(
        keys=np.array([key.encode("utf-8", "surrogatepass") for key in samples]),
        offsets=np.array([picture.offset for picture in pictures], np.int64),
        sizes=np.array([picture.size for picture in pictures], np.int64),
        numbers=np.array([number for number, _ in labels], np.int64),
        names=np.array([name.encode("utf-8", "surrogatepass") for _, name in labels]),
    )


def _check_kind(file: IO[bytes], path: Path) -> None:
    start = file.read(8)
    file.seek(0)
    if not start:
        raise GrocoError(f"{path}: the shard is empty", "fetch or write it again")
    kind = next((kind for magic, kind in _COMPRESSED.items() if start.startswith(magic)), None)
    if kind:
        raise GrocoError(
            f"{path}: compressed with {kind}, so no picture can be found without reading all before it",
            "decompress it to a plain .tar; pictures are compressed already",
        )


def _samples(file: IO[bytes], path: Path) -> dict[str, dict[str, _Member]]:
    """The members of each key, by what follows the dot."""
    samples: dict[str, dict[str, _Member]] = {}
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for member in _members(tar, path):
            match = _KEY.fullmatch(member.name)
            if match is None or re.match(r"__[^/]*__($|/)", member.name):
                continue
            key, suffix = match[1], match[2].lower()
            of_key = samples.setdefault(key, {})
            if suffix in of_key:
                raise GrocoError(f"{path}: {member.name} is in it twice", "give every sample a key of its own")
            of_key[suffix] = _Member(member.offset_data, member.size, _content(tar, member, path, suffix))
        _check_end(file, tar.offset, path)
    return samples


def _members(tar: tarfile.TarFile, path: Path) -> Iterator[tarfile.TarInfo]:
    """The regular files in a tar, each checked."""
    while (member := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]  # or it would remember them all
        if member.size < 0:  # then the next header would be an earlier one, for ever
            raise _damaged(path, f"{member.name} has a negative size")
        place = PurePosixPath(member.name)
        if place.is_absolute() or ".." in place.parts:
            raise GrocoError(f"{path}: member {member.name!r} climbs out of the shard", "write the shard anew")
        if member.isdir():
            continue
        if not member.isreg() or member.issparse():
            raise GrocoError(f"{path}: member {member.name!r} is no plain file (a link, say)", "write the shard anew")
        yield member


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path, suffix: str) -> bytes:
    if suffix not in LABEL_READERS:
        return b""
    file = tar.extractfile(member)
    if member.size > _LARGEST_LABEL or file is None:
        raise GrocoError(f"{path}: label {member.name} has {member.size:,} bytes", "a label is a few bytes long")
    return file.read()


def _check_end(file: IO[bytes], end: int, path: Path) -> None:
    """A tar ends with zeros. Python's reader takes any other block for the end too, and would lose what follows."""
    file.seek(end)
    block = file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise _damaged(path, "it is cut off")
    while block:
        if block.strip(b"\0"):
            raise _damaged(path, f"what follows byte {end:,} is no member")
        block = file.read(1 << 20)


def _damaged(path: Path, reason: str) -> GrocoError:
    return GrocoError(f"{path}: damaged, or no tar file ({reason})", "fetch or write it again")


def _picture(key: str, members: dict[str, _Member], path: Path) -> _Member:
    suffixes = sorted(IMAGE_SUFFIXES & members.keys())
    if not suffixes:
        raise GrocoError(
            f"{path}: sample {key} has no picture (only {', '.join(sorted(members))})",
            f"what follows the first dot of a picture's name is one of {', '.join(sorted(IMAGE_SUFFIXES))}",
        )
    if len(suffixes) > 1:
        raise GrocoError(f"{path}: sample {key} has {len(suffixes)} pictures ({', '.join(suffixes)})", "leave it one")
    return members[suffixes[0]]


def _label(key: str, members: dict[str, _Member], path: Path) -> Label:
    for suffix, read in LABEL_READERS.items():
        if suffix not in members:
            continue
        try:
            label = read(members[suffix].content)
        except ValueError as error:
            raise GrocoError(
                f"{path}: label {key}.{suffix} cannot be read ({error})", "write the shard anew"
            ) from error
        if label != UNLABELLED:
            return label
    return UNLABELLED
