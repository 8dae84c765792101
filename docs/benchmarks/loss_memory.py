"""Peak memory of the whole GroCo loss, forward and backward, above its inputs (Linux)."""

import resource

import torch

from groco_cli.losses import GroCoLoss


def peak() -> float:
    """The most memory this process has had so far, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    small = [torch.randn(64, 256, requires_grad=True) for _ in range(2)]
    GroCoLoss()(small).backward()  # what is allocated once
    views = [torch.randn(16_384, 256, requires_grad=True) for _ in range(2)]
    before = peak()
    GroCoLoss(num_negatives=10)(views).backward()
    matrix = (2 * 16_384) ** 2 * 4 / 1e9
    print(f"32,768 embeddings of 256: {peak() - before:.2f} GB above the inputs; all similarities: {matrix:.1f} GB")
