"""The processes that work together: how they meet, what they tell each other, and how they end together."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore

from groco_cli import console, devices
from groco_cli.distributed.interrupt import Interrupted
from groco_cli.distributed.launch import LaunchSettings, check_world, processes_wanted
from groco_cli.distributed.place import Place, place
from groco_cli.errors import GrocoError, UsageError, first_line

_FIRST_SPEAKS = 1.0  # seconds that the others leave to the first, which often finds the same error
_FIRST_ENDS = 600.0  # and those that they leave it to finish what is open then: it may have much to send
_LOOKS = 0.05  # seconds between looks whether it has
_ENDING, _ENDED = "the first is ending", "the first has ended"
_CULPRIT_SPEAKS = 10.0  # seconds that those who lost another leave to it


@dataclass(frozen=True, kw_only=True)
class Peers:
    """This process, and those that were started with it.

    What goes through `control` goes over gloo, on the CPU: it waits for no GPU, and none for it.

    Args:
        device: What this one computes on.
        rank: Its number, from 0; the first writes everything.
        world: How many there are.
        sharing: How many share the cores that this one sees.
        control: The group for what is told; None where there is one process only.
        store: What they leave each other notes in; likewise.
    """

    device: torch.device
    rank: int = 0
    world: int = 1
    sharing: int = 1
    control: Any = None
    store: Any = None

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    @property
    def workers(self) -> int:
        """Worker processes for this one, where none are asked for."""
        return devices.default_workers(self.device, self.sharing)

    def agreed(self, number: int | None) -> int:
        """The largest of the processes' numbers, 0 where none has one.

        On gloo this takes a fraction of a millisecond, against hundreds for a step.
        """
        if self.world == 1:
            return number or 0
        largest = torch.tensor(number or 0)
        dist.all_reduce(largest, dist.ReduceOp.MAX, group=self.control)
        return int(largest)

    def wait(self) -> None:
        """Wait for all others to come here too."""
        if self.world > 1:
            dist.barrier(group=self.control)

    def from_first(self, what: str, make: Callable[[], str]) -> str:
        """What the first process makes, in all of them.

        Args:
            what: Its name, asked for once by each process.
            make: Called by the first process alone.
        """
        if self.world == 1:
            return make()
        if self.is_first:
            self.store.set(f"from first: {what}", make())
        return str(self.store.get(f"from first: {what}").decode())

    @contextmanager
    def ending_together(self) -> Iterator[None]:
        """Around work with something open that the first process has to close: the others wait for it after an error.

        Where they ended before it, they would have it killed.
        """
        try:
            yield
        except GrocoError:
            if self.world > 1 and self.is_first:
                _note(self.store, _ENDING)
            raise


@contextmanager
def joined(wanted: LaunchSettings) -> Iterator[Peers]:
    """Join the processes that were started with this one, if there are any.

    Args:
        wanted: With the device, and how long to wait for a process that does not answer.

    Yields:
        This process among them; alone where none was started with it.

    Raises:
        UsageError: If another number of processes is wanted than was started.
        GrocoError: If they did not find each other, or lose one another.
        SystemExit: In place of an error that another process tells.
    """
    here = place(os.environ)
    if here is None and processes_wanted(wanted) * wanted.nodes > 1:
        count = processes_wanted(wanted)
        raise UsageError(
            f"{count} processes are wanted, and this is one",
            f"type groco's command, or start this script by torchrun --nproc-per-node {count}",
        )
    if here is None:
        yield Peers(device=_taken(devices.choose_device(wanted.device)))
        return
    if here.rank:
        console.configure(-1)
    timeout = timedelta(minutes=wanted.process_timeout)
    store = _meet(here, timeout)
    with _told_once(store, here.rank):
        check_world(wanted, here)
        device = _taken(_device(wanted.device, here))
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=here.rank, world_size=here.world, timeout=timeout)
        control = dist.new_group(backend="gloo", timeout=timeout)
        yield Peers(device=device, rank=here.rank, world=here.world, sharing=here.sharing, control=control, store=store)
        dist.destroy_process_group()  # not after an error: NCCL would wait for the others


def _meet(here: Place, timeout: timedelta) -> Any:
    try:
        # Untyped in torch.
        store, _, _ = next(dist.rendezvous(here.meeting, here.rank, here.world, timeout=timeout))  # type: ignore[attr-defined]
    except RuntimeError as error:
        raise GrocoError(
            f"process {here.rank} did not find the others at {here.meeting} ({first_line(error)})",
            "the first may have failed: look for its error",
        ) from error
    return PrefixStore("groco", store)


def _device(name: str, here: Place) -> torch.device:
    if ":" in name:
        raise UsageError(f"--device {name} is one GPU for {here.world} processes", "type --device cuda")
    kind = devices.choose_device(name).type
    if kind != "cuda":
        return devices.choose_device(kind)
    # srun may show each task nothing but a GPU of its own.
    own = here.sharing == 1 and torch.cuda.device_count() == 1
    return devices.choose_device(f"cuda:{0 if own else here.local_rank}")


def _taken(device: torch.device) -> torch.device:
    """A device, made the current one: else the thread that pins memory would open a context on the first GPU."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


@contextmanager
def _told_once(store: Any, rank: int) -> Iterator[None]:
    """Let one process tell its error; the others, who fail because of it or find the same, end without a word."""
    try:
        yield
    except GrocoError as error:
        if not _tells(store, rank, error):
            raise SystemExit(error.exit_code) from error
        if rank:
            error.message = f"process {rank}: {error.message}"
        raise
    except RuntimeError as error:
        if not _lost_another(error):
            raise
        time.sleep(_CULPRIT_SPEAKS)
        if not _first_to_tell(store):
            raise SystemExit(1) from error
        raise GrocoError(
            f"process {rank} lost another one ({_how(error)})", "what can be resumed goes on with --resume"
        ) from error


def _tells(store: Any, rank: int, error: GrocoError) -> bool:
    """Whether it is this process that tells an error: the first one, where it finds the same; else who comes first.

    The others leave the first time to finish what it does because of the error, and to speak: with their end its own
    would come at once.
    """
    if rank == 0:
        _note(store, _ENDING)
        tells = _first_to_tell(store)
        _note(store, _ENDED)
        return tells
    # All of them agreed to be interrupted; another error may be this one's alone, and the first never find it.
    if not _appears(store, _ENDING, _FIRST_ENDS if isinstance(error, Interrupted) else _FIRST_SPEAKS):
        return _first_to_tell(store)
    if _appears(store, _ENDED, _FIRST_ENDS):
        time.sleep(_FIRST_SPEAKS)
    return False


def _appears(store: Any, note: str, seconds: float) -> bool:
    """Whether the first process leaves a note in time; whoever holds the store may end before."""
    over = time.monotonic() + seconds
    try:
        while not store.check([note]):
            if time.monotonic() > over:
                return False
            time.sleep(_LOOKS)
    except RuntimeError:
        return False
    return True


def _note(store: Any, note: str) -> None:
    with suppress(RuntimeError):  # whoever held the store has ended
        store.set(note, "")


def _first_to_tell(store: Any) -> bool:
    try:
        return bool(store.add("errors", 1) == 1)
    except RuntimeError:  # whoever held the store has ended
        return True


def _lost_another(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def _how(error: RuntimeError) -> str:
    """How another process was lost; gloo says it in its own source's terms."""
    if "gloo" not in str(error):
        return first_line(error)
    return "it did not answer in --process-timeout" if "imed out" in str(error) else "the connection to it broke"
