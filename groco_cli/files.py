"""Files that are either whole or not there: written beside their place, flushed to disk, then renamed."""

import errno
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from groco_cli.early_interrupt import work_begins
from groco_cli.errors import GrocoError, UsageError

PICTURES = (".png", ".svg", ".pdf")
RUN_SETTINGS, RUN_METRICS = "settings.toml", "metrics.jsonl"
"""Of a run's folder, which is known by these two: they are there before any picture is."""

_TEMPORARY = re.compile(r"\..+-[a-z0-9_]{8}\.\w+")  # what mkstemp makes of the prefix and suffix below


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; it takes the final name only if the block ends without an error.

    Args:
        path: The final place; its folder is made where absent.

    Yields:
        The temporary path, in the same folder and with the same ending.

    Raises:
        GrocoError: If the folder cannot be written to, or the disk is full.
    """
    work_begins()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
        os.close(handle)
    except OSError as error:
        raise cannot_write(path, error) from error
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes private files
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):  # the error that is already on its way says more; `remove_leftovers` finds what is left
            temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path, *, like: str = ".*", older: float = 0.0) -> None:
    """Delete what an `atomic_write` into this folder left behind when its process was killed.

    Args:
        folder: The folder; need not be there.
        like: A glob of their names, to let other writers' be.
        older: Only what nothing was written to for so long, seconds.

    Raises:
        GrocoError: If it cannot be deleted.
    """
    for path in folder.glob(like):
        try:
            if _TEMPORARY.fullmatch(path.name) and time.time() - path.stat().st_mtime >= older:
                path.unlink(missing_ok=True)
        except FileNotFoundError:  # its writer has just given it its name, or another deleted it
            pass
        except OSError as error:
            raise cannot_write(path, error) from error


def check_writable(path: Path) -> None:
    """Find out before long work whether its result can be written, leaving no trace; absent folders come with it.

    Raises:
        GrocoError: If it cannot.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        nearest = next(folder for folder in path.absolute().parents if folder.exists())
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise cannot_write(path, error) from error


def check_picture(path: Path, option: str) -> None:
    """Check that a figure's file has an ending that says its format.

    Args:
        path: The file.
        option: What named it: "--output".

    Raises:
        UsageError: If it has none of `PICTURES`.
    """
    if path.suffix.lower() not in PICTURES:
        raise UsageError(f"{option} {path} has no known ending", f"it may be {', '.join(PICTURES)}")


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run of `groco pretrain`, whose pictures are no images to learn from."""
    return all((folder / name).is_file() for name in (RUN_SETTINGS, RUN_METRICS))


def cannot_write(path: Path, error: OSError) -> GrocoError:
    """The error for a place that cannot be written to."""
    return GrocoError(f"cannot write {path}: {error.strerror or error}", "choose another place or make room there")


def cannot_read(path: Path, error: OSError) -> GrocoError:
    """The error for a file or folder that is not damaged, but cannot be read now."""
    return GrocoError(f"cannot read {path}: {error.strerror or error}", "see that it can be, then type the same again")


def _flush_folder(path: Path) -> None:
    if os.name != "posix":  # a folder cannot be opened there
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
