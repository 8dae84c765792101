"""Pictures, and the simple forms that several modules here are compared with."""

from collections.abc import Callable

import pytest
import torch
import torchvision.transforms.v2.functional as tvf
from torch import Tensor


@pytest.fixture(scope="session")
def pictures() -> Callable[..., Tensor]:
    """Noise on an 8-bit scale, with flat, grey, dark, near-grey and few-coloured images among it.

    `pictures(n, height, width)` returns [n, 3, height, width]; n ≥ 6.
    """

    def drawn(n: int, height: int = 18, width: int = 22) -> Tensor:
        images = torch.randint(256, (n, 3, height, width), generator=torch.Generator().manual_seed(0)) / 255
        images[0], images[1], images[2] = 0.0, 1.0, 0.5
        images[3] = images[3, :1]
        images[4] = images[4] / 64 + 0.5
        images[5] = (images[5] * 2).round() / 2
        return images

    return drawn


@pytest.fixture(scope="session")
def naive_jitter() -> Callable[[Tensor, list[float | None], list[int]], Tensor]:
    """One image's colour jitter by torchvision: its factors, and their order; None leaves one out."""
    adjust = [tvf.adjust_brightness, tvf.adjust_contrast, tvf.adjust_saturation, tvf.adjust_hue]

    def jittered(image: Tensor, factors: list[float | None], order: list[int]) -> Tensor:
        for number in order:
            factor = factors[number]
            if factor is not None:
                image = adjust[number](image, factor)
        return image

    return jittered
