"""On a CUDA GPU: the sorting part, fused, step by step and through the permutation matrix; the loss's share of a step.

Lines: forward and backward, the median of 20 behind 5 to warm up (compilation is in these), and kernel launches.
"""

import statistics
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

import timm
import torch
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from groco_cli.losses import GroCoLoss
from groco_cli.models import Projector
from groco_cli.sorting.group_mass import group_mass

ANCHORS, SIZES, BATCH = 2048, (11, 32, 64), 256


def milliseconds(run: Callable[[], None]) -> float:
    """Median of 20, by the GPU's own clock."""
    times = []
    for _ in range(25):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times[5:])


def launches(run: Callable[[], None]) -> int:
    """Kernels that one run starts on the GPU; copies and fillings by the driver are none."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        run()
        torch.cuda.synchronize()
    on_gpu = [event.name for event in profiler.events() if event.device_type == DeviceType.CUDA]
    return sum(not name.startswith(("Memcpy", "Memset")) for name in on_gpu)


def sorting_forms(size: int, device: str) -> dict[str, Callable[[Tensor], Tensor]]:
    """Masses of the first place, by form."""
    from groco_cli.sorting.fused import fused_group_mass

    network = {"k": 1, "kind": "odd_even", "relaxation": "cauchy", "beta": 1.0}
    forms = {"fused": partial(fused_group_mass, **network), "step by step": partial(group_mass, **network)}
    if find_spec("diffsort"):
        import diffsort

        matrix = diffsort.DiffSortNet("odd_even", size, device=device, steepness=1.0, distribution="cauchy")
        forms["diffsort"] = lambda x: matrix(x)[1][:, :, 0]
    return forms


def measure_sorting(size: int, device: str) -> None:
    """Print a line for each form."""
    x, weights = torch.randn(ANCHORS, size, device=device, requires_grad=True), torch.rand(size, device=device)
    for name, form in sorting_forms(size, device).items():

        def run(form: Callable[[Tensor], Tensor] = form) -> None:
            torch.autograd.grad(form(x), x, weights.expand(ANCHORS, -1).contiguous())

        print(f"n = {size}, {ANCHORS:,} lists, {name}: {milliseconds(run):.3f} ms, {launches(run):,} launches")


def measure_share(device: str) -> None:
    """Print how much of a ResNet-50's training step the whole loss takes."""
    model = nn.Sequential(timm.create_model("resnet50", num_classes=0), Projector(2048))
    model.to(device, memory_format=torch.channels_last)
    images = torch.rand(2 * BATCH, 3, 224, 224, device=device).contiguous(memory_format=torch.channels_last)
    optimizer, loss = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9), GroCoLoss()

    def step() -> None:
        with torch.autocast(device, dtype=torch.bfloat16):
            made = loss(model(images).chunk(2))
        optimizer.zero_grad()
        made.backward()
        optimizer.step()

    projections = [torch.randn(BATCH, 2048, device=device, requires_grad=True) for _ in range(2)]
    alone, whole = milliseconds(lambda: torch.autograd.grad(loss(projections), projections)), milliseconds(step)
    print(f"ResNet-50, {BATCH} images, 2 views: loss {alone:.2f} of {whole:.1f} ms a step, {alone / whole:.1%}")


if __name__ == "__main__":
    if not torch.cuda.is_available():
        raise SystemExit("this measures a CUDA GPU, and torch finds none here")
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    for n in SIZES:
        measure_sorting(n, "cuda")
    measure_share("cuda")
