"""Ctrl-C and SIGTERM: finish the step, save, and stop; a second one stops at once.

A process that groco started is told by a file that its launcher writes. A signal to it without that file is the
launcher's, and means to end at once: another process has failed.
"""

import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from groco_cli.distributed.launch import STOP_FILE
from groco_cli.errors import GrocoError

_PATIENCE = 2.0  # seconds until the launcher has written its file, where a signal reached both


class Interrupted(GrocoError):  # noqa: N818 - nothing went wrong
    """A run was asked to stop, and has.

    Args:
        message: Where it stopped.
        hint: How to go on.
        number: The signal.
    """

    label = "stopped"

    def __init__(self, message: str, hint: str, number: int) -> None:
        super().__init__(message, hint)
        self.exit_code = 128 + number


class StopRequest:
    """Notices SIGINT and SIGTERM while it is entered."""

    def __init__(self) -> None:
        self._came: int | None = None
        self._before: dict[int, Any] = {}
        self._file = Path(os.environ[STOP_FILE]) if STOP_FILE in os.environ else None
        self._launcher = os.getppid()
        self._watcher: _Watcher | None = None

    @property
    def signal(self) -> int | None:
        """The signal that came, None before; SIGTERM where the launcher is no more."""
        if self._came is None and self._file is not None:
            if self._file.exists():
                self._came = int(self._file.read_text())
            elif os.getppid() != self._launcher:
                self._came = signal.SIGTERM
        return self._came

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            notice = self._notice if self._file is None else _leave_to_the_watcher
            self._before = {number: signal.signal(number, notice) for number in (signal.SIGINT, signal.SIGTERM)}
            if self._file is not None:
                self._watcher = _Watcher(self._file)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None

    def _notice(self, number: int, frame: FrameType | None) -> None:
        self._came = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


class _Watcher:
    """Ends this process at a signal, unless its launcher got one too and says so in its file.

    It is a thread that the signal itself wakes: the main one may be waiting, in a library, for a process that is gone.

    Args:
        file: The launcher's.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._ear, self._mouth = os.pipe()
        os.set_blocking(self._mouth, False)
        self._before = signal.set_wakeup_fd(self._mouth, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Watch no longer."""
        signal.set_wakeup_fd(self._before)
        os.close(self._mouth)
        self._thread.join()
        os.close(self._ear)

    def _watch(self) -> None:
        while number := int.from_bytes(os.read(self._ear, 1)):
            over = time.monotonic() + _PATIENCE
            while number in (signal.SIGINT, signal.SIGTERM) and not self._file.exists():
                if time.monotonic() > over:
                    os._exit(128 + number)
                time.sleep(0.01)


def _leave_to_the_watcher(number: int, frame: FrameType | None) -> None:
    """Do nothing, and keep the signal from doing what it does where nobody handles it."""
