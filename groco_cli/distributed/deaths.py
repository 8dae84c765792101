"""What is said of a process that ended in a way of which it could not speak itself."""

import signal

from groco_cli.errors import GrocoError

_CAUSES: dict[int, str] = {
    signal.SIGKILL: "often memory runs out: type fewer --workers, which a resumed run may have too, or begin a new "
    "run with a smaller --batch-size",
    signal.SIGBUS: "often /dev/shm is full, through which workers hand on images: enlarge it (in a container by "
    "--shm-size), or type fewer --workers",
    signal.SIGABRT: "often processes waited for each other in vain, and NCCL gave up: its message is above; set "
    "NCCL_DEBUG=WARN to read more, or train with a longer --process-timeout",
    signal.SIGSEGV: "a library of native code crashed: set PYTHONFAULTHANDLER=1 to see where",
}


def killed(rank: int, number: int) -> GrocoError:
    """A signal ended a process: its usual cause, and what to type instead.

    Args:
        rank: The process's.
        number: The signal's.
    """
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    cause = _CAUSES.get(number, "whoever sent it may know why; what can be resumed goes on with --resume")
    return GrocoError(f"process {rank} was killed ({name})", cause)
