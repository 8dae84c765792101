"""Which photometric changes a view undergoes: how strong and how frequent they are, and what is drawn for each image.

The changes themselves are `operations`.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from groco_cli.data.operations import colour_jitter, flip, gaussian_blur, greyscale, solarise
from groco_cli.errors import UsageError

PHOTOMETRIC_DRAWS = 11
"""Uniform draws that an image takes."""

_ORDERS = torch.tensor(list(itertools.permutations(range(4))))  # [24, 4]: the operation at each place


@dataclass(frozen=True, kw_only=True)
class Photometric:
    """How strong and how frequent each photometric change is; by default none is made but the flip.

    Args:
        brightness: Strength s: the factor is uniform in [max(0, 1 - s), 1 + s].
        contrast: Likewise.
        saturation: Likewise.
        hue: Largest shift to either side, in turns, at most 0.5.
        jitter_probability: How often those four are applied, in a random order.
        grey_probability: How often an image loses its colours.
        blur_probability: How often it is blurred.
        blur_sigma: Smallest and largest standard deviation of the blur, pixels.
        solarise_probability: How often the brighter half of its values is inverted.
        flip_probability: How often left and right change places.

    Raises:
        UsageError: If a setting is out of its range.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    jitter_probability: float = 0.0
    grey_probability: float = 0.0
    blur_probability: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarise_probability: float = 0.0
    flip_probability: float = 0.5

    def __post_init__(self) -> None:
        strengths = {"brightness": math.inf, "contrast": math.inf, "saturation": math.inf, "hue": 0.5}
        probabilities = {f"{name}_probability": 1.0 for name in ("jitter", "grey", "blur", "solarise", "flip")}
        for name, largest in {**strengths, **probabilities}.items():
            value = getattr(self, name)
            if not (0 <= value <= largest and value < math.inf):
                option = f"--{name.removesuffix('_probability')}"
                wanted = "type 0 or more" if largest == math.inf else f"type a number from 0 to {largest:g}"
                raise UsageError(f"{option} {value} is out of range", wanted)
        if not (len(self.blur_sigma) == 2 and 0 < self.blur_sigma[0] <= self.blur_sigma[1]):
            raise UsageError(f"--blur-sigma {self.blur_sigma} is out of range", "type --blur-sigma 0.1 2.0")


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What was drawn for each of B images, on the CPU.

    Args:
        flipped: Whether left and right change places, bool [B]; likewise `jittered`, `greyed`, `blurred`, `solarised`.
        jittered: Whether the jitter is applied.
        factors: Of brightness, contrast, saturation and hue, float32 [B] each; None for one that is never made.
        order: Which of these four comes at each place, int64 [B, 4].
        greyed: Whether colours are lost.
        blurred: Whether it is blurred.
        sigmas: With which standard deviation, pixels, float32 [B].
        solarised: Whether the brighter half of its values is inverted.
    """

    flipped: Tensor
    jittered: Tensor
    factors: Sequence[Tensor | None]
    order: Tensor
    greyed: Tensor
    blurred: Tensor
    sigmas: Tensor
    solarised: Tensor

    def of(self, part: slice) -> "Changes":
        """What was drawn for some of the images."""
        return Changes(
            flipped=self.flipped[part],
            jittered=self.jittered[part],
            factors=[None if factor is None else factor[part] for factor in self.factors],
            order=self.order[part],
            greyed=self.greyed[part],
            blurred=self.blurred[part],
            sigmas=self.sigmas[part],
            solarised=self.solarised[part],
        )

    def apply(self, images: Tensor) -> Tensor:
        """Make the changes, in DINO's order.

        The order is that of the official transforms (github.com/facebookresearch/dino, main_dino.py,
        `DataAugmentationDINO`). An image's result depends on what was drawn for it alone.

        Args:
            images: [B, 3, H, W] in [0, 1], floating.

        Returns:
            [B, 3, H, W]; the images themselves where nothing happens to them.
        """
        images = flip(images, self.flipped)
        images = colour_jitter(images, self.factors, self.order, self.jittered)
        images = greyscale(images, self.greyed)
        images = gaussian_blur(images, self.sigmas, self.blurred)
        return solarise(images, self.solarised)


def draw_changes(settings: Photometric, draws: NDArray[np.float64]) -> Changes:
    """Decide what happens to each image.

    Args:
        settings: How strong and how frequent each change is.
        draws: [B, PHOTOMETRIC_DRAWS] uniform in [0, 1): for flip, jitter, its four strengths and their order, grey,
            blur, its sigma, and solarise.
    """
    columns = torch.from_numpy(draws).unbind(1)
    flipped, jittered, brightness, contrast, saturation, hue, order, greyed, blurred, sigma, solarised = columns
    low, high = settings.blur_sigma
    return Changes(
        flipped=flipped < settings.flip_probability,
        jittered=jittered < settings.jitter_probability,
        factors=[
            _jitter_factors(brightness, settings.brightness),
            _jitter_factors(contrast, settings.contrast),
            _jitter_factors(saturation, settings.saturation),
            (settings.hue * (2 * hue - 1)).float() if settings.hue else None,
        ],
        order=_ORDERS[(order * len(_ORDERS)).long()],
        greyed=greyed < settings.grey_probability,
        blurred=blurred < settings.blur_probability,
        sigmas=(low + (high - low) * sigma).float(),
        solarised=solarised < settings.solarise_probability,
    )


def _jitter_factors(draws: Tensor, strength: float) -> Tensor | None:
    low, high = max(0.0, 1 - strength), 1 + strength
    return (low + (high - low) * draws).float() if strength else None
