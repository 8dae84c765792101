"""What is done to every picture alike: normalisation, and the resize and crop with which encoders are measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """Mean and standard deviation of each channel, for values in [0, 1]."""

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __call__(self, images: Tensor, out: Tensor | None = None) -> Tensor:
        """Normalise float images [B, 3, H, W] in [0, 1], into `out` where it is given."""
        factor, offset = _line(tuple(self.mean), tuple(self.std), images.dtype, images.device)
        return torch.mul(images, factor, out=out).add_(offset)


@dataclass(frozen=True, kw_only=True)
class EvaluationTransform:
    """How a picture is shown to a trained encoder: shorter side resized, centre cropped, normalised.

    Args:
        resize: Length of the shorter side, pixels; 256 for 224 as published.
        crop: Side of the square cut from the centre, pixels.
        normalisation: That of pre-training.
        interpolation: "bicubic", as k-NN is published, or "bilinear", as the linear probe.
    """

    resize: int
    crop: int
    normalisation: Normalisation
    interpolation: str = "bicubic"

    def pixels(self, image: Tensor) -> Tensor:
        """Resize (antialiased) and crop; uint8 [..., 3, H, W] to uint8 [..., 3, crop, crop]."""
        from torchvision.transforms.v2 import functional as tvf  # takes seconds, which not every command needs

        if min(image.shape[-2:]) != self.resize:
            mode = tvf.InterpolationMode(self.interpolation)
            image = tvf.resize(image, [self.resize], interpolation=mode, antialias=True)
        cropped: Tensor = tvf.center_crop(image, [self.crop, self.crop])
        return cropped


@cache
def _line(
    mean: Sequence[float], std: Sequence[float], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """(x - mean) / std as a factor and an offset a channel, [C, 1, 1]."""
    centre, spread = (torch.tensor(values, dtype=torch.float64).view(-1, 1, 1) for values in (mean, std))
    return (1 / spread).to(device, dtype), (-centre / spread).to(device, dtype)
