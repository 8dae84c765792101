"""A ResNet-18's step at 32 pixels: convolutions on small maps as matrix products, against torch's own."""

import statistics
import time
from collections.abc import Callable

import timm
import torch
from torch import nn

from groco_cli.losses import GroCoLoss
from groco_cli.models import Projector
from groco_cli.models.small_maps import multiply_small_maps


def step_of(encoder: nn.Module) -> Callable[[], None]:
    """One training step on the same images."""
    model = nn.Sequential(encoder, Projector(512)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    images = torch.rand(512, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    loss = GroCoLoss()

    def step() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            made = loss(model(images).chunk(2))
        optimizer.zero_grad()
        made.backward()
        optimizer.step()

    return step


def seconds(step: Callable[[], None]) -> float:
    """Median of ten, behind two to warm up."""
    times = []
    for _ in range(12):
        begun = time.perf_counter()
        step()
        times.append(time.perf_counter() - begun)
    return statistics.median(times[2:])


if __name__ == "__main__":
    torch.manual_seed(0)
    plain, ours = (timm.create_model("resnet18", num_classes=0) for _ in range(2))
    multiply_small_maps(ours)
    before, after = seconds(step_of(plain)), seconds(step_of(ours))
    print(f"torch {before * 1e3:.0f} ms, groco {after * 1e3:.0f} ms a step: {before / after:.2f} times as fast")
