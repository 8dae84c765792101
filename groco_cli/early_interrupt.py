"""Ctrl-C while modules are imported: the process ends at once, as long as it leaves nothing behind that way.

An exception amid an import is swallowed by some libraries, turned into another by others, and some of native code
abort. Everywhere else, and once a bar is drawn or a file is being written, Ctrl-C is Python's KeyboardInterrupt, as
ever; while a run is trained `groco_cli.distributed.interrupt` hears it.
"""

import os
import signal
from contextlib import suppress
from types import FrameType

_IMPORTS = "<frozen importlib._bootstrap>"  # the file of Python's own code for them

_at_work = False


def end_imports_at_once() -> None:
    """Begin to, unless Ctrl-C is ignored, as behind `nohup`."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupted)


def work_begins() -> None:
    """From here on there is something to tidy up: Ctrl-C is a KeyboardInterrupt wherever it comes."""
    global _at_work
    _at_work = True


def _interrupted(number: int, frame: FrameType | None) -> None:
    if not _at_work and _importing(frame):
        with suppress(OSError):  # nobody may listen
            os.write(2, b"error: interrupted\n")  # the console may not be imported yet
        os._exit(128 + number)
    signal.default_int_handler(number, frame)


def _importing(frame: FrameType | None) -> bool:
    while frame and frame.f_code.co_filename != _IMPORTS:
        frame = frame.f_back
    return frame is not None
