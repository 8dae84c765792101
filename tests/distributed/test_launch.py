"""How many processes are started, and where; what is said when they do not meet or one is killed."""

import itertools
import signal
import socket
import sys
from types import SimpleNamespace

import pytest
import torch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous.api import RendezvousConnectionError, RendezvousTimeoutError
from torch.distributed.launcher import api

from groco_cli.distributed import launch
from groco_cli.distributed.launch import LaunchSettings, check_world, processes_wanted, started
from groco_cli.distributed.place import Place
from groco_cli.errors import GrocoError, UsageError

HERE = Place(rank=5, local_rank=1, world=8, sharing=4, meeting="env://")
TORCHRUN = {
    **{"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"},
    **{"MASTER_ADDR": "node1", "MASTER_PORT": "29500"},
}
SRUN = {"SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NTASKS": "8", "SLURM_JOB_NODELIST": "gpu[07-08]"}


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
        (LaunchSettings(device="cpu", processes=3), TORCHRUN | {"RANK": "0", "WORLD_SIZE": "1"}, 3),
        (LaunchSettings(device="cpu", processes=3), SRUN | {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, 3),
        (LaunchSettings(device="cpu"), SRUN | {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, None),
    ],
)
def test_processes_are_started_only_where_they_are_not_there_yet(monkeypatch, wanted, environment, count):
    begun = []
    monkeypatch.setattr(launch, "_start", lambda _, count, **how: begun.append(count))
    assert started(wanted, environment) is (count is not None)
    assert begun == ([] if count is None else [count])


ONE_EACH = {**SRUN, "SLURM_PROCID": "1", "SLURM_LOCALID": "0", "SLURM_NTASKS": "2", "SLURM_NNODES": "2"}
ELSEWHERE = {"processes": 3, "nodes": 2, "rdzv": "head:29400"}


@pytest.mark.parametrize(
    ("values", "environment", "starts"),
    [
        (ELSEWHERE, ONE_EACH, True),
        (ELSEWHERE, ONE_EACH | {"SLURM_NTASKS": "9", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "2"}, True),
        (ELSEWHERE, {name: value for name, value in ONE_EACH.items() if name != "SLURM_NNODES"}, True),
        (ELSEWHERE, ONE_EACH | {"SLURM_NNODES": "1"}, False),  # both on one machine
        (ELSEWHERE, ONE_EACH | {"SLURM_NTASKS": "6"}, False),  # all that are wanted
        (ELSEWHERE | {"nodes": 3}, ONE_EACH, False),
        (ELSEWHERE | {"processes": 1}, ONE_EACH, False),
        ({"processes": 2}, ONE_EACH, False),
        (ELSEWHERE, ONE_EACH | TORCHRUN, False),  # what such a task has started
    ],
)
def test_a_task_that_srun_started_alone_on_its_machine_starts_the_others_there(
    monkeypatch, values, environment, starts
):
    begun = []
    monkeypatch.setattr(launch, "_start", lambda _, count, **how: begun.append(count))
    assert started(LaunchSettings(device="cpu", **values), environment) is starts
    assert begun == [3] * starts


@pytest.mark.parametrize(
    "values", [{}, {"processes": 8}, {"gpus": 8}, {"processes": 2, "nodes": 4, "rdzv": "a:1"}, {"device": "cpu"}]
)
def test_what_was_started_may_be_asked_for(values):
    check_world(LaunchSettings(**values), HERE)


@pytest.mark.parametrize(
    ("values", "message", "hint"),
    [
        ({"gpus": 4}, "--gpus 4 makes 4, and torchrun or srun started 8", "have it start 4, or type --gpus 8"),
        ({"gpus": 1}, "--gpus 1 makes 1, and torchrun or srun started 8", "have it start 1, or type --gpus 8"),
        ({"processes": 2}, "--processes 2 makes 2, and torchrun", "have it start 2, or type --processes 8"),
        (
            {"gpus": 8, "nodes": 2, "rdzv": "a:1"},
            "--gpus 8 on each of --nodes 2 makes 16, and torchrun or srun started 8",
            "have it start 16, or type --gpus 4 --nodes 2",
        ),
        ({"gpus": 8, "nodes": 3, "rdzv": "a:1"}, "--nodes 3 makes 24", "have it start 24, or type --gpus 8 --nodes 1"),
    ],
)
def test_another_number_than_was_started_is_a_mistake_that_says_both(values, message, hint):
    with pytest.raises(UsageError) as caught:
        check_world(LaunchSettings(**values), HERE)
    assert message in caught.value.message
    assert caught.value.hint == hint


@pytest.fixture
def elastic(monkeypatch):
    """torch's launcher, which keeps what it is given and ends with `elastic.error`, if set, or asked to by a signal."""
    seen = SimpleNamespace(error=None, asked=False)

    def elastic_launch(config, entrypoint):
        def run(*arguments):
            seen.config, seen.arguments = config, arguments
            if seen.asked:
                signal.raise_signal(signal.SIGTERM)
            if seen.error:
                raise seen.error

        return run

    monkeypatch.setattr(api, "elastic_launch", elastic_launch)
    monkeypatch.setattr(launch, "_await_host", lambda rdzv, minutes: None)
    monkeypatch.setattr(sys, "argv", ["groco", "pretrain", "--resume"])
    return seen


def test_processes_are_given_what_was_typed_and_what_was_decided_for_all(elastic):
    assert started(LaunchSettings(device="cpu", processes=2), {}, also=("--output", "runs/digits"))
    assert elastic.arguments == ("-m", "groco_cli", "pretrain", "--resume", "--output", "runs/digits")
    assert (elastic.config.nproc_per_node, elastic.config.max_nodes) == (2, 1)


def test_machines_are_waited_for_as_long_as_is_asked_for(elastic):
    started(LaunchSettings(device="cpu", nodes=2, rdzv="head:29400", process_timeout=7), {})
    assert elastic.config.rdzv_endpoint == "head:29400"
    assert elastic.config.rdzv_configs["read_timeout"] == elastic.config.rdzv_configs["join_timeout"] == 420


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (caused(RendezvousConnectionError("see below"), TimeoutError("timed out\nat line 3")), "timed out"),
        (RendezvousTimeoutError(), "RendezvousTimeoutError"),
        (RuntimeError("Broken pipe"), "Broken pipe"),
    ],
)
def test_machines_that_do_not_meet_say_so_in_a_line(elastic, error, reason):
    elastic.error = error
    with pytest.raises(GrocoError) as caught:
        started(LaunchSettings(device="cpu", nodes=2, rdzv="head:29400"), {})
    assert caught.value.message == f"the machines did not find each other at head:29400 ({reason})"
    assert "--rdzv" in caught.value.hint


def test_a_mistyped_host_is_found_out_at_once(monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(GrocoError, match="--rdzv haed:29400: this machine knows no haed"):
        started(LaunchSettings(device="cpu", nodes=2, rdzv="haed:29400"), {})


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes by a minute whenever it is looked at, while nothing waits."""
    passing = SimpleNamespace(monotonic=itertools.count(step=60).__next__, sleep=lambda seconds: None)
    monkeypatch.setattr(launch, "time", passing)


def test_a_host_that_never_answers_is_given_up_in_a_line(monkeypatch, clock):
    def refused(*_, **__):
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(socket, "create_connection", refused)
    with pytest.raises(GrocoError, match=r"--rdzv 192.0.2.1:29400: nothing answers there in 3 minutes .*refused"):
        started(LaunchSettings(device="cpu", nodes=2, rdzv="192.0.2.1:29400", process_timeout=3), {})


def test_a_host_that_comes_late_is_waited_for(monkeypatch, clock):
    answers = iter([False, False, True])

    def connect(*_, **__):
        if not next(answers):
            raise ConnectionRefusedError(111, "Connection refused")
        return socket.socket()

    monkeypatch.setattr(socket, "create_connection", connect)
    launch._await_host("192.0.2.1:29400", 30)
    assert next(answers, None) is None


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_machine_does_not_wait_for_itself(monkeypatch, host):
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("it was asked"))
    launch._await_host(f"{host}:29400", 30)


def test_the_first_process_that_failed_is_told_of(elastic):
    def failed(exitcode: int, timestamp: int) -> SimpleNamespace:
        about = {"local_rank": 0, "pid": 1, "error_file": "", "message": "", "signal_name": str}
        return SimpleNamespace(
            exitcode=exitcode, timestamp=timestamp, timestamp_isoformat=str, error_file_data={}, **about
        )

    elastic.error = ChildFailedError("groco", {0: failed(-15, 20), 1: failed(-7, 10)})
    with pytest.raises(GrocoError, match=r"process 1 was killed \(SIGBUS\)"):
        started(LaunchSettings(device="cpu", processes=2), {})
    elastic.error = ChildFailedError("groco", {0: failed(2, 20), 1: failed(-15, 30)})
    with pytest.raises(SystemExit) as ended:
        started(LaunchSettings(device="cpu", processes=2), {})
    assert ended.value.code == 2


def test_a_process_that_stopped_as_asked_is_told_from_one_that_a_signal_ended(elastic):
    about = {"local_rank": 0, "pid": 1, "error_file": "", "message": "", "signal_name": str, "error_file_data": {}}
    stopped = SimpleNamespace(exitcode=143, timestamp=20, timestamp_isoformat=str, **about)
    elastic.error = ChildFailedError("groco", {1: stopped})
    with pytest.raises(GrocoError, match=r"process 1 was killed \(SIGTERM\)"):
        started(LaunchSettings(device="cpu", processes=2), {})
    elastic.asked = True
    with pytest.raises(SystemExit) as ended:
        started(LaunchSettings(device="cpu", processes=2), {})
    assert ended.value.code == 143


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gpus": -1}, "--gpus -1"),
        ({"processes": 0}, "--processes 0"),
        ({"gpus": 2, "processes": 2}, "contradict each other"),
        ({"gpus": 2, "device": "cpu"}, "--gpus 2 and --device cpu contradict each other"),
        ({"nodes": 2}, "--nodes 2 need a place to meet"),
        ({"nodes": 2, "rdzv": "host"}, "--rdzv host is no HOST:PORT"),
        ({"nodes": 2, "rdzv": "host:294000"}, "--rdzv host:294000 is no HOST:PORT"),
    ],
)
def test_settings_that_cannot_be_are_refused(values, message):
    with pytest.raises(UsageError) as caught:
        LaunchSettings(**values)
    assert message in caught.value.message
    assert caught.value.hint
