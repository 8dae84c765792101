"""What torchrun's and srun's environments mean, and how many processes are started where there is none."""

import pytest
import torch

from groco_cli.distributed import launch
from groco_cli.distributed.launch import LaunchSettings, Place, place, processes_wanted, started
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
    assert launch.first_host(machines) == first


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"LOCAL_RANK": None}, "LOCAL_RANK is not set"), ({"WORLD_SIZE": "two"}, "cannot be read")],
)
def test_an_environment_that_contradicts_itself_is_refused(changed, message):
    environment = {name: value for name, value in (TORCHRUN | changed).items() if value is not None}
    with pytest.raises(UsageError, match=message):
        place(environment)


@pytest.mark.parametrize(
    ("available", "message", "hint"),
    [
        (0, "--gpus 3: this machine has 0 CUDA GPUs", "type --device cpu --processes 3"),
        (1, "--gpus 3: this machine has 1 CUDA GPU", "type --gpus 1 or less"),
        (2, "--gpus 3: this machine has 2 CUDA GPUs", "type --gpus 2 or less"),
    ],
)
def test_more_gpus_than_there_are_is_a_mistake_that_says_how_many(monkeypatch, available, message, hint):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: available)
    with pytest.raises(UsageError) as caught:
        processes_wanted(LaunchSettings(gpus=3))
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_processes_on_gpus_are_asked_for_by_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert processes_wanted(LaunchSettings(gpus=4)) == 4
    assert processes_wanted(LaunchSettings(device="cpu", processes=4)) == 4
    with pytest.raises(UsageError, match="--processes 4 is for the CPU") as caught:
        processes_wanted(LaunchSettings(processes=4))
    assert "--gpus 4" in caught.value.hint


@pytest.mark.parametrize(
    ("wanted", "environment", "count"),
    [
        (LaunchSettings(device="cpu"), {}, None),
        (LaunchSettings(device="cpu", processes=3), {}, 3),
        (LaunchSettings(device="cpu", nodes=2, rdzv="a:1"), {}, 1),
        (LaunchSettings(device="cpu", processes=3), TORCHRUN, None),
        (LaunchSettings(device="cpu", processes=3), SRUN, None),
    ],
)
def test_processes_are_started_only_where_they_are_not_there_yet(monkeypatch, wanted, environment, count):
    begun = []
    monkeypatch.setattr(launch, "_start", lambda _, count, **how: begun.append(count))
    assert started(wanted, environment) is (count is not None)
    assert begun == ([] if count is None else [count])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gpus": -1}, "--gpus -1"),
        ({"processes": 0}, "--processes 0"),
        ({"gpus": 2, "processes": 2}, "contradict each other"),
        ({"gpus": 2, "device": "cpu"}, "--gpus 2 and --device cpu contradict each other"),
        ({"nodes": 2}, "--nodes 2 need a place to meet"),
        ({"nodes": 2, "rdzv": "host"}, "--rdzv host is no HOST:PORT"),
    ],
)
def test_settings_that_cannot_be_are_refused(values, message):
    with pytest.raises(UsageError) as caught:
        LaunchSettings(**values)
    assert message in caught.value.message
    assert caught.value.hint
