"""Ctrl-C and SIGTERM: finish the step, save, and stop; a second one stops at once."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

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
    """Notices SIGINT and SIGTERM while it is entered.

    Attributes:
        signal: The signal that came, None before.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._notice) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _notice(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
