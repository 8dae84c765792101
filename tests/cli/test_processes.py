"""`groco pretrain --processes 2` as it is typed: what is said, how it ends, and that no process outlives it."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from groco_cli.engine.metrics import read_metrics
from groco_cli.engine.run_folder import RunFolder

TINY = ("--device", "cpu", "--precision", "fp32", "--arch", "test_vit", "--subset", "100", "--batch-size", "20")
TINY += ("--projector-hidden", "32", "--projector-out", "16", "--lr", "0.2", "--warmup-epochs", "0")
TINY += ("--log-every", "1", "--knn-every", "0")
pytestmark = pytest.mark.slow


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "groco_cli", "pretrain", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        start_new_session=True,
    )


def wait_for_step(run: RunFolder, step: int) -> None:
    for _ in range(1200):
        if run.metrics.exists() and f'"step": {step}' in run.metrics.read_text():
            return
        time.sleep(0.1)
    raise AssertionError("the run did not come that far")


def children(process: subprocess.Popen[str]) -> dict[int, int]:
    """The processes that a launcher started, by rank."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                variables = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            ranks = [int(value[5:]) for value in variables if value.startswith(b"RANK=")]
            if parent == process.pid and ranks:
                found[ranks[0]] = int(entry.name)
    return found


def has_ended(number: int) -> bool:
    for _ in range(100):
        try:
            if (Path("/proc") / str(number) / "stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.1)
    return False


def losses(run: RunFolder) -> torch.Tensor:
    return torch.tensor([line["loss"] for line in read_metrics(run.metrics) if line["kind"] == "train"])


def test_a_stopped_run_is_saved_once_and_goes_on_where_it_was(tmp_path):
    run = RunFolder(tmp_path / "run")
    process = start(*TINY, "--processes", "2", "--epochs", "4", "--output", str(run.path))
    wait_for_step(run, 3)
    for number in (*children(process).values(), process.pid):  # as a service manager does: all at once
        os.kill(number, signal.SIGTERM)
    _, said = process.communicate(timeout=240)
    assert process.returncode == 143, said
    stopped = [line for line in said.splitlines() if line.startswith("stopped: ")]
    assert len(stopped) == 1
    assert "Traceback" not in said
    assert 3 <= int(stopped[0].split()[3]) < 20

    resumed = start("--resume", "--output", str(run.path))
    printed, said = resumed.communicate(timeout=240)
    assert resumed.returncode == 0, said
    assert said.count(f"resumed at step {stopped[0].split()[3]}") == 1
    assert printed.count("k-NN, k=") == 1
    assert len(losses(run)) == 20  # that they equal an uninterrupted run's: tests/engine/test_processes.py


@pytest.mark.long
def test_a_run_may_go_on_in_another_number_of_processes(tmp_path):
    run = RunFolder(tmp_path / "run")
    process = start(*TINY, "--processes", "2", "--epochs", "4", "--output", str(run.path))
    wait_for_step(run, 3)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C in a terminal
    assert process.wait(timeout=240) == 130
    resumed = start("--resume", "--output", str(run.path), "--processes", "1")
    assert resumed.wait(timeout=240) == 0
    assert len(losses(run)) == 20


@pytest.mark.parametrize("rank", [0, pytest.param(1, marks=pytest.mark.long)])
def test_a_killed_process_ends_the_run_at_once(tmp_path, rank):
    run = RunFolder(tmp_path / "run")
    process = start(*TINY, "--processes", "2", "--epochs", "500", "--output", str(run.path))
    wait_for_step(run, 3)
    ranks = children(process)
    assert sorted(ranks) == [0, 1]
    os.kill(ranks[rank], signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert [line.partition("; ")[0] for line in said.splitlines() if line.startswith("error:")] == [
        f"error: process {rank} was killed (SIGKILL)"
    ]
    assert "Traceback" not in said
    assert all(has_ended(number) for number in ranks.values())


@pytest.mark.long
def test_a_process_that_is_ended_by_a_signal_of_its_own_is_named(tmp_path):
    run = RunFolder(tmp_path / "run")
    process = start(*TINY, "--processes", "2", "--epochs", "500", "--output", str(run.path))
    wait_for_step(run, 3)
    os.kill(children(process)[1], signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "error: process 1 was killed (SIGTERM)" in said
    assert "Traceback" not in said


def test_a_launcher_that_is_killed_leaves_no_process_behind(tmp_path):
    run = RunFolder(tmp_path / "run")
    process = start(*TINY, "--processes", "2", "--epochs", "500", "--output", str(run.path))
    wait_for_step(run, 3)
    ranks = children(process)
    assert len(ranks) == 2
    process.kill()
    assert all(has_ended(number) for number in ranks.values())
    process.communicate()


def test_an_error_of_one_process_names_it_and_ends_the_others(tmp_path, picture_folder):
    folder = picture_folder(*(f"{i:02}.png" for i in range(40)))
    (folder / "17.png").write_bytes(b"no picture")
    failed = start(*TINY, "--recipe", "digits", "--processes", "2", "--data", str(folder), "--workers", "0")
    _, said = failed.communicate(timeout=240)
    errors = [line for line in said.splitlines() if line.startswith("error:")]
    assert failed.returncode == 1
    assert len(errors) == 1, said
    assert f"cannot decode {folder / '17.png'}" in errors[0]
    assert "Traceback" not in said


@pytest.mark.long
def test_machines_meet_where_they_are_told_to(tmp_path):
    run = RunFolder(tmp_path / "run")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    typed = (*TINY, "--epochs", "1", "--nodes", "2", "--rdzv", f"localhost:{port}", "--output", str(run.path))
    ends = [(*process.communicate(timeout=240), process.returncode) for process in [start(*typed), start(*typed)]]
    assert [code for *_, code in ends] == [0, 0], ends
    assert sum(said.count("2 processes") for _, said, _ in ends) == 1
    assert sum(printed.count("k-NN, k=") for printed, *_ in ends) == 1
    assert len(losses(run)) == 5


@pytest.mark.long
def test_torchrun_is_joined(tmp_path):
    run = RunFolder(tmp_path / "run")
    made = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "groco_cli"),
            *("pretrain", *TINY, "--epochs", "1", "--output", str(run.path), "--json"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert made.returncode == 0, made.stderr
    assert "2 processes" in made.stderr
    assert len(made.stdout.splitlines()) == 1
    assert run.latest.exists()
