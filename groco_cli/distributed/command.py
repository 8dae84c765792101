"""What `--gpus` and `--processes` do to a command that scores: it knows nothing of them but its `device`."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import FrameType
from typing import Any


def over_processes(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command run in as many processes as its `gpus` and `processes` say, or torchrun or srun started.

    Each of them runs all of it, under torch.distributed where they are several; what it prints and writes is for the
    first one alone (`groco_cli.distributed.collectives.rank`). Ctrl-C ends them at once.

    Args:
        command: With the options `device`, `gpus`, `processes` and `workers`; it is given the device that is this
            process's own, and the workers that it may have where none were asked for.
    """

    @wraps(command)
    def typed(**given: Any) -> None:
        from groco_cli.distributed.launch import LaunchSettings, started
        from groco_cli.distributed.peers import joined

        asked = {name: given.get(name) for name in ("device", "gpus", "processes")}
        wanted = LaunchSettings(**{name: value for name, value in asked.items() if value is not None})
        if started(wanted, patient=False):
            return
        with joined(wanted) as peers, _stopped_in_one_voice(peers.rank, peers.world):
            if given.get("workers") is None:
                given["workers"] = peers.workers
            command(**given | {"device": str(peers.device)})

    return typed


@contextmanager
def _stopped_in_one_voice(rank: int, world: int) -> Iterator[None]:
    """Among several, take SIGTERM for Ctrl-C if it was the user's, and let the first process alone speak of it."""
    from groco_cli.distributed.interrupt import Interrupted, StopRequest

    if world == 1:
        yield
        return
    request = StopRequest()

    def stop(number: int, frame: FrameType | None) -> None:
        if request.signal is None:
            raise SystemExit(128 + number)  # another has failed, and told why
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except (KeyboardInterrupt, Interrupted) as error:
        if rank:
            raise SystemExit(130) from error
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
