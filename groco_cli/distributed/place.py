"""Where a process stands among those that torchrun or srun started with it, as their environment says."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from groco_cli.errors import UsageError

_FIRST_PORT, _PORTS = 20_000, 10_000


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
    """The place that torchrun or srun gave this process; None where it was started by itself, or as the only one.

    Args:
        environment: Its environment variables.

    Raises:
        UsageError: If they contradict themselves.
    """
    try:
        if "RANK" in environment and "WORLD_SIZE" in environment:
            return _of_torchrun(environment) if int(environment["WORLD_SIZE"]) > 1 else None
        if _is_task_of_srun(environment):
            return _of_srun(environment) if _tasks(environment) > 1 else None
    except ValueError as error:
        raise UsageError(f"torchrun's or srun's variables cannot be read ({error})", "see docs/cluster.md") from error
    return None


def is_srun_s_launcher(environment: Mapping[str, str], nodes: int) -> bool:
    """Whether srun started this process as one of as many as there are machines, one on each.

    Args:
        environment: Its environment variables.
        nodes: How many machines are wanted.
    """
    if "RANK" in environment or not _is_task_of_srun(environment):
        return False
    machines = environment.get("SLURM_STEP_NUM_NODES") or environment.get("SLURM_NNODES") or str(nodes)
    return str(_tasks(environment)) == machines == str(nodes)


def _of_torchrun(environment: Mapping[str, str]) -> Place:
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        _needed(environment, name)  # torch reads these itself
    return Place(
        rank=int(environment["RANK"]),
        local_rank=int(_needed(environment, "LOCAL_RANK")),
        world=int(environment["WORLD_SIZE"]),
        sharing=int(environment.get("LOCAL_WORLD_SIZE", "1")),
        meeting="env://",
    )


def _is_task_of_srun(environment: Mapping[str, str]) -> bool:
    """Whether srun started this process; the script that sbatch runs has most of its variables too, but no step."""
    in_the_script = environment.get("ENVIRONMENT") == "BATCH" and "SLURM_STEP_ID" not in environment
    return "SLURM_PROCID" in environment and "SLURM_NTASKS" in environment and not in_the_script


def _tasks(environment: Mapping[str, str]) -> int:
    return int(environment.get("SLURM_STEP_NUM_TASKS", environment["SLURM_NTASKS"]))


def _of_srun(environment: Mapping[str, str]) -> Place:
    # The task of rank 0 runs on the step's first machine.
    machines = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST")
    address = first_host(machines) if machines else _needed(environment, "SLURM_LAUNCH_NODE_IPADDR")
    # A port that all tasks agree upon, and that two jobs on a machine seldom share.
    own = int(environment.get("SLURM_JOB_ID", "0")) + int(environment.get("SLURM_STEP_ID", "0"))
    port = environment.get("MASTER_PORT", str(_FIRST_PORT + own % _PORTS))
    return Place(
        rank=int(environment["SLURM_PROCID"]),
        local_rank=int(_needed(environment, "SLURM_LOCALID")),
        world=_tasks(environment),
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


def _needed(environment: Mapping[str, str], name: str) -> str:
    if not environment.get(name):
        raise UsageError(
            f"this process is one of several, but {name} is not set",
            "start it by torchrun or srun, or unset RANK and SLURM_PROCID",
        )
    return environment[name]
