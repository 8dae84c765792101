import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor


@pytest.fixture
def vectors() -> Callable[..., Tensor]:
    """Features of lengths between 0.1 and 10, which an index has to normalise: `vectors(10, dim=24, seed=1)`."""

    def draw(count: int, dim: int = 24, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        lengths = 10 ** (torch.rand(count, 1, generator=generator) * 2 - 1)
        return torch.randn(count, dim, generator=generator) * lengths

    return draw


@pytest.fixture
def without_faiss(monkeypatch) -> None:
    """As if FAISS were not installed."""
    monkeypatch.setitem(sys.modules, "faiss", None)
