"""What torchrun's and srun's environments mean."""

import pytest

from groco_cli.distributed.place import Place, first_host, place
from groco_cli.errors import UsageError

TORCHRUN = {
    "RANK": "5",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "8",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "node1",
    "MASTER_PORT": "29500",
}
SRUN = {
    "SLURM_JOB_ID": "40123",
    "SLURM_STEP_ID": "2",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NTASKS": "8",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_JOB_NODELIST": "gpu[07-08],gpu12",
    "ENVIRONMENT": "BATCH",
}


def test_a_process_by_itself_has_no_place():
    assert place({"PATH": "/bin", "SLURM_JOB_ID": "1", "SLURM_NTASKS": "8"}) is None


def test_torchrun_gives_a_place():
    assert place(TORCHRUN) == Place(rank=5, local_rank=1, world=8, sharing=4, meeting="env://")


def test_torchrun_inside_a_slurm_job_is_torchrun():
    assert place(SRUN | TORCHRUN) == place(TORCHRUN)


def test_srun_gives_a_place_on_the_machine_of_its_first_task():
    assert place(SRUN) == Place(rank=5, local_rank=1, world=8, sharing=1, meeting="tcp://gpu07:20125")
    assert place(SRUN | {"SLURM_STEP_NODELIST": "gpu12"}).meeting == "tcp://gpu12:20125"
    assert place(SRUN | {"MASTER_ADDR": "login", "MASTER_PORT": "1234"}).meeting == "tcp://login:1234"


def test_without_a_list_of_machines_srun_names_its_own():
    without = {name: value for name, value in SRUN.items() if name != "SLURM_JOB_NODELIST"}
    assert place(without | {"SLURM_LAUNCH_NODE_IPADDR": "10.0.0.7"}).meeting == "tcp://10.0.0.7:20125"
    with pytest.raises(UsageError, match="SLURM_LAUNCH_NODE_IPADDR is not set"):
        place(without)


def test_the_script_that_sbatch_runs_is_no_task():
    script = {name: value for name, value in SRUN.items() if not name.startswith("SLURM_STEP")} | {"SLURM_PROCID": "0"}
    assert place(script) is None


@pytest.mark.parametrize(
    ("machines", "first"),
    [
        ("a", "a"),
        ("a,b", "a"),
        ("gpu[3,5-7]", "gpu3"),
        ("gpu[003-010],x", "gpu003"),
        ("r[1-2]n[08-09],x[1-3]", "r1n08"),
        ("big-node-[9-11].cluster", "big-node-9.cluster"),
    ],
)
def test_the_first_machine_of_a_list(machines, first):
    assert first_host(machines) == first


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"LOCAL_RANK": None}, "LOCAL_RANK is not set"),
        ({"MASTER_ADDR": None}, "MASTER_ADDR is not set"),
        ({"MASTER_ADDR": ""}, "MASTER_ADDR is not set"),
        ({"MASTER_PORT": ""}, "MASTER_PORT is not set"),
        ({"WORLD_SIZE": "two"}, "cannot be read"),
    ],
)
def test_an_environment_that_contradicts_itself_is_refused(changed, message):
    environment = {name: value for name, value in (TORCHRUN | changed).items() if value is not None}
    with pytest.raises(UsageError, match=message):
        place(environment)


def test_the_only_process_of_torchrun_or_srun_has_no_place():
    assert place({"RANK": "0", "WORLD_SIZE": "1"}) is None
    assert place(SRUN | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}) is None
