"""A step that does not fit into the memory: one line that says what to type, in a run and in its measurement."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from groco_cli import console
from groco_cli.engine import pretrain
from groco_cli.engine.bench_train import bench_train
from groco_cli.engine.configuration import override
from groco_cli.engine.memory import memory_explained
from groco_cli.engine.processes import Processes
from groco_cli.engine.run_folder import RunFolder
from groco_cli.engine.step import TrainingStep
from groco_cli.errors import GrocoError

CPU = torch.device("cpu")


def too_large_from(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the step after so many find no memory."""
    original = TrainingStep.__call__

    def stepped(self: TrainingStep, *arguments: object, **named: object) -> object:
        if self.state.step >= step:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has …")
        return original(self, *arguments, **named)

    monkeypatch.setattr(TrainingStep, "__call__", stepped)


def test_a_run_ends_with_one_line_and_keeps_what_it_saved(quick, monkeypatch):
    too_large_from(4, monkeypatch)
    with pytest.raises(GrocoError, match=r"^a step on 32 images does not fit into this machine's memory$") as caught:
        pretrain(quick)
    smaller = "--micro-batch 16 or a smaller --batch-size"
    assert caught.value.hint == f"begin a new run with {smaller}, or stop what else uses it"
    assert caught.value.exit_code == 1
    assert RunFolder(Path(quick.run.output)).state(3).exists()


def test_a_measurement_ends_with_the_same_line(quick, monkeypatch):
    too_large_from(1, monkeypatch)
    with pytest.raises(GrocoError, match="a step on 32 images does not fit"):
        bench_train(quick, generated=True, repeats=1)


@pytest.mark.parametrize(
    ("processes", "micro_batch", "images", "first"),
    [
        (1, 0, 32, "--micro-batch 16"),
        (4, 0, 8, "--micro-batch 4"),
        (1, 6, 32, "--micro-batch 3"),
        (1, 1, 32, "a smaller"),
    ],
)
def test_what_to_type_is_half_of_what_was_encoded_at_once(quick, processes, micro_batch, images, first):
    settings = override(quick, {"optim": {"micro_batch": micro_batch}}, "test")
    with (
        pytest.raises(GrocoError, match=f"a step on {images} images") as caught,
        memory_explained(settings, Processes(device=CPU, world=processes)),
    ):
        raise torch.OutOfMemoryError
    assert caught.value.hint.startswith(f"begin a new run with {first}")


def test_more_gpus_are_another_way_out_where_there_are_any(quick, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "H100")
    gpu = Processes(device=torch.device("cuda", 0))
    with (
        pytest.raises(GrocoError, match=r"into the memory of cuda:0 \(H100\)$") as caught,
        memory_explained(quick, gpu),
    ):
        raise torch.OutOfMemoryError
    assert caught.value.hint.endswith("a smaller --batch-size, type more --gpus, or stop what else uses it")


def numpy_s() -> None:
    np.empty(10**15)


def torch_s() -> None:
    torch.empty(10**15)


def the_system_s() -> None:
    raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))  # as where no worker can be started


@pytest.mark.parametrize("ask", [numpy_s, torch_s, the_system_s])
def test_a_machine_s_memory_runs_out_as_a_gpu_s_does(quick, ask):
    with pytest.raises(GrocoError, match="a step on 32 images"), memory_explained(quick, Processes(device=CPU)):
        ask()


@pytest.mark.parametrize("mistake", [RuntimeError("sizes do not match"), OSError(errno.ENOENT, "no such file")])
def test_a_mistake_in_the_program_is_not_taken_for_it(quick, mistake):
    with pytest.raises(type(mistake)), memory_explained(quick, Processes(device=CPU)):
        raise mistake


def test_a_score_that_finds_no_memory_is_a_warning_and_the_run_goes_on(tiny, monkeypatch):
    warned: list[str] = []
    monkeypatch.setattr(console, "warn", warned.append)
    monkeypatch.setattr("groco_cli.engine.monitor.evaluate_knn", no_memory)
    folder = RunFolder(pretrain(override(tiny, {"optim": {"epochs": 1}}, "test")))
    assert warned == ["no k-NN score (OutOfMemoryError: CUDA out of memory.); training goes on"] * 2
    assert folder.latest.exists()
    assert '"knn"' not in folder.metrics.read_text()


def no_memory(*_: object, **__: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory.")
