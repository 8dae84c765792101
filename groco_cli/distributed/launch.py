"""One process or many: whether to run alone, to start others, or to join those that were started with this one.

`--gpus 4` starts four through torch's elastic launcher; torchrun and srun start them by themselves, and say so in the
environment. docs/cluster.md shows each way.
"""

import logging
import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

import torch

from groco_cli import devices
from groco_cli.errors import GrocoError, UsageError, first_line

STOP_FILE = "GROCO_STOP_FILE"  # names the file that holds the signal's number, once the launcher got one
_FIRST_PORT, _PORTS = 20_000, 10_000


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
        if self.rdzv and not (host and port.isdecimal()):
            raise UsageError(
                f"--rdzv {self.rdzv} is no HOST:PORT", f"type --rdzv {self.rdzv.strip(':') or 'HOST'}:29400"
            )


@dataclass(frozen=True, kw_only=True)
class Place:
    """This process's place among those that were started together.

    Args:
        rank: Its number among all, from 0.
        local_rank: Its number on its machine, from 0.
        world: How many there are.
        sharing: How many share the cores that this one sees.
        meeting: Where they meet, as `torch.distributed.rendezvous` wants it.
    """

    rank: int
    local_rank: int
    world: int
    sharing: int
    meeting: str


def place(environment: Mapping[str, str]) -> Place | None:
    """The place that torchrun or srun gave this process; None where it was started by itself.

    Args:
        environment: Its environment variables.

    Raises:
        UsageError: If they contradict themselves.
    """
    try:
        if "RANK" in environment and "WORLD_SIZE" in environment:
            return _of_torchrun(environment)
        if _is_task_of_srun(environment):
            return _of_srun(environment)
    except KeyError as error:
        raise UsageError(
            f"this process is one of several, but {error.args[0]} is not set",
            "start it by torchrun or srun, or unset RANK and SLURM_PROCID",
        ) from error
    except ValueError as error:
        raise UsageError(f"torchrun's or srun's variables cannot be read ({error})", "see docs/cluster.md") from error
    return None


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
            f"--gpus {wanted.gpus}: this machine has {available} CUDA GPU{'s' * (available != 1)}",
            f"type --gpus {available} or less" if available else f"type --device cpu --processes {wanted.gpus}",
        )
    return wanted.gpus


def started(wanted: LaunchSettings, environment: Mapping[str, str] = os.environ, *, patient: bool = True) -> bool:
    """Run this very command in as many processes as are wanted, if they are not there yet.

    Args:
        wanted: Says how many, and on how many machines.
        environment: Says whether this process is one of them.
        patient: Whether a first Ctrl-C waits for them to end by themselves; else they are ended at once.

    Returns:
        Whether they were started here, and are done; False where this process should do the work.

    Raises:
        UsageError: If there are fewer GPUs than that.
        GrocoError: If a process was killed, or the machines did not find each other.
        SystemExit: If a process ended with an error, which it has told; with its exit code.
    """
    if place(environment) is not None:
        return False
    count = processes_wanted(wanted)
    if count * wanted.nodes == 1:
        return False
    _start(wanted, count, patient=patient)
    return True


def _of_torchrun(environment: Mapping[str, str]) -> Place:
    return Place(
        rank=int(environment["RANK"]),
        local_rank=int(environment["LOCAL_RANK"]),
        world=int(environment["WORLD_SIZE"]),
        sharing=int(environment.get("LOCAL_WORLD_SIZE", "1")),
        meeting="env://" if environment["MASTER_ADDR"] and environment["MASTER_PORT"] else "",
    )


def _is_task_of_srun(environment: Mapping[str, str]) -> bool:
    """Whether srun started this process; the script that sbatch runs has most of its variables too, but no step."""
    in_the_script = environment.get("ENVIRONMENT") == "BATCH" and "SLURM_STEP_ID" not in environment
    return "SLURM_PROCID" in environment and "SLURM_NTASKS" in environment and not in_the_script


def _of_srun(environment: Mapping[str, str]) -> Place:
    # The task of rank 0 runs on the step's first machine.
    machines = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST")
    address = first_host(machines) if machines else environment["SLURM_LAUNCH_NODE_IPADDR"]
    # A port that all tasks agree upon, and that two jobs on a machine seldom share.
    own = int(environment.get("SLURM_JOB_ID", "0")) + int(environment.get("SLURM_STEP_ID", "0"))
    port = environment.get("MASTER_PORT", str(_FIRST_PORT + own % _PORTS))
    return Place(
        rank=int(environment["SLURM_PROCID"]),
        local_rank=int(environment["SLURM_LOCALID"]),
        world=int(environment.get("SLURM_STEP_NUM_TASKS", environment["SLURM_NTASKS"])),
        sharing=1,  # each task has cores of its own
        meeting=f"tcp://{environment.get('MASTER_ADDR', address)}:{port}",
    )


def first_host(machines: str) -> str:
    """The first of SLURM's list of machines.

    >>> first_host("gpu[03-05,9],login1"), first_host("rack[1-2]n[08-09]"), first_host("alone")
    ('gpu03', 'rack1n08', 'alone')
    """
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", machines)
    return re.sub(r"\[(\d+)[^\]]*\]", r"\1", first.group() if first else "")


def _start(wanted: LaunchSettings, count: int, *, patient: bool) -> None:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # Each process tells its own error; what the launcher would add is a page long.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL + 1)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, devices.usable_cores() // count)))
    with TemporaryDirectory(prefix="groco-") as folder, _stop_is_passed_on(Path(folder) / "stop", patient):
        config = LaunchConfig(
            min_nodes=wanted.nodes,
            max_nodes=wanted.nodes,
            nproc_per_node=count,
            run_id="groco",
            rdzv_backend="c10d",
            rdzv_endpoint=wanted.rdzv or "localhost:0",
            local_addr=None if wanted.rdzv else "localhost",
            max_restarts=0,
            signals_to_handle="SIGHUP,SIGQUIT",  # the others are handled here
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            elastic_launch(config, sys.executable)("-m", "groco_cli", *sys.argv[1:])
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            if failure.exitcode > 0:
                raise SystemExit(failure.exitcode) from None  # it has said why
            raise GrocoError(
                f"process {rank} was killed ({failure.signal_name()})",
                "often memory runs out: type fewer --workers, or train with a smaller --batch-size and --resume",
            ) from None
        except SignalException as error:
            raise SystemExit(128 + error.sigval) from None
        except (torch.distributed.DistError, RuntimeError) as error:
            raise GrocoError(
                f"the machines did not find each other at {wanted.rdzv or 'localhost'} ({first_line(error)})",
                "type the same --nodes and --rdzv on each; HOST is one of them, and PORT is free there",
            ) from error


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
