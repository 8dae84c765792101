"""Whether images are the same, by hashes of what is in them or of their names alone; and whether they are gone."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from groco_cli.data.decoding import BadImageError
from groco_cli.errors import GrocoError

_LOOKED_FOR = 16  # files, evenly spread: a mount that is gone may leave its folder, empty


def fingerprint_of(parts: Iterable[bytes | memoryview]) -> str:
    """A hash of bytes, of where each part ends too.

    Raises:
        GrocoError: If a picture among them cannot be read.
    """
    digest = hashlib.sha256()
    try:
        for part in parts:
            digest.update(memoryview(part).nbytes.to_bytes(8, "little"))
            digest.update(part)
    except BadImageError as error:
        raise GrocoError(str(error), "replace the file or move it away") from error
    return digest.hexdigest()


def file_stamp(path: Path) -> bytes:
    """What changes when a file does: its path, size and time.

    Raises:
        GrocoError: If it is not there.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise GrocoError(f"{path}: cannot be read ({error.strerror or error})", "check that it is there") from error
    return f"{path.absolute()}\n{status.st_size}\n{status.st_mtime_ns}".encode("utf-8", "surrogatepass")


def common_folder(paths: Sequence[Path]) -> str:
    """The folder that holds all of some files, with a separator at its end; "" where they have none in common."""
    # Of strings, then cut back to a whole name: of a million paths in a tenth of a second, `commonpath` takes four.
    common = os.path.commonprefix([str(path) for path in paths])  # noqa: RUF071
    return common[: common.rfind(os.sep) + 1]


def lost_folder(paths: Sequence[Path]) -> str:
    """The folder that held all of some files, where those that are looked for are all gone; else ""."""
    some = paths[:: max(1, len(paths) // _LOOKED_FOR)]
    return "" if any(os.access(path, os.F_OK) for path in some) else common_folder(paths) or os.curdir


def names_below(folder: str, paths: Sequence[Path]) -> bytes:
    """The files' paths below a folder that holds them all."""
    return "\n".join(str(path)[len(folder) :] for path in paths).encode("utf-8", "surrogatepass")
