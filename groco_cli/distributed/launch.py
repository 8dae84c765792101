"""One process or many: whether to run alone, to start others, or to join those that were started with this one.

`--gpus 4` starts four through torch's elastic launcher; torchrun and srun start them by themselves, and say so in the
environment. Or srun starts one on each machine, which starts the others there. docs/cluster.md shows each way.
"""

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import TYPE_CHECKING

import torch

from groco_cli import console, devices
from groco_cli.distributed.deaths import killed
from groco_cli.distributed.place import Place, is_srun_s_launcher, place
from groco_cli.errors import GrocoError, UsageError, first_line
from groco_cli.wording import counted

if TYPE_CHECKING:
    from torch.distributed.launcher.api import LaunchConfig

STOP_FILE = "GROCO_STOP_FILE"  # names the file that holds the signal's number, once the launcher got one
_UNASKED = (128 + signal.SIGINT, 128 + signal.SIGTERM)  # ended by a signal that the launcher did not pass on
_ASKS = 2.0  # seconds between attempts to reach another machine, and that each may take


@dataclass(frozen=True, kw_only=True)
class LaunchSettings:
    """How many processes a command runs in, and where.

    Args:
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        gpus: GPUs of each machine, one process each; 0 for one process on `device`.
        processes: Processes on each machine, on its CPU.
        nodes: Machines.
        rdzv: Where several machines meet, HOST:PORT.
        process_timeout: Minutes until a process that does not answer is given up.

    Raises:
        UsageError: If they contradict each other, or one is out of range.
    """

    device: str = "auto"
    gpus: int = 0
    processes: int = 1
    nodes: int = 1
    rdzv: str = ""
    process_timeout: int = 30

    def __post_init__(self) -> None:
        least = {"--gpus": (self.gpus, 0), "--processes": (self.processes, 1), "--nodes": (self.nodes, 1)}
        for option, (value, lowest) in (least | {"--process-timeout": (self.process_timeout, 1)}).items():
            if value < lowest:
                raise UsageError(f"{option} {value} is out of range", f"type {lowest} or more")
        for option, clashes in {
            f"--processes {self.processes}": self.processes > 1,
            f"--device {self.device}": self.device not in ("auto", "cuda"),
        }.items():
            if self.gpus and clashes:
                raise UsageError(f"--gpus {self.gpus} and {option} contradict each other", "leave one out")
        if self.nodes > 1 and not self.rdzv:
            raise UsageError(
                f"--nodes {self.nodes} need a place to meet", "type --rdzv HOST:29400, HOST being one of them"
            )
        host, _, port = self.rdzv.rpartition(":")
        if self.rdzv and not (host and port.isdecimal() and int(port) < 2**16):
            raise UsageError(
                f"--rdzv {self.rdzv} is no HOST:PORT", f"type --rdzv {self.rdzv.strip(':') or 'HOST'}:29400"
            )


def processes_wanted(wanted: LaunchSettings) -> int:
    """How many processes are wanted on this machine.

    Raises:
        UsageError: If there are fewer GPUs than that.
    """
    if not wanted.gpus:
        if wanted.processes > 1 and devices.choose_device(wanted.device).type != "cpu":
            raise UsageError(
                f"--processes {wanted.processes} is for the CPU",
                f"type --gpus {wanted.processes}, or --device cpu with it",
            )
        return wanted.processes
    available = torch.cuda.device_count()
    if wanted.gpus > available:
        raise UsageError(
            f"--gpus {wanted.gpus}: this machine has {counted(available, 'CUDA GPU')}",
            f"type --gpus {available} or less" if available else f"type --device cpu --processes {wanted.gpus}",
        )
    return wanted.gpus


def check_world(wanted: LaunchSettings, here: Place) -> None:
    """Check that torchrun or srun started as many as are wanted, where a number is.

    Raises:
        UsageError: If it is not.
    """
    option, each = ("--gpus", wanted.gpus) if wanted.gpus else ("--processes", wanted.processes)
    wants_none = not wanted.gpus and each * wanted.nodes == 1
    if wants_none or each * wanted.nodes == here.world:
        return
    said = f"{option} {each}" + f" on each of --nodes {wanted.nodes}" * (wanted.nodes > 1)
    fits = f"{option} {here.world // wanted.nodes}" + f" --nodes {wanted.nodes}" * (wanted.nodes > 1)
    if here.world % wanted.nodes:
        fits = f"{option} {here.world} --nodes 1"
    raise UsageError(
        f"{said} makes {each * wanted.nodes}, and torchrun or srun started {here.world}",
        f"have it start {each * wanted.nodes}, or type {fits}",
    )


def started(
    wanted: LaunchSettings,
    environment: Mapping[str, str] = os.environ,
    *,
    patient: bool = True,
    also: Sequence[str] = (),
) -> bool:
    """Run this very command in as many processes as are wanted, if they are not there yet.

    Args:
        wanted: Says how many, and on how many machines.
        environment: Says whether this process is one of them.
        patient: Whether a first Ctrl-C waits for them to end by themselves; else they are ended at once.
        also: Options that they are given besides those that were typed: what this process decided for all.

    Returns:
        Whether they were started here, and are done; False where this process should do the work.

    Raises:
        UsageError: If there are fewer GPUs than that.
        GrocoError: If a process was killed, or the machines did not find each other.
        SystemExit: If a process ended with an error, which it has told; with its exit code.
    """
    # Where srun started one task on each machine, and several processes are to meet there, each task starts its own.
    several = max(wanted.gpus, wanted.processes) > 1
    starts_its_own = several and bool(wanted.rdzv) and is_srun_s_launcher(environment, wanted.nodes)
    if place(environment) is not None and not starts_its_own:
        return False
    count = processes_wanted(wanted)
    if count * wanted.nodes == 1:
        return False
    _start(wanted, count, patient=patient, also=also)
    return True


def _start(wanted: LaunchSettings, count: int, *, patient: bool, also: Sequence[str]) -> None:
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.launcher.api import elastic_launch

    # Each process tells its own error; what the launcher would add is a page long.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL + 1)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, devices.usable_cores() // count)))
    if wanted.rdzv:
        console.note(f"meeting    at {wanted.rdzv}, waiting {wanted.process_timeout} minutes at most")
        _await_host(wanted.rdzv, wanted.process_timeout)
    with TemporaryDirectory(prefix="groco-") as folder, _stop_is_passed_on(Path(folder) / "stop", patient):
        launch = elastic_launch(_elastic(wanted, count, folder), sys.executable)
        try:
            launch("-m", "groco_cli", *sys.argv[1:], *also)
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            asked = (Path(folder) / "stop").exists()
            if failure.exitcode > 0 and (asked or failure.exitcode not in _UNASKED):
                raise SystemExit(failure.exitcode) from None  # it has said why
            raise killed(rank, failure.exitcode % 128 if failure.exitcode > 0 else -failure.exitcode) from None
        except SignalException as error:
            raise SystemExit(128 + error.sigval) from None
        except (RendezvousError, RuntimeError) as error:
            why = first_line(error.__cause__ or error)
            raise GrocoError(
                f"the machines did not find each other at {wanted.rdzv or 'localhost'} ({why})",
                "type the same --nodes and --rdzv on each; HOST is one of them, and PORT is free there",
            ) from error


def _await_host(rdzv: str, minutes: int) -> None:
    """Wait until HOST answers, unless it is this machine: torch would too, but write a page whenever it does not."""
    host, _, port = rdzv.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise GrocoError(
            f"--rdzv {rdzv}: this machine knows no {host} ({first_line(error)})",
            "type the name or the address by which all machines reach one of them",
        ) from error
    if any(_is_own(family, str(address[0])) for family, *_, address in found):
        return
    over = time.monotonic() + 60 * minutes
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_ASKS).close()
            return
        except OSError as error:
            if time.monotonic() > over:
                raise GrocoError(
                    f"--rdzv {rdzv}: nothing answers there in {minutes} minutes ({first_line(error)})",
                    "type the same command on HOST, see that no firewall closes PORT, or type a longer "
                    "--process-timeout",
                ) from error
        time.sleep(_ASKS)


def _is_own(family: int, address: str) -> bool:
    """Whether an address is one of this machine's: no other can be bound to."""
    try:
        with socket.socket(family) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def _elastic(wanted: LaunchSettings, count: int, folder: str) -> "LaunchConfig":
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.launcher.api import LaunchConfig

    endpoint, seconds = wanted.rdzv or "localhost:0", 60 * wanted.process_timeout
    return LaunchConfig(
        min_nodes=wanted.nodes,
        max_nodes=wanted.nodes,
        nproc_per_node=count,
        run_id="groco",
        rdzv_backend="c10d",
        rdzv_endpoint=endpoint,
        # HOST has to go on answering within the first, all machines to come within the second.
        rdzv_configs={"read_timeout": seconds, "join_timeout": seconds},
        local_addr="localhost" if endpoint.startswith("localhost:") else None,
        max_restarts=0,
        signals_to_handle="SIGHUP,SIGQUIT",  # the others are handled here
        logs_specs=DefaultLogsSpecs(log_dir=folder),
    )


@contextmanager
def _stop_is_passed_on(file: Path, patient: bool) -> Iterator[None]:
    """Write the first SIGINT or SIGTERM to a file that all processes watch; end them at once at the second.

    Where nobody watches, they are ended at the first, and find in the file that it was the user's wish.

    By themselves the launcher would give them half a minute from the first on, too little for a long step or score.
    To them, its own SIGTERM means that another has failed, and that there is nothing left to wait for.
    """

    def notice(number: int, frame: FrameType | None) -> None:
        if file.exists():
            raise SystemExit(128 + number)
        part = file.with_suffix(".part")
        part.write_text(str(number))
        part.replace(file)
        if not patient:
            raise SystemExit(128 + number)

    os.environ[STOP_FILE] = str(file)
    before = {number: signal.signal(number, notice) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        del os.environ[STOP_FILE]
