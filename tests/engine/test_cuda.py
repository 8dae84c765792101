"""What only a GPU can show: whoever has one need but type `pytest tests/engine/test_cuda.py`."""

import copy
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest
import torch
from torch import Tensor

from groco_cli.data.loader import ViewLoader
from groco_cli.data.sampling import shuffled
from groco_cli.data.sources import Dataset, MemorySource, Source, open_dataset
from groco_cli.data.transforms import Normalisation
from groco_cli.data.views import AUGMENTATIONS
from groco_cli.engine import pretrain
from groco_cli.engine import step as steps
from groco_cli.engine.bench_train import bench_train
from groco_cli.engine.configuration import override
from groco_cli.engine.metrics import read_metrics
from groco_cli.engine.monitor import knn_monitor
from groco_cli.engine.objective import build_loss, build_method
from groco_cli.engine.processes import Processes
from groco_cli.engine.run_folder import RunFolder
from groco_cli.engine.settings import PretrainSettings
from groco_cli.errors import GrocoError
from groco_cli.evaluation.protocol import pixels
from groco_cli.models import EncoderMetadata

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
PLAIN = Normalisation(mean=(0.0,) * 3, std=(1.0,) * 3)


def built(settings: PretrainSettings, precision: str = "fp32") -> steps.TrainingStep:
    step = steps.build_step(settings, build_loss(settings.loss), Processes(device=GPU), precision)
    step.model.train()
    return step


def batches(count: int, dtype: torch.dtype = torch.float32) -> list[list[Tensor]]:
    """Two views of 32 images, so many times."""
    noise = torch.randn(count, 2, 32, 3, 32, 32, dtype=dtype, generator=torch.Generator().manual_seed(1))
    return [list(views.to(GPU)) for views in noise]


def take(step: steps.TrainingStep, given: list[list[Tensor]]) -> Tensor:
    return torch.stack([step(views, progress=0.5, rate=0.1)[0] for views in given])


@pytest.fixture
def on_gpu(quick: PretrainSettings) -> PretrainSettings:
    return override(quick, {"run": {"device": "cuda:0"}}, "test")


def test_a_step_in_fp16_goes_on_with_its_scaler_and_overflows(quick, tmp_path):
    given, step = batches(6), built(quick, "fp16")
    # The first step overflows, however small its gradients; those behind it have the usual scale.
    step.state.scaler = torch.amp.GradScaler(GPU.type, init_scale=2.0**60, backoff_factor=2.0**-44)
    take(step, given[:3])
    step.state.save(tmp_path / "state.pt")
    other = built(override(quick, {"run": {"seed": 1}}, "test"), "fp16")
    other.state.settings = step.state.settings
    other.state.load(tmp_path / "state.pt")
    assert other.state.scaler.state_dict() == step.state.scaler.state_dict()
    assert other.state.scaler.get_scale() < 2.0**60
    assert int(other.state.overflows) == int(step.state.overflows) > 0
    torch.testing.assert_close(other.model.state_dict(), step.model.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(take(other, given[3:]), take(step, given[3:]), rtol=1e-2, atol=1e-3)


def in_memory(folder: Callable[..., Path]) -> Source:
    images = torch.randint(256, (48, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return MemorySource(images, None, ())


def in_files(folder: Callable[..., Path]) -> Source:
    return open_dataset(str(folder(*(f"{number:02}.png" for number in range(48)), size=(40, 36))), Path()).train


@pytest.mark.parametrize(("kept", "workers"), [(in_memory, 0), (in_files, 0), (in_files, 2)])
def test_views_that_are_made_ahead_are_the_cpu_s(picture_folder, kept, workers):
    source = kept(picture_folder)
    made = {}
    for device in (CPU, GPU):
        loader = ViewLoader(
            source,
            AUGMENTATIONS["dino"](2, 1, 32, 16),
            batch_size=8,
            order=shuffled(len(source), 0),
            normalisation=PLAIN,
            seed=0,
            device=device,
            workers=workers,
        )
        made[device] = []
        for views in chain(loader.epoch(0), loader.epoch(1)):
            busy = torch.ones(1024, 1024, device=device)
            for _ in range(10 * (device == GPU)):  # the GPU is at work while the next batch is made
                busy = busy @ busy / 1024
            made[device].append([(view * busy[0, 0]).cpu() for view in views])
    assert len(made[GPU]) == len(made[CPU]) == 12
    for ours, theirs in zip(chain(*made[GPU]), chain(*made[CPU]), strict=True):
        # On the whole, not each: blur may be in TF32, and solarising makes a step of the smallest difference.
        assert (ours - theirs).abs().mean() < 5e-3
        assert theirs.std() > 0.01


def test_channels_last_and_one_kernel_for_all_weights_change_nothing(quick, monkeypatch):
    monkeypatch.setattr(steps, "build_method", lambda settings: build_method(settings).double())
    step, given = built(quick), batches(3, torch.float64)
    assert step.state.optimizer.defaults["fused"]
    assert any(w.ndim == 4 and w.is_contiguous(memory_format=torch.channels_last) for w in step.model.parameters())
    model, loss = copy.deepcopy(step.model).to(memory_format=torch.contiguous_format), build_loss(quick.loss)
    plain = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-6, foreach=False, fused=False)
    for views in given:
        expected = loss(model.projector(model.encoder(torch.cat(views))).chunk(2))
        plain.zero_grad()
        expected.backward()
        plain.step()
        torch.testing.assert_close(take(step, [views])[0], expected.detach(), rtol=1e-6, atol=1e-8)
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(step.model.state_dict()[name], weight, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.slow
def test_compiled_steps_are_the_same(quick):
    settings = override(quick, {"model": {"arch": "test_vit"}}, "test")
    eager = take(built(settings), batches(3))
    compiled = take(built(override(settings, {"run": {"compile": True}}, "test")), batches(3))
    assert eager.std() > 0
    torch.testing.assert_close(compiled, eager, rtol=5e-3, atol=1e-4)  # convolutions are in TF32


def test_the_monitor_s_score_is_the_cpu_s():
    images = torch.randint(256, (130, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(130) % 3
    images[:, 0] = images[:, 0] // 2 + 60 * labels.view(-1, 1, 1).to(torch.uint8)  # classes that can be told apart
    parts = [MemorySource(images[part], labels[part], ("a", "b", "c")) for part in (slice(100), slice(100, 130))]
    encoder = pixels(EncoderMetadata(arch="pixels", image_size=32, resize=32, method="groco"))
    scores = []
    for device in (CPU, GPU):
        made = knn_monitor(Dataset("noise", *parts), device, workers=0, on_bad_image="error")
        assert made
        scores.append(made.score(encoder))
    assert scores[0]
    assert scores[1]
    assert scores[0]["top1"] > 0.5
    assert scores[1]["top1"] == pytest.approx(scores[0]["top1"], abs=0.04)  # one picture more or less


def test_a_run_knows_its_memory_and_leaves_cudnn_as_it_was(on_gpu):
    assert not torch.backends.cudnn.benchmark
    lines = read_metrics(RunFolder(pretrain(on_gpu)).metrics)
    assert all(line["gpu_memory"] > 0 for line in lines if line["kind"] == "train")
    assert {line["kind"] for line in lines} == {"train"}
    assert not torch.backends.cudnn.benchmark


def test_a_measurement_knows_its_memory(on_gpu):
    speed = bench_train(on_gpu, generated=True, repeats=2)
    assert speed.peak_bytes
    assert speed.peak_bytes > 32 * 2 * 3 * 32 * 32 * 4  # the views alone


def test_a_gpu_that_is_full_ends_a_run_with_one_line(on_gpu):
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(2**20 / torch.cuda.get_device_properties(GPU).total_memory, GPU)
    try:
        with pytest.raises(GrocoError, match=r"a step on 32 images does not fit into the memory of cuda:0"):
            pretrain(on_gpu)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, GPU)
