"""The figures of a stretch of training: the loss, the images, and a GPU's memory where there is one."""

import pytest
import torch

from groco_cli import devices
from groco_cli.engine import trainer
from groco_cli.engine.configuration import override
from groco_cli.engine.metrics import read_metrics
from groco_cli.engine.pace import Pace, Stopwatch
from groco_cli.engine.run_folder import RunFolder

CPU = torch.device("cpu")


def test_the_mean_loss_and_the_images_are_counted():
    stopwatch = Stopwatch(8, CPU)
    for loss in stopwatch.waiting([1.0, 2.0, 6.0]):
        stopwatch.done(torch.tensor(loss))
    pace = stopwatch.read()
    assert pace.loss == 3.0
    assert pace.images_per_second > 0
    assert 0 <= pace.waiting < 1
    assert pace.gpu_memory is None


def test_a_gpu_s_memory_is_shown_in_gigabytes():
    assert str(Pace(0.5, 1234.0, 0.07, 23.46)) == "loss 0.5000  1,234 images/s  waiting 7%  23.5 GB"
    assert str(Pace(0.5, 1234.0, 0.07)) == "loss 0.5000  1,234 images/s  waiting 7%"


def test_a_gpu_s_memory_goes_to_the_metrics_of_training_and_nowhere_on_a_cpu(quick, monkeypatch, tmp_path):
    run = RunFolder(trainer.pretrain(quick))
    assert all("gpu_memory" not in line for line in read_metrics(run.metrics))
    monkeypatch.setattr(devices, "peak_memory", lambda _: 23_460_000_000)
    elsewhere = override(quick, {"run": {"output": str(tmp_path / "gpu")}}, "test")
    run = RunFolder(trainer.pretrain(elsewhere))
    train = [line for line in read_metrics(run.metrics) if line["kind"] == "train"]
    assert [line["gpu_memory"] for line in train] == [23.46] * len(train)
    assert train


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_the_most_memory_at_a_time_is_what_torch_counts():
    device = torch.device("cuda", 0)
    torch.cuda.reset_peak_memory_stats(device)
    before = devices.peak_memory(device)
    torch.empty(10_000_000, dtype=torch.uint8, device=device)
    assert devices.peak_memory(device) >= before + 10_000_000
