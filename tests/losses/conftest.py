"""Views in float64, different for every image."""

from collections.abc import Callable

import pytest
import torch


@pytest.fixture
def views_of() -> Callable[..., list[torch.Tensor]]:
    """`views_of(3, batch=4)`: three views of four images."""

    def make(count: int, batch: int = 6, dim: int = 5) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(count)
        return [
            torch.randn(batch, dim, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(count)
        ]

    return make
