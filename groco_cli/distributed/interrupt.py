"""Ctrl-C and SIGTERM: finish the step, save, and stop; a second one stops at once.

A process that groco started is told by a file that its launcher writes: a signal to it means to end at once.
"""

import os
import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from groco_cli.distributed.launch import STOP_FILE
from groco_cli.errors import GrocoError


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
        if self._file is None and threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._notice) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _notice(self, number: int, frame: FrameType | None) -> None:
        self._came = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
