"""A run's folder belongs to one run at a time: a second one there would take the first one's files from under it."""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from filelock import FileLock, Timeout

from groco_cli import console
from groco_cli.engine.run_folder import RunFolder
from groco_cli.errors import GrocoError
from groco_cli.files import cannot_write

_PATIENCE = 10.0  # seconds; processes that decode outlive a killed run by up to five, and may hold its lock as long
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}


@contextmanager
def held(folder: RunFolder) -> Iterator[None]:
    """Hold the folder; the operating system lets go of it when this process ends, however that comes about.

    Args:
        folder: There already.

    Raises:
        GrocoError: If another process holds it, or it cannot be written to.
    """
    lock = FileLock(str(folder.lock), timeout=_PATIENCE)
    try:
        lock.acquire()
    except Timeout as error:
        raise GrocoError(
            f"{folder.path} is in use by {_holder(folder)}",
            f"wait until that run has ended or stop it; where there is none any more, delete {folder.lock}",
        ) from error
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise cannot_write(folder.lock, error) from error
        console.warn(f"{folder.path} lies where nothing can be locked: see that no second run is begun there")
        yield
        return
    try:
        _name_this_process(folder)
        yield
    finally:
        with suppress(OSError):  # it says nothing without the lock
            folder.lock_holder.unlink(missing_ok=True)
        lock.release()


def _name_this_process(folder: RunFolder) -> None:
    try:
        folder.lock_holder.write_text(f"{os.getpid()}@{socket.gethostname()}", encoding="utf-8")
    except OSError as error:
        raise cannot_write(folder.lock_holder, error) from error


def _holder(folder: RunFolder) -> str:
    try:
        return f"process {folder.lock_holder.read_text(encoding='utf-8')}"
    except OSError:  # it has just begun or ended
        return "another process"
